CREATE FUNCTION echo(document json) RETURNS json STABLE AS $$ SELECT :document $$;
GRANT EXECUTE ON FUNCTION echo TO authenticated;

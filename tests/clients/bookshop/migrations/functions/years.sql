CREATE FUNCTION years() RETURNS SETOF integer STABLE AS $$ SELECT born FROM authors WHERE born IS NOT NULL AND id > 0 ORDER BY born $$;
GRANT EXECUTE ON FUNCTION years TO authenticated;

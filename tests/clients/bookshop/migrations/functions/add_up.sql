CREATE FUNCTION add_up(a integer, b integer DEFAULT 1) RETURNS integer STABLE AS $$ SELECT :a + :b $$;
GRANT EXECUTE ON FUNCTION add_up TO authenticated;

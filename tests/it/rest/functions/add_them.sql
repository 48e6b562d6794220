CREATE FUNCTION add_them(a integer, b integer DEFAULT 1) RETURNS integer STABLE AS $$ SELECT :a + :b $$;

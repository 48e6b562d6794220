CREATE FUNCTION anything() RETURNS SETOF clients STABLE AS $$ SELECT * FROM clients $$;
GRANT EXECUTE ON FUNCTION anything TO authenticated;

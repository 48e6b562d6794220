-- Whom the token is of.
CREATE FUNCTION whoami() RETURNS TABLE (email text, role text) STABLE AS $$ SELECT auth.uid(), auth.role() $$;
GRANT EXECUTE ON FUNCTION whoami TO authenticated;

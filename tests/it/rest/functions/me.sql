CREATE FUNCTION me() RETURNS TABLE (uid text, role text, note text) STABLE AS $$
  SELECT auth.uid(), auth.role(), auth.jwt() ->> 'sub'
$$;
GRANT EXECUTE ON FUNCTION me TO authenticated;

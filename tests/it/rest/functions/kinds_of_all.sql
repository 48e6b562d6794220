CREATE FUNCTION kinds_of_all(doc json DEFAULT '{}', flag boolean DEFAULT NULL, bytes bytea DEFAULT NULL)
RETURNS TABLE (doc json, flag boolean, bytes bytea, big bigint) STABLE AS $$
  SELECT :doc, :flag, :bytes, 9007199254740993
$$;

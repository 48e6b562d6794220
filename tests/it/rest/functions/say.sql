CREATE FUNCTION say(name text, loud boolean DEFAULT false) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN :loud THEN upper('Hello, ' || :name) ELSE 'Hello, ' || :name END;
$$;
GRANT EXECUTE ON FUNCTION say(text, boolean) TO PUBLIC;

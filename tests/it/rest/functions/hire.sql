-- Two statements in one transaction; the second returns what it made.
CREATE FUNCTION hire(name text, code text) RETURNS TABLE (id bigint, code text) AS $$
  INSERT INTO people(name) VALUES (:name);
  INSERT INTO badges(person_id, code) VALUES (last_insert_rowid(), :code) RETURNING person_id, code;
$$;

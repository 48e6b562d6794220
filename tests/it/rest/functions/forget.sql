CREATE FUNCTION forget(letter int) RETURNS void AS $$ DELETE FROM letters WHERE id = :letter; $$;

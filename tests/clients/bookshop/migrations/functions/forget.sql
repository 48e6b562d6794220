CREATE FUNCTION forget(review integer) RETURNS void AS $$ DELETE FROM reviews WHERE id = :review $$;
GRANT EXECUTE ON FUNCTION forget TO authenticated;

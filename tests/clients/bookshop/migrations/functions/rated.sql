CREATE FUNCTION rated(least integer) RETURNS TABLE (title text, stars numeric) STABLE AS $$
  SELECT title, avg(stars) FROM books JOIN reviews ON reviews.book_id = books.id GROUP BY books.id HAVING avg(stars) >= :least
$$;
GRANT EXECUTE ON FUNCTION rated TO authenticated;

-- Rows of a table: they are filtered, ordered and embedded in like the table's own.
CREATE FUNCTION books_of(author text) RETURNS SETOF books STABLE AS $$
  SELECT books.* FROM books JOIN authors ON authors.id = books.author_id WHERE authors.name LIKE :author
$$;
GRANT EXECUTE ON FUNCTION books_of TO authenticated;

CREATE FUNCTION restock(book integer, copies integer) RETURNS TABLE (id integer, stock integer) AS $$
  UPDATE books SET stock = stock + :copies WHERE id = :book RETURNING id, stock
$$;
GRANT EXECUTE ON FUNCTION restock TO authenticated;

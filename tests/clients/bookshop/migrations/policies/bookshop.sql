-- Who has signed in sees and changes the shop's rows, but those that `hidden.sql` adds: of these no client may see
-- anything, so what holds for a service token without them holds for a person's with them.

CREATE POLICY shop ON authors     TO authenticated USING (id > 0);
CREATE POLICY shop ON biographies TO authenticated USING (text NOT LIKE 'HIDDEN%');
CREATE POLICY shop ON books       TO authenticated USING (id > 0) WITH CHECK (author_id IN (SELECT id FROM authors));
CREATE POLICY shop ON genres      TO authenticated USING (id > 0);
CREATE POLICY shop ON book_genres TO authenticated USING (book_id IN (SELECT id FROM books));
CREATE POLICY shop ON reviews     TO authenticated USING (id > 0);
CREATE POLICY shop ON counts      TO authenticated USING (EXISTS (SELECT 1 FROM books WHERE books.id = counts.book_id) AND shop <> 'HIDDEN');
CREATE POLICY shop ON numbers     TO authenticated USING (id > 0);
CREATE POLICY shop ON "odd names" TO authenticated USING (id > 0);
CREATE POLICY shop ON pages       TO authenticated USING (title <> 'HIDDEN');

CREATE POLICY shop ON books_in_print FOR SELECT TO authenticated USING (id > 0);

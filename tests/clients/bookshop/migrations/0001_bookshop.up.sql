-- What the clients of rows over HTTP are tried on: each kind of relation, each kind of column, names that need quotes.

CREATE TABLE authors (
  id        INTEGER PRIMARY KEY,
  name      TEXT NOT NULL,
  country   TEXT NOT NULL,
  born      INTEGER,
  mentor_id INTEGER CONSTRAINT mentor REFERENCES authors (id)
);
CREATE INDEX authors_by_mentor ON authors (mentor_id);

-- One for one author.
CREATE TABLE biographies (author_id INTEGER PRIMARY KEY REFERENCES authors (id) ON DELETE CASCADE, text TEXT NOT NULL);

-- Two ways to an author.
CREATE TABLE books (
  id            INTEGER PRIMARY KEY,
  title         TEXT NOT NULL UNIQUE,
  author_id     INTEGER NOT NULL CONSTRAINT written_by REFERENCES authors (id),
  translator_id INTEGER CONSTRAINT translated_by REFERENCES authors (id),
  price         NUMERIC CHECK (price > 0),
  stock         INTEGER NOT NULL DEFAULT 0,
  in_print      BOOLEAN,
  published     TEXT,
  tags          JSON,
  details       JSON
);
CREATE INDEX books_by_author ON books (author_id);
CREATE INDEX books_by_translator ON books (translator_id);

CREATE TABLE genres (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE book_genres (
  book_id  INTEGER NOT NULL REFERENCES books (id) ON DELETE CASCADE,
  genre_id INTEGER NOT NULL REFERENCES genres (id),
  PRIMARY KEY (book_id, genre_id)
);
CREATE INDEX book_genres_by_genre ON book_genres (genre_id);

CREATE TABLE reviews (
  id      INTEGER PRIMARY KEY,
  book_id INTEGER NOT NULL REFERENCES books (id) ON DELETE CASCADE,
  stars   INTEGER NOT NULL CHECK (stars BETWEEN 1 AND 5),
  text    TEXT
);
CREATE INDEX reviews_by_book ON reviews (book_id);

-- A key of two columns, and a default.
CREATE TABLE counts (
  shop    TEXT NOT NULL,
  book_id INTEGER NOT NULL REFERENCES books (id) ON DELETE CASCADE,
  n       INTEGER NOT NULL DEFAULT 1,
  note    TEXT DEFAULT 'counted',
  PRIMARY KEY (shop, book_id)
);
CREATE INDEX counts_by_book ON counts (book_id);

CREATE TABLE numbers (id INTEGER PRIMARY KEY, big BIGINT, bytes BLOB);
CREATE TABLE "odd names" (id INTEGER PRIMARY KEY, "two words" TEXT, "with,comma" TEXT, "select" TEXT);
CREATE VIEW books_in_print AS SELECT id, title, price FROM books WHERE in_print;
CREATE VIRTUAL TABLE pages USING fts5 (title, body);

-- The rows that every test begins with.

DELETE FROM counts; DELETE FROM reviews; DELETE FROM book_genres; DELETE FROM genres; DELETE FROM books;
DELETE FROM biographies; DELETE FROM authors; DELETE FROM numbers; DELETE FROM "odd names"; DELETE FROM pages;

INSERT INTO authors (id, name, country, born, mentor_id) VALUES
  (1, 'Ada Quill', 'GB', 1931, NULL), (2, 'Bo Lindqvist', 'SE', 1954, 1), (3, 'Chen Wei', 'CN', NULL, 1), (4, 'Dora Ink', 'GB', 1990, 2);
INSERT INTO biographies VALUES (1, 'Wrote every morning.'), (2, 'Sailed.');
INSERT INTO books VALUES
  (1, 'The Glass Orchard', 1, NULL, 12.5, 3,  true,  '1961-03-01', '["trees","glass"]', '{"pages":210,"size":{"w":12,"h":19},"isbn":"111"}'),
  (2, 'North Water',       2, 1,    9,    0,  false, '1979-10-12', '["sea","cold"]',   '{"pages":340,"size":{"w":14,"h":21},"isbn":"222"}'),
  (3, 'A Map of Rain',     3, 1,    20,   7,  true,  '2001-05-05', '["sea","maps"]',   '{"pages":95,"isbn":null}'),
  (4, 'Paper, Lanterns',   3, 4,    7.25, 12, true,  NULL,         NULL,               NULL),
  (5, '100% Wool',         4, NULL, NULL, 1,  NULL,  '2020-02-29', '[]',               '{}');
INSERT INTO genres VALUES (1, 'novel'), (2, 'travel'), (3, 'craft'), (4, 'poetry');
INSERT INTO book_genres VALUES (1, 1), (2, 1), (2, 2), (3, 2), (5, 3);
INSERT INTO reviews VALUES (1, 1, 5, 'Luminous'), (2, 1, 3, NULL), (3, 2, 4, 'Cold, wet'), (4, 3, 2, 'Lost');
INSERT INTO counts VALUES ('Leeds', 1, 2, NULL), ('Leeds', 2, 5, 'dusty'), ('Oslo', 1, 4, NULL);
INSERT INTO numbers VALUES (1, 9007199254740993, x'00ff10'), (2, -5, NULL);
INSERT INTO "odd names" VALUES (1, 'a b', 'c,d', 'e'), (2, '(x)', '"q"', '\');
INSERT INTO pages (title, body) VALUES ('Cats', 'the fat cat sat'), ('Rats', 'a rat ran'), ('Both', 'cat and rat');

-- Rows that no policy lets anybody see, made to be found by what the tests ask for.

INSERT INTO authors VALUES (0, 'HIDDEN Ada Quill', 'GB', 1931, 1);
INSERT INTO biographies VALUES (3, 'HIDDEN');
INSERT INTO books VALUES
  (0, 'HIDDEN North Water, A Map of Rain', 1, 1, 9, 0, true, '1961-03-01', '["sea","cold","maps","glass"]', '{"pages":340,"size":{"w":12,"h":19},"isbn":"222"}');
INSERT INTO genres VALUES (0, 'HIDDEN');
INSERT INTO book_genres VALUES (1, 0), (4, 0), (0, 1), (0, 2);
INSERT INTO reviews VALUES (0, 1, 5, 'HIDDEN'), (-1, 4, 5, 'HIDDEN'), (-2, 0, 3, 'HIDDEN');
INSERT INTO counts VALUES ('HIDDEN', 1, 9, NULL), ('Leeds', 0, 9, NULL);
INSERT INTO numbers VALUES (0, 9007199254740993, x'00ff10');
INSERT INTO "odd names" VALUES (0, 'a b', 'c,d', 'HIDDEN');
INSERT INTO pages (title, body) VALUES ('HIDDEN', 'the fat cat sat, a rat ran');

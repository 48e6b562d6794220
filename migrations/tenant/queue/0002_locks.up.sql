-- A tenant's locks: a name has one holder at a time, until an instant. They stand in the queue's file since that commits with
-- a flush and is never thrown away, as the cache's may be. Times are milliseconds since 1970 UTC.

-- The fence that was given last: of all names together, so that it rises also for a name that was long forgotten.
CREATE TABLE lock_clock (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    fence INTEGER NOT NULL
) STRICT;
INSERT INTO lock_clock (one, fence) VALUES (1, 0);

CREATE TABLE locks (
    name     TEXT    PRIMARY KEY NOT NULL,
    token    BLOB    NOT NULL,                      -- 16 random bytes: who has it
    fence    INTEGER NOT NULL,
    owner    TEXT    NOT NULL,                      -- who says to have it
    taken_at INTEGER NOT NULL,
    until    INTEGER NOT NULL                       -- free from then on
) STRICT, WITHOUT ROWID;
CREATE INDEX locks_until ON locks (until);

-- A tenant's cache. Everything here can be made again: the file may be deleted at any time.
--
-- One clock gives every entry and every invalidation a number that only rises. So an ETag never comes back, and throwing
-- away a tag, a prefix, a namespace or everything is one row: what was set before it is gone, and is swept later.
-- Times are milliseconds since 1970 UTC.

CREATE TABLE clock (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    version     INTEGER NOT NULL,                   -- of what was set or thrown away last
    flushed     INTEGER NOT NULL,                   -- entries up to this version are gone
    invalidated INTEGER NOT NULL,                   -- the newest row of `invalidations`; entries after it need no look there
    named       INTEGER NOT NULL,                   -- rows of `invalidations`, about
    sweeping    INTEGER NOT NULL,                   -- the pass of the sweeper that runs settles invalidations up to this one
    swept       INTEGER NOT NULL,                   -- and has looked at entries up to this one
    boot        TEXT    NOT NULL                    -- the run of the machine in which all of this was written
) STRICT;
INSERT INTO clock (one, version, flushed, invalidated, named, sweeping, swept, boot) VALUES (1, 0, 0, 0, 0, 0, 0, '');

-- An entry's row is written when it is set; of a sliding one, also when a good part of its time has passed.
-- `value` stands last, so that looking at the rest does not touch its overflow pages.
CREATE TABLE entries (
    version      INTEGER PRIMARY KEY,               -- the clock when it was set; so the order of setting
    key          BLOB    NOT NULL UNIQUE,           -- its namespace, a slash, its name
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,                           -- fresh until then; NULL for good
    gone_at      INTEGER,                           -- past every grace: the sweeper may delete it
    ends_at      INTEGER,                           -- of a sliding entry: fresh no longer than that
    sliding_ms   INTEGER,                           -- being read moves `expires_at` to then + this
    swr_ms       INTEGER NOT NULL DEFAULT 0,        -- grace: stale while revalidate
    sie_ms       INTEGER NOT NULL DEFAULT 0,        -- grace: stale if error
    size         INTEGER NOT NULL,                  -- bytes as the client sees them
    encoding     INTEGER NOT NULL DEFAULT 0,        -- of `value`: 0 as it is, 1 zstd
    content_type TEXT,
    tags         TEXT,                              -- a JSON array; NULL for none
    source       BLOB,                              -- of a remembered answer: what it was made from, and when
    value        BLOB                               -- NULL: known not to exist, which is not a miss
) STRICT;
CREATE INDEX entries_gone ON entries (gone_at) WHERE gone_at IS NOT NULL;

-- What reads leave behind, written in batches: feeds second-chance eviction.
CREATE TABLE entry_uses (
    entry   INTEGER PRIMARY KEY,                    -- `entries.version`
    used_at INTEGER NOT NULL
) STRICT;

-- What is thrown away by name and not swept yet.
CREATE TABLE invalidations (
    kind    INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 2),  -- 1 a tag, 2 a prefix of keys
    name    BLOB    NOT NULL,
    version INTEGER NOT NULL,                       -- the clock when it happened
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- How long those prefixes are: a key is looked up once for each length.
CREATE TABLE prefix_lengths (
    bytes INTEGER PRIMARY KEY
) STRICT;

-- A tenant's cache. Everything here can be made again: the file may be deleted at any time.
--
-- One clock gives every entry, invalidation and lock a number that only rises. So an ETag never comes back,
-- a fencing token never falls, and throwing away a tag, a prefix or a namespace is one row: what was written
-- at or before the invalidation's version is gone, and is swept later.
-- Times are milliseconds since 1970 UTC.

CREATE TABLE clock (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO clock (one, version) VALUES (1, 0);

-- An entry's row is written when it is set and never when it is read: `entry_uses` has what reading leaves.
-- `value` stands last, so that looking at the rest does not touch its overflow pages.
CREATE TABLE entries (
    id                        INTEGER PRIMARY KEY,
    namespace                 TEXT    NOT NULL DEFAULT '',
    key                       TEXT    NOT NULL,
    version                   INTEGER NOT NULL,     -- the clock when it was set; its ETag
    kind                      TEXT    NOT NULL DEFAULT 'bytes' CHECK (kind IN (
                                  'bytes',
                                  'number',         -- what `increment` counts; `value` is its decimal text
                                  'absent')),       -- known not to exist, which is not a miss
    created_at                INTEGER NOT NULL,
    expires_at                INTEGER,              -- fresh until then; NULL for good
    sliding_ms                INTEGER,              -- each use moves `expires_at` to now + this
    stale_while_revalidate_ms INTEGER NOT NULL DEFAULT 0,
    stale_if_error_ms         INTEGER NOT NULL DEFAULT 0,
    gone_at                   INTEGER,              -- past every grace: the sweeper may delete it
    size                      INTEGER NOT NULL,     -- bytes as the client sees them
    content_type              TEXT,
    encoding                  TEXT    NOT NULL DEFAULT 'identity' CHECK (encoding IN ('identity', 'zstd')),
    value                     BLOB    NOT NULL,
    UNIQUE (namespace, key)
) STRICT;
CREATE INDEX entries_gone ON entries (gone_at) WHERE gone_at IS NOT NULL;

-- What reads leave behind, written in batches: feeds sliding expiry and second-chance eviction.
CREATE TABLE entry_uses (
    entry   INTEGER PRIMARY KEY REFERENCES entries (id) ON DELETE CASCADE,
    used_at INTEGER NOT NULL
) STRICT;

CREATE TABLE entry_tags (
    tag   TEXT    NOT NULL,
    entry INTEGER NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    PRIMARY KEY (tag, entry)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_tags_of ON entry_tags (entry);

CREATE TABLE invalidations (
    scope      TEXT    NOT NULL CHECK (scope IN ('namespace', 'tag', 'prefix')),
    namespace  TEXT    NOT NULL DEFAULT '',
    name       TEXT    NOT NULL,                    -- the tag or the prefix; '' for a whole namespace
    version    INTEGER NOT NULL,                    -- the clock when it happened
    created_at INTEGER NOT NULL,
    PRIMARY KEY (scope, namespace, name)
) STRICT, WITHOUT ROWID;

-- Who may fill a missing entry while the others wait.
CREATE TABLE fills (
    namespace TEXT    NOT NULL DEFAULT '',
    key       TEXT    NOT NULL,
    token     TEXT    NOT NULL,
    until     INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX fills_until ON fills (until);

CREATE TABLE locks (
    name   TEXT    PRIMARY KEY NOT NULL,
    owner  TEXT    NOT NULL,
    fence  INTEGER NOT NULL,                        -- the clock when it was taken
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX locks_until ON locks (until);

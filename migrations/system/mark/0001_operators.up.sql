-- `mark`: the operators, what they did, and what they prepare.
-- Ids are UUIDs as text, times milliseconds since 1970 UTC.

CREATE TABLE mark_users (
    id          TEXT    PRIMARY KEY NOT NULL,
    name        TEXT    NOT NULL UNIQUE,
    -- SHA-256 of the admin key. The keys are random, 256 bits, so a slow hash would guard nothing more.
    key_hash    BLOB    NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    disabled_at INTEGER,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mark_sessions (
    id         TEXT    PRIMARY KEY NOT NULL,
    user_id    TEXT    NOT NULL REFERENCES mark_users (id) ON DELETE CASCADE,
    token_hash BLOB    NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    user_agent TEXT,
    ip         TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX mark_sessions_user   ON mark_sessions (user_id, created_at);
CREATE INDEX mark_sessions_expiry ON mark_sessions (expires_at);

CREATE TABLE mark_settings (
    key        TEXT    PRIMARY KEY NOT NULL,
    value      TEXT    NOT NULL CHECK (json_valid(value)),
    updated_at INTEGER NOT NULL,
    updated_by TEXT    REFERENCES mark_users (id) ON DELETE SET NULL
) STRICT, WITHOUT ROWID;

-- The audit chain: each row's hash covers the row and the hash before it, under a key that is not in any
-- database. Entries are appended by the relay alone and never change.
CREATE TABLE mark_audit_logs (
    seq        INTEGER PRIMARY KEY,                 -- 1, 2, 3, …: no gaps
    at         INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    target     TEXT,
    request_id TEXT,
    outcome    TEXT    NOT NULL,
    details    TEXT    NOT NULL,
    prev_hash  BLOB    NOT NULL,
    hash       BLOB    NOT NULL
) STRICT;
CREATE INDEX mark_audit_logs_target ON mark_audit_logs (target, seq);
CREATE INDEX mark_audit_logs_actor  ON mark_audit_logs (actor, seq);
CREATE INDEX mark_audit_logs_action ON mark_audit_logs (action, seq);

-- Against accidents; against intent there is the chain.
CREATE TRIGGER mark_audit_logs_no_update BEFORE UPDATE ON mark_audit_logs
BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER mark_audit_logs_no_delete BEFORE DELETE ON mark_audit_logs
BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;

-- The last row of `app.audit_outbox` that the chain has. Moves in the transaction that appends.
CREATE TABLE mark_audit_watermark (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    outbox_seq INTEGER NOT NULL
) STRICT;
INSERT INTO mark_audit_watermark (one, outbox_seq) VALUES (1, 0);

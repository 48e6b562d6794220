-- The people who sign in, and which tenants they belong to.

CREATE TABLE users (
    id                TEXT    PRIMARY KEY NOT NULL,
    email             TEXT    NOT NULL COLLATE NOCASE UNIQUE,
    email_verified_at INTEGER,
    password_hash     TEXT,                         -- PHC string; NULL for people who sign in elsewhere
    name              TEXT,
    metadata          TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    disabled_at       INTEGER,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE memberships (
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships_user ON memberships (user_id, tenant_id);

CREATE TABLE user_sessions (
    id           TEXT    PRIMARY KEY NOT NULL,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    refresh_hash BLOB    NOT NULL UNIQUE,           -- SHA-256 of the refresh token
    user_agent   TEXT,
    ip           TEXT,
    created_at   INTEGER NOT NULL,
    refreshed_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    revoked_at   INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX user_sessions_user   ON user_sessions (user_id, created_at);
CREATE INDEX user_sessions_expiry ON user_sessions (expires_at);

CREATE TABLE user_preferences (
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL CHECK (json_valid(value)),
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE user_activity_logs (
    id        INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    user_id   TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant_id TEXT    REFERENCES tenants (id) ON DELETE CASCADE,
    action    TEXT    NOT NULL,
    details   TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(details))
) STRICT;
CREATE INDEX user_activity_logs_user   ON user_activity_logs (user_id, at);
CREATE INDEX user_activity_logs_tenant ON user_activity_logs (tenant_id, at);
CREATE INDEX user_activity_logs_age    ON user_activity_logs (at);

CREATE TABLE notifications (
    id         TEXT    PRIMARY KEY NOT NULL,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant_id  TEXT    REFERENCES tenants (id) ON DELETE CASCADE,
    kind       TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    body       TEXT    NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    read_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX notifications_unread ON notifications (user_id, created_at) WHERE read_at IS NULL;
CREATE INDEX notifications_user   ON notifications (user_id, created_at);
CREATE INDEX notifications_tenant ON notifications (tenant_id);

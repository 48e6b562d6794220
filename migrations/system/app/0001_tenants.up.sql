-- `app`: the tenants, the tokens they were given, and what an administrative call must remember.
-- Ids are UUIDs as text, times milliseconds since 1970 UTC.

CREATE TABLE tenants (
    id         TEXT    PRIMARY KEY NOT NULL,        -- UUIDv7: sorts by when it was made
    slug       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    plan       TEXT    NOT NULL,                    -- a name in the configuration's `plans`
    state      TEXT    NOT NULL CHECK (state IN ('provisioning', 'active', 'suspended', 'deleted', 'purging')),
    -- 1 when the files on disk are known to be where the state says. What a crash can leave behind has 0, so
    -- start-up looks at the leftovers only.
    settled    INTEGER NOT NULL CHECK (settled IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    CHECK (settled = 0 OR state IN ('active', 'suspended', 'deleted')),
    CHECK ((deleted_at IS NOT NULL) = (state IN ('deleted', 'purging')))
) STRICT, WITHOUT ROWID;

-- Deleting a tenant frees its slug.
CREATE UNIQUE INDEX tenants_slug ON tenants (slug) WHERE state IN ('provisioning', 'active', 'suspended');
CREATE INDEX tenants_state     ON tenants (state, id);
CREATE INDEX tenants_unsettled ON tenants (id) WHERE settled = 0;

-- Every token we signed for a tenant. The token itself is not kept.
CREATE TABLE tenant_tokens (
    jti        TEXT    PRIMARY KEY NOT NULL,        -- UUIDv7
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    sub        TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,                    -- separated by spaces
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tenant_tokens_tenant  ON tenant_tokens (tenant_id, jti);
CREATE INDEX tenant_tokens_expiry  ON tenant_tokens (expires_at);
CREATE INDEX tenant_tokens_revoked ON tenant_tokens (jti) WHERE revoked_at IS NOT NULL;

-- Administrative calls with an `Idempotency-Key`: the answer that was given, kept for a day.
CREATE TABLE idempotency_keys (
    scope      TEXT    NOT NULL,                    -- the route and the operator
    key        TEXT    NOT NULL,
    body_hash  BLOB    NOT NULL,                    -- SHA-256 of what was asked for
    status     INTEGER NOT NULL,
    response   BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- What operators did, written in the transaction that did it; a relay moves it to `mark` in order. The
-- sequence never repeats, because the relay's watermark in `mark` counts on it.
CREATE TABLE audit_outbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    target     TEXT,
    request_id TEXT,
    outcome    TEXT    NOT NULL,
    details    TEXT    NOT NULL                     -- JSON
) STRICT;

-- The last entry of the audit chain as far as we know, signed: a chain that ends before it was cut off.
CREATE TABLE audit_head (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    seq  INTEGER NOT NULL,
    hash BLOB    NOT NULL,
    mac  BLOB    NOT NULL
) STRICT;

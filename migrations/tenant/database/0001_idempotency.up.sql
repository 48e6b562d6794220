-- What Tenantry keeps in a tenant's own database, under names that the tenant's SQL cannot write.
--
-- A write that carries an `Idempotency-Key` leaves its answer here, in its own transaction: the same key and
-- body get the same answer, and a caller that never heard back learns what happened. Kept for a day.
CREATE TABLE _tenantry_idempotency (
    subject    TEXT    NOT NULL,                    -- `sub` of the token: one client's keys mean nothing to another
    key        TEXT    NOT NULL,
    body_hash  BLOB    NOT NULL,                    -- SHA-256 of the request's body
    response   BLOB    NOT NULL,
    created_at INTEGER NOT NULL,                    -- milliseconds since 1970 UTC
    PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX _tenantry_idempotency_age ON _tenantry_idempotency (created_at);

-- Tables that a remembered answer was made from, each with a random name for what it holds: another one with each
-- transaction that writes it. `*` stands for all tables.
CREATE TABLE _tenantry_versions (
    name    TEXT    PRIMARY KEY NOT NULL,           -- of the table, in lower case
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

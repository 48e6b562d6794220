-- The operator's own cache: the tenants' cache tables (applied before this), and what only the operator's
-- side remembers. All of it can be made again. Times are milliseconds since 1970 UTC.

CREATE TABLE file_metadata_cache (
    path        TEXT    PRIMARY KEY NOT NULL,       -- below the data directory
    size_bytes  INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    sha256      BLOB,
    details     TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(details)),
    seen_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX file_metadata_cache_age ON file_metadata_cache (seen_at);

CREATE TABLE query_result_cache (
    key        BLOB    PRIMARY KEY NOT NULL,        -- SHA-256 of database, statement and parameters
    database   TEXT    NOT NULL,
    result     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX query_result_cache_expiry   ON query_result_cache (expires_at);
CREATE INDEX query_result_cache_database ON query_result_cache (database);

CREATE TABLE search_index_cache (
    kind       TEXT    NOT NULL,
    item_id    TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    terms      TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, item_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE temp_uploads (
    id           TEXT    PRIMARY KEY NOT NULL,
    file_name    TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    size_bytes   INTEGER NOT NULL,
    uploaded_by  TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX temp_uploads_expiry ON temp_uploads (expires_at);

CREATE TABLE system_metrics (
    name  TEXT    NOT NULL,
    at    INTEGER NOT NULL,
    value REAL    NOT NULL,
    PRIMARY KEY (name, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX system_metrics_age ON system_metrics (at);

-- `analytics`: what was measured. Written behind the requests, in batches, and pruned by age; nothing here is
-- needed to serve a request, and it names tenants and people only by id, without foreign keys, because what
-- was measured outlives them. Times are milliseconds since 1970 UTC.

CREATE TABLE page_views (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    tenant_id  TEXT,
    user_id    TEXT,
    session_id TEXT,
    path       TEXT    NOT NULL,
    referrer   TEXT,
    user_agent TEXT
) STRICT;
CREATE INDEX page_views_age    ON page_views (at);
CREATE INDEX page_views_tenant ON page_views (tenant_id, at);

CREATE TABLE user_engagement (
    tenant_id TEXT    NOT NULL,
    user_id   TEXT    NOT NULL,
    day       TEXT    NOT NULL,                     -- 2026-11-20, UTC
    sessions  INTEGER NOT NULL DEFAULT 0,
    actions   INTEGER NOT NULL DEFAULT 0,
    active_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, day, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX user_engagement_day ON user_engagement (day);

CREATE TABLE search_queries (
    id          INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    tenant_id   TEXT,
    user_id     TEXT,
    query       TEXT    NOT NULL,
    results     INTEGER NOT NULL,
    duration_ms REAL    NOT NULL
) STRICT;
CREATE INDEX search_queries_age    ON search_queries (at);
CREATE INDEX search_queries_tenant ON search_queries (tenant_id, at);

CREATE TABLE performance_logs (
    id          INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    tenant_id   TEXT,                               -- NULL for the system databases
    database    TEXT    NOT NULL,                   -- database, cache, queue; app, mark, …
    operation   TEXT    NOT NULL,
    duration_ms REAL    NOT NULL,
    query_count INTEGER NOT NULL,
    request_id  TEXT
) STRICT;
CREATE INDEX performance_logs_age    ON performance_logs (at);
CREATE INDEX performance_logs_tenant ON performance_logs (tenant_id, at);

CREATE TABLE error_logs (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    tenant_id  TEXT,
    code       TEXT    NOT NULL,
    status     INTEGER NOT NULL,
    operation  TEXT    NOT NULL,
    message    TEXT    NOT NULL,
    request_id TEXT
) STRICT;
CREATE INDEX error_logs_age    ON error_logs (at);
CREATE INDEX error_logs_tenant ON error_logs (tenant_id, at);

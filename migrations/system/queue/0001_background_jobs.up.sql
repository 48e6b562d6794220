-- The operator's own queue: the tenants' queue tables (applied before this) run the jobs; `background_jobs`
-- says what a job is for, who asked for it and how far it is, also after the job itself is gone.

CREATE TABLE background_jobs (
    id           TEXT    PRIMARY KEY NOT NULL,      -- `jobs.id`
    kind         TEXT    NOT NULL,                  -- backup, fleet_migration, publish, …
    tenant_id    TEXT,
    requested_by TEXT,
    parameters   TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(parameters)),
    progress     REAL    NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 1),
    outcome      TEXT CHECK (outcome IN ('done', 'failed', 'cancelled')),
    message      TEXT,
    created_at   INTEGER NOT NULL,
    finished_at  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX background_jobs_open   ON background_jobs (kind, id) WHERE outcome IS NULL;
CREATE INDEX background_jobs_tenant ON background_jobs (tenant_id, id);
CREATE INDEX background_jobs_age    ON background_jobs (finished_at) WHERE finished_at IS NOT NULL;

-- Fleet runs: what an operator has done to all tenants, or to some, and what came of each. A run is wholly in these
-- rows, so that a process that takes it up again knows what is left. At most one is running: the index says so.

CREATE TABLE fleet_runs (
    id          TEXT    PRIMARY KEY NOT NULL,       -- UUIDv7
    kind        TEXT    NOT NULL CHECK (kind IN ('up', 'down', 'plan', 'validate', 'rollback')),
    state       TEXT    NOT NULL CHECK (state IN ('running', 'stopped', 'halted', 'done')),
    whole       INTEGER NOT NULL CHECK (whole IN (0, 1)),  -- 1: of every tenant, and of those that come
    base        INTEGER NOT NULL,                   -- the application's migration in force before
    to_version  INTEGER NOT NULL,                   -- the one to go to
    fingerprint TEXT    NOT NULL,                   -- of the application's files up to the version
    knobs       TEXT    NOT NULL CHECK (json_valid(knobs)),
    wave        INTEGER NOT NULL,                   -- the one that is under way, or was last
    tenants     INTEGER NOT NULL,
    done        INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    skipped     INTEGER NOT NULL,
    reason      TEXT,                               -- why it halted
    actor       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    CHECK ((ended_at IS NULL) = (state = 'running'))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX fleet_runs_one ON fleet_runs (state) WHERE state = 'running';

-- One tenant in one run. Wave 0 has the canaries.
CREATE TABLE fleet_visits (
    run_id    TEXT    NOT NULL REFERENCES fleet_runs (id) ON DELETE CASCADE,
    tenant_id TEXT    NOT NULL,
    wave      INTEGER NOT NULL,
    state     TEXT    NOT NULL CHECK (state IN ('waiting', 'done', 'failed', 'skipped')),
    outcome   TEXT    CHECK (json_valid(outcome)),
    error     TEXT    CHECK (json_valid(error)),
    at        INTEGER,
    PRIMARY KEY (run_id, tenant_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX fleet_visits_state ON fleet_visits (run_id, state, wave, tenant_id);

-- The application's migration that tenants' files are brought to when they are opened, while that is not the newest:
-- canaries are being tried, a run up did not reach its end, or the fleet was taken down.
CREATE TABLE migration_ceiling (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    run_id  TEXT    NOT NULL,                       -- which left it
    set_at  INTEGER NOT NULL
) STRICT;

-- A tenant's queue. A job is three kinds of rows: `jobs` is its state, small, rewritten at every step;
-- `job_bodies` is what was enqueued, written once; `job_attempts` is what happened, one row for each try.
-- So a state change never rewrites a payload.
--
-- `seq` is the order of arrival and keeps its value over retries: within a priority, older comes first.
-- Times are milliseconds since 1970 UTC.

-- A queue exists from its first job or its first setting on.
CREATE TABLE queues (
    queue      INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    paused_at  INTEGER,                             -- nothing is handed out while set
    drain_at   INTEGER,                             -- nothing is taken in while set
    created_at INTEGER NOT NULL
) STRICT;

-- A job's id is a UUIDv7 made of `created_at`, `seq` and `salt`, so it needs no index of its own.
--
-- States are numbers, and no condition here is a list (`IN`): for a list SQLite builds a table in memory each time
-- a row is written.
CREATE TABLE jobs (
    seq               INTEGER PRIMARY KEY,
    salt              INTEGER NOT NULL,             -- 32 random bits of the id
    queue             INTEGER NOT NULL,             -- `queues.queue`
    state             INTEGER NOT NULL CHECK (state BETWEEN 0 AND 12),
                          -- 0 waiting for other jobs (`job_dependencies`)
                          -- 1 scheduled, for `due_at`: a delay, a retry's backoff, a snooze
                          -- 2 ready: may be claimed
                          -- 3 blocked: ready, but `limit_key` is at its bound; kept off the claim's way
                          -- 4 leased: a worker has it until `lease_until`
                          -- 10 done, 11 dead, 12 cancelled
    priority          INTEGER NOT NULL DEFAULT 0,   -- higher first
    due_at            INTEGER NOT NULL,
    expires_at        INTEGER,                      -- not worth doing any more from then on
    attempt           INTEGER NOT NULL DEFAULT 0,   -- tries begun
    max_attempts      INTEGER NOT NULL DEFAULT 20 CHECK (max_attempts >= 1),
    lease_token       BLOB,                         -- 16 random bytes, new for each try
    lease_until       INTEGER,
    done_token        BLOB,                         -- the lease token that finished it: its `ack` may be repeated
    group_key         TEXT,                         -- groups of a queue take turns
    limit_key         TEXT,                         -- at most `limit_max` leased at once with the same key
    limit_max         INTEGER CHECK (limit_max >= 1),
    rate_key          TEXT,                         -- at most `rate_per_s` claimed a second with the same key
    rate_per_s        REAL CHECK (rate_per_s > 0),
    unique_key        TEXT,                         -- taken while set; the engine clears it when the job gives it up
    unique_until      INTEGER,                      -- `unique {for_s}`: given up then, whatever the state
    waiting_for       INTEGER NOT NULL DEFAULT 0,   -- dependencies not done yet
    cancel_at         INTEGER,                      -- somebody asked a leased job to stop
    keep_until        INTEGER,                      -- of a finished job: deleted then
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    CHECK ((state = 4) = (lease_token IS NOT NULL)),
    CHECK ((state = 4) = (lease_until IS NOT NULL)),
    CHECK ((state >= 10) = (keep_until IS NOT NULL)),
    CHECK ((limit_key IS NULL) = (limit_max IS NULL)),
    CHECK ((rate_key IS NULL) = (rate_per_s IS NULL))
) STRICT;

-- One partial index for each question that is asked of living jobs, and one for history: the claim never scans
-- nor sorts, however many jobs are scheduled, dead or done, and each step of a job's life moves it from one index
-- to one other.
CREATE INDEX jobs_ready    ON jobs (queue, priority DESC, seq)            WHERE state = 2;
CREATE INDEX jobs_grouped  ON jobs (queue, group_key, priority DESC, seq) WHERE state = 2 AND group_key IS NOT NULL;
CREATE INDEX jobs_due      ON jobs (queue, due_at)                        WHERE state = 1;
CREATE INDEX jobs_running  ON jobs (queue, lease_until)                   WHERE state = 4;
CREATE INDEX jobs_limited  ON jobs (limit_key)                            WHERE state = 4 AND limit_key IS NOT NULL;
CREATE INDEX jobs_blocked  ON jobs (limit_key, priority DESC, seq)        WHERE state = 3;
CREATE INDEX jobs_expiring ON jobs (expires_at)                           WHERE state < 4 AND expires_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique ON jobs (queue, unique_key)               WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_unique_until  ON jobs (unique_until)                    WHERE unique_until IS NOT NULL;
CREATE INDEX jobs_finished ON jobs (state, queue, keep_until)             WHERE keep_until IS NOT NULL;

CREATE TABLE job_bodies (
    seq             INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    backoff         TEXT    NOT NULL DEFAULT 'exponential' CHECK (backoff = 'fixed' OR backoff = 'linear' OR backoff = 'exponential'),
    backoff_ms      INTEGER NOT NULL DEFAULT 1000,  -- the first wait
    backoff_max_ms  INTEGER NOT NULL DEFAULT 3600000,
    timeout_ms      INTEGER,                        -- the longest a try may hold the job, with all its extensions
    enqueued_by     TEXT,                           -- `sub` of the token
    result          BLOB,                           -- what `ack` left
    payload_type    TEXT    NOT NULL DEFAULT 'application/json',
    payload         BLOB    NOT NULL
) STRICT;

CREATE TABLE job_attempts (
    seq         INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    attempt     INTEGER NOT NULL,
    worker      TEXT,                               -- `sub` of the token that claimed
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    outcome     TEXT,                               -- done, failed, expired, snoozed or cancelled
    progress    TEXT,
    error       TEXT,
    PRIMARY KEY (seq, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_dependencies (
    seq        INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    depends_on INTEGER NOT NULL,                    -- a job's seq; it may be finished and deleted by now
    PRIMARY KEY (seq, depends_on)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_dependencies_on ON job_dependencies (depends_on);

-- Enqueueing with an `Idempotency-Key`: the answer that was given, kept for a day.
CREATE TABLE idempotency_keys (
    subject    TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    body_hash  BLOB    NOT NULL,
    response   BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

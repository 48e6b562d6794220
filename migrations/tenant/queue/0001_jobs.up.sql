-- A tenant's queue. A job is a row of `jobs`, its state, small and rewritten at every step; a row of `job_bodies`, what
-- was enqueued, written once; and, only where there is something to say, rows of `job_notes` and `job_attempts`. So a
-- state change never rewrites a payload, and a job that goes well is two rows.
--
-- `seq` is the order of arrival and keeps its value over retries: within a priority, older comes first.
-- Times are milliseconds since 1970 UTC.

-- A queue exists from its first job or its first setting on.
CREATE TABLE queues (
    queue      INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    paused_at  INTEGER,                             -- nothing is handed out while set
    drain_at   INTEGER,                             -- nothing is taken in while set
    turn       TEXT    NOT NULL DEFAULT '',         -- the group that was served last; '' are the jobs of no group
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
    state             INTEGER NOT NULL CHECK (state BETWEEN 0 AND 13),
                          -- 0 waiting for other jobs to end
                          -- 1 scheduled, for `due_at`: a delay, a retry's backoff, a snooze
                          -- 2 ready: may be claimed
                          -- 3 blocked: ready, but `limit_key` is at its bound; kept off the claim's way
                          -- 4 leased: a worker has it until `lease_until`
                          -- 10 done, 11 dead, 12 cancelled, 13 expired
    priority          INTEGER NOT NULL DEFAULT 0,   -- higher first
    due_at            INTEGER NOT NULL,
    expires_at        INTEGER,                      -- not worth beginning any more from then on
    attempt           INTEGER NOT NULL DEFAULT 0,   -- tries begun
    max_attempts      INTEGER NOT NULL DEFAULT 20 CHECK (max_attempts >= 1),
    lease_token       BLOB,                         -- 16 random bytes, new for each try
    lease_until       INTEGER,
    done_token        BLOB,                         -- the lease token that finished it: its `ack` may be repeated
    group_key         TEXT,                         -- groups of a queue take turns
    limit_key         TEXT,                         -- at most `limit_max` of the queue leased at once with the same key
    limit_max         INTEGER CHECK (limit_max >= 1),
    rate_key          TEXT,                         -- at most `rate_per_s` of the queue handed out a second with the same key
    rate_per_s        REAL CHECK (rate_per_s > 0),
    unique_key        TEXT,                         -- may be held no longer: whoever wants it looks at the next two
    unique_until      INTEGER,                      -- held until then,
    unique_states     INTEGER,                      -- and in these states: bit n is state n
    followed          INTEGER NOT NULL DEFAULT 0,   -- 1: jobs wait for its end; it is not deleted before they know
    cancel_at         INTEGER,                      -- somebody asked a leased job to stop
    keep_until        INTEGER,                      -- of a finished job: deleted then
    created_at        INTEGER NOT NULL,
    since             INTEGER NOT NULL,             -- in this state; of a leased job, since its try began
    CHECK ((state = 4) = (lease_token IS NOT NULL)),
    CHECK ((state = 4) = (lease_until IS NOT NULL)),
    CHECK ((state >= 10) = (keep_until IS NOT NULL)),
    CHECK ((limit_key IS NULL) = (limit_max IS NULL)),
    CHECK ((rate_key IS NULL) = (rate_per_s IS NULL))
) STRICT;

-- One partial index for each question that is asked of living jobs, and one for history: the claim never scans
-- nor sorts, however many jobs are scheduled, dead or done, and each step of a job's life moves it from one index
-- to one other.
CREATE INDEX jobs_ready    ON jobs (queue, priority DESC, seq)            WHERE state = 2 AND group_key IS NULL;
CREATE INDEX jobs_grouped  ON jobs (queue, group_key, priority DESC, seq) WHERE state = 2 AND group_key IS NOT NULL;
CREATE INDEX jobs_due      ON jobs (queue, due_at)                        WHERE state = 1;
CREATE INDEX jobs_running  ON jobs (queue, lease_until)                   WHERE state = 4;
CREATE INDEX jobs_limited  ON jobs (queue, limit_key, lease_until)        WHERE state = 4 AND limit_key IS NOT NULL;
CREATE INDEX jobs_blocked  ON jobs (queue, limit_key, priority DESC, seq) WHERE state = 3;
CREATE INDEX jobs_waiting  ON jobs (queue, seq)                           WHERE state = 0;
CREATE INDEX jobs_expiring ON jobs (queue, expires_at)                    WHERE state < 4 AND expires_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique ON jobs (queue, unique_key)               WHERE unique_key IS NOT NULL;
CREATE INDEX jobs_finished ON jobs (state, queue, keep_until)             WHERE keep_until IS NOT NULL;

CREATE TABLE job_bodies (
    seq             INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    backoff         INTEGER NOT NULL,               -- 0 fixed, 1 linear, 2 exponential
    backoff_ms      INTEGER NOT NULL,               -- the first wait
    backoff_max_ms  INTEGER NOT NULL,
    timeout_ms      INTEGER,                        -- the longest a try may hold the job, with all its extensions
    enqueued_by     TEXT,                           -- `sub` of the token
    payload_type    TEXT,                           -- NULL for JSON
    payload         BLOB    NOT NULL
) STRICT;

-- How much of a rate is used up: counted in windows of time, one after the other.
CREATE TABLE rates (
    queue      INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    window_at  INTEGER NOT NULL,                    -- the window in which the last one was handed out begins
    taken      INTEGER NOT NULL,                    -- in it
    put_off_to INTEGER NOT NULL,                    -- the last window that jobs were put off to,
    put_off    INTEGER NOT NULL,                    -- and how many
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX rates_age ON rates (window_at);

-- What workers left: JSON.
CREATE TABLE job_notes (
    seq      INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    progress TEXT,
    result   TEXT
) STRICT;

-- Tries that did not finish their job.
CREATE TABLE job_attempts (
    seq         INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    attempt     INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,                   -- failed, or lease_ended
    error       TEXT,
    PRIMARY KEY (seq, attempt)
) STRICT, WITHOUT ROWID;

-- A job that waits for others: for how many, and what became of those that have ended.
CREATE TABLE job_waits (
    seq        INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    on_failure INTEGER NOT NULL,                    -- when one of them is not done: 0 cancelled, 1 run all the same, 2 wait for the dead
    jobs       INTEGER NOT NULL,
    done       INTEGER NOT NULL DEFAULT 0,
    dead       INTEGER NOT NULL DEFAULT 0,
    cancelled  INTEGER NOT NULL DEFAULT 0,
    expired    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Who waits for whom, until whom it waits for has ended and this was counted.
CREATE TABLE job_followers (
    followed INTEGER NOT NULL,                      -- `jobs.seq`
    patient  INTEGER NOT NULL,                      -- 1: its death is no end, it may be brought back
    seq      INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    PRIMARY KEY (followed, patient, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_followers_of ON job_followers (seq);

-- Followed jobs that have ended, until all their followers have been told.
CREATE TABLE job_endings (
    seq   INTEGER PRIMARY KEY,
    state INTEGER NOT NULL
) STRICT;

-- What came in from the database's outbox: everything up to this place is a job, or was refused.
CREATE TABLE outbox_mark (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    mark INTEGER NOT NULL
) STRICT;

-- What was refused, until the database has been told why.
CREATE TABLE outbox_refused (
    id     INTEGER PRIMARY KEY,
    reason TEXT NOT NULL
) STRICT;

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

-- Jobs that are added by the calendar. A run is enqueued in the transaction that moves `next_at` past it, so each is
-- enqueued once.
CREATE TABLE schedules (
    queue      INTEGER NOT NULL REFERENCES queues (queue),
    name       TEXT    NOT NULL,
    cron       TEXT    NOT NULL,
    time_zone  TEXT    NOT NULL,
    misfire    INTEGER NOT NULL,                    -- runs that nobody could fire in time: 0 skip, 1 once, 2 all
    job        TEXT    NOT NULL CHECK (json_valid(job)),  -- what is enqueued, as a request has it
    set_by     TEXT    NOT NULL,                    -- `sub` of the token
    paused_at  INTEGER,
    next_at    INTEGER,                             -- the first run that was not fired; NULL while paused
    last_at    INTEGER,                             -- the last run that was fired,
    last_job   TEXT,                                -- the id of its job,
    last_error TEXT CHECK (json_valid(last_error)), -- or why there is none
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (queue, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;

-- Where the server itself delivers a queue's jobs.
CREATE TABLE webhooks (
    queue         INTEGER PRIMARY KEY REFERENCES queues (queue),
    url           TEXT    NOT NULL,
    secret        BLOB    NOT NULL,
    old_secret    BLOB,                             -- signs too until `old_until`
    old_until     INTEGER,
    timeout_ms    INTEGER NOT NULL,                 -- of one delivery
    concurrency   INTEGER NOT NULL,                 -- deliveries at once
    failures      INTEGER NOT NULL DEFAULT 0,       -- in a row
    open_until    INTEGER,                          -- nothing is delivered before
    delivered_at  INTEGER,                          -- the last success
    failed_at     INTEGER,                          -- the last failure,
    error         TEXT,                             -- and what it was
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    CHECK ((old_secret IS NULL) = (old_until IS NULL))
) STRICT;

-- The outbox: what is inserted into `_outbox` together with the tenant's own rows becomes a job of the tenant's queue,
-- exactly once. A relay reads it in the order of `id` and keeps its place in the queue's file.
--
-- Tenants see the view and insert into it; the tables behind it are Tenantry's. So nobody but the trigger gives an `id`,
-- and ids only rise: above what waits, and above what has been swept away.
CREATE TABLE _tenantry_outbox (
    id         INTEGER PRIMARY KEY,
    queue      ANY,
    payload    ANY,
    options    ANY,
    created_at INTEGER NOT NULL                     -- milliseconds since 1970 UTC
) STRICT;

-- What cannot become a job, and why; kept for fourteen days.
CREATE TABLE _tenantry_outbox_refused (
    id         INTEGER PRIMARY KEY,
    queue      ANY,
    payload    ANY,
    options    ANY,
    created_at INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    refused_at INTEGER NOT NULL
) STRICT;

-- Up to where the relay has been, and its rows are gone.
CREATE TABLE _tenantry_outbox_swept (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  INTEGER NOT NULL
) STRICT;
INSERT INTO _tenantry_outbox_swept VALUES (1, 0);

CREATE VIEW _outbox (id, queue, payload, options, created_at, refused) AS
    SELECT id, queue, payload, options, created_at, NULL FROM _tenantry_outbox
    UNION ALL SELECT id, queue, payload, options, created_at, reason FROM _tenantry_outbox_refused;

CREATE TRIGGER _tenantry_outbox_in INSTEAD OF INSERT ON _outbox BEGIN
    INSERT INTO _tenantry_outbox (id, queue, payload, options, created_at)
    VALUES (1 + max((SELECT coalesce(max(id), 0) FROM _tenantry_outbox), (SELECT id FROM _tenantry_outbox_swept)),
            NEW.queue, NEW.payload, NEW.options, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

-- Jobs whose `ack` brought statements: their effect is here. The row stays for as long as the job could be worked on
-- again.
CREATE TABLE _tenantry_job_done (
    job        BLOB    PRIMARY KEY,                 -- the job's id
    applied_at INTEGER NOT NULL                     -- or when it was last found to be needed
) STRICT, WITHOUT ROWID;
CREATE INDEX _tenantry_job_done_age ON _tenantry_job_done (applied_at);

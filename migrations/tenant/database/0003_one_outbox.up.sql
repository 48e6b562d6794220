-- tenantry: harmless
-- The outbox in one table instead of three: what SQLite has to read of it each time a file is opened is less by half.
--
-- A row waits under its `id`; one that was refused stands under the negative of it. Up to where the relay has been and its
-- rows are gone, there is a row without a time, or one above it: so whoever gives an `id` looks at the largest alone.
DROP VIEW _outbox;
ALTER TABLE _tenantry_outbox ADD COLUMN refused TEXT;                -- why it cannot become a job
ALTER TABLE _tenantry_outbox ADD COLUMN refused_at INTEGER;          -- kept for fourteen days
INSERT INTO _tenantry_outbox (id, queue, payload, options, created_at, refused, refused_at)
    SELECT -id, queue, payload, options, created_at, reason, refused_at FROM _tenantry_outbox_refused;
INSERT OR IGNORE INTO _tenantry_outbox (id, created_at) SELECT id, 0 FROM _tenantry_outbox_swept;
DROP TABLE _tenantry_outbox_refused;
DROP TABLE _tenantry_outbox_swept;

CREATE VIEW _outbox AS SELECT abs(id) AS id, queue, payload, options, created_at, refused
    FROM _tenantry_outbox WHERE created_at <> 0;

CREATE TRIGGER _tenantry_outbox_in INSTEAD OF INSERT ON _outbox BEGIN
    INSERT INTO _tenantry_outbox (id, queue, payload, options, created_at)
    VALUES (max(CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000, 1 + (SELECT max(id) FROM _tenantry_outbox)),
            NEW.queue, NEW.payload, NEW.options, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

DROP VIEW _outbox;
CREATE TABLE _tenantry_outbox_refused (
    id         INTEGER PRIMARY KEY,
    queue      ANY,
    payload    ANY,
    options    ANY,
    created_at INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    refused_at INTEGER NOT NULL
) STRICT;
CREATE TABLE _tenantry_outbox_swept (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  INTEGER NOT NULL
) STRICT;
INSERT INTO _tenantry_outbox_refused
    SELECT -id, queue, payload, options, created_at, refused, refused_at FROM _tenantry_outbox WHERE id < 0;
INSERT INTO _tenantry_outbox_swept SELECT 1, coalesce(max(id), 0) FROM _tenantry_outbox WHERE created_at = 0;
DELETE FROM _tenantry_outbox WHERE id < 0 OR created_at = 0;
ALTER TABLE _tenantry_outbox DROP COLUMN refused_at;
ALTER TABLE _tenantry_outbox DROP COLUMN refused;

CREATE VIEW _outbox (id, queue, payload, options, created_at, refused) AS
    SELECT id, queue, payload, options, created_at, NULL FROM _tenantry_outbox
    UNION ALL SELECT id, queue, payload, options, created_at, reason FROM _tenantry_outbox_refused;

CREATE TRIGGER _tenantry_outbox_in INSTEAD OF INSERT ON _outbox BEGIN
    INSERT INTO _tenantry_outbox (id, queue, payload, options, created_at)
    VALUES (max(CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000,
                1 + (SELECT coalesce(max(id), 0) FROM _tenantry_outbox), 1 + (SELECT id FROM _tenantry_outbox_swept)),
            NEW.queue, NEW.payload, NEW.options, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

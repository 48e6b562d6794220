-- When something must be done for a tenant though nobody asks: a schedule falls due, a delivery is to be tried. The row
-- is committed before what it is for, so it may be there for nothing; it is put off or goes only by somebody who has looked
-- into the tenant's files and found nothing sooner, and only if nobody has come meanwhile.

CREATE TABLE wakeups (
    tenant_id TEXT    PRIMARY KEY NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    at        INTEGER NOT NULL,                     -- the earliest moment
    asked     INTEGER NOT NULL,                     -- how often a moment was asked for: tells a looker who came meanwhile
    dormant   INTEGER NOT NULL CHECK (dormant IN (0, 1))  -- 1: the tenant is not active, and sleeps until it is
) STRICT, WITHOUT ROWID;
CREATE INDEX wakeups_due ON wakeups (at) WHERE dormant = 0;

CREATE TRIGGER wakeups_follow AFTER UPDATE OF state ON tenants WHEN new.state <> old.state BEGIN
    UPDATE wakeups SET dormant = (new.state <> 'active') WHERE tenant_id = new.id;
END;

-- How long a queue's finished jobs are kept, in milliseconds; NULL is the default. A job's own `keep_until` goes by the
-- default, and what the queue says otherwise shifts it: so it concerns jobs that have ended already, and no row is rewritten.
ALTER TABLE queues ADD COLUMN done_ms      INTEGER CHECK (done_ms >= 0);
ALTER TABLE queues ADD COLUMN dead_ms      INTEGER CHECK (dead_ms >= 0);
ALTER TABLE queues ADD COLUMN cancelled_ms INTEGER CHECK (cancelled_ms >= 0);
ALTER TABLE queues ADD COLUMN expired_ms   INTEGER CHECK (expired_ms >= 0);

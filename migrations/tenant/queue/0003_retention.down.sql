ALTER TABLE queues DROP COLUMN expired_ms;
ALTER TABLE queues DROP COLUMN cancelled_ms;
ALTER TABLE queues DROP COLUMN dead_ms;
ALTER TABLE queues DROP COLUMN done_ms;

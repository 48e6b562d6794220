DROP TABLE idempotency_keys;
DROP TABLE job_attempts;
DROP TABLE job_notes;
DROP TABLE job_bodies;
DROP TABLE jobs;
DROP TABLE rates;
DROP TABLE queues;

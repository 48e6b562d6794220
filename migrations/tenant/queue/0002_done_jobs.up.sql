-- What is asked of done jobs: whether this token finished the job (an `ack` that is repeated because its answer
-- was lost gets the same answer), and which go first when the file is full.
ALTER TABLE jobs ADD COLUMN done_token TEXT;        -- the lease token that finished it
CREATE INDEX jobs_done ON jobs (keep_until) WHERE state = 'done';

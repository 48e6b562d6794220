DROP INDEX jobs_done;
ALTER TABLE jobs DROP COLUMN done_token;

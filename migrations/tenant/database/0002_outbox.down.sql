DROP TABLE _tenantry_job_done;
DROP VIEW _outbox;
DROP TABLE _tenantry_outbox_swept;
DROP TABLE _tenantry_outbox_refused;
DROP TABLE _tenantry_outbox;

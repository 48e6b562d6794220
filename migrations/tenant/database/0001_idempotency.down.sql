DROP TABLE _tenantry_versions;
DROP TABLE _tenantry_idempotency;

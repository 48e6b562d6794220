DROP TABLE _tenantry_idempotency;

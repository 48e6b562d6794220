ALTER TABLE tenants DROP COLUMN state_before;

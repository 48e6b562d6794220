DROP TABLE audit_head;
DROP TABLE audit_outbox;
DROP TABLE idempotency_keys;
DROP TABLE tenant_tokens;
DROP TABLE tenants;

-- How many tokens a tenant has is asked each time it gets one: its unexpired ones, not all that it ever had.
CREATE INDEX tenant_tokens_bound ON tenant_tokens (tenant_id, expires_at);

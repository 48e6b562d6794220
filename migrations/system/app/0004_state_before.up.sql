-- What a tenant was when it was last deleted, and is again if it is brought back; NULL for active.
ALTER TABLE tenants ADD COLUMN state_before TEXT CHECK (state_before IN ('active', 'suspended'));

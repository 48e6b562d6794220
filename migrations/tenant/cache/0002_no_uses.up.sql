-- tenantry: harmless
-- Which entries were read is known in memory only; nothing was ever written here.

DROP TABLE entry_uses;

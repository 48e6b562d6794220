DROP TABLE mark_audit_watermark;
DROP TABLE mark_audit_logs;
DROP TABLE mark_settings;
DROP TABLE mark_sessions;
DROP TABLE mark_users;

DROP TABLE notifications;
DROP TABLE user_activity_logs;
DROP TABLE user_preferences;
DROP TABLE user_sessions;
DROP TABLE memberships;
DROP TABLE users;

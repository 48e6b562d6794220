DROP TABLE error_logs;
DROP TABLE performance_logs;
DROP TABLE search_queries;
DROP TABLE user_engagement;
DROP TABLE page_views;

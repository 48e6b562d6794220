DROP TABLE publishing_queue;
DROP TABLE content_revisions;

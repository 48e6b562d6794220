DROP TRIGGER wakeups_follow;
DROP TABLE wakeups;

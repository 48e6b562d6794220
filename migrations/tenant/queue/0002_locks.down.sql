DROP TABLE locks;
DROP TABLE lock_clock;

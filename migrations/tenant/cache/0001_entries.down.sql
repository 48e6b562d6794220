DROP TABLE locks;
DROP TABLE fills;
DROP TABLE invalidations;
DROP TABLE entry_tags;
DROP TABLE entry_uses;
DROP TABLE entries;
DROP TABLE clock;

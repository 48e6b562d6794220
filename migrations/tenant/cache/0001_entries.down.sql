DROP TABLE prefix_lengths;
DROP TABLE invalidations;
DROP TABLE entry_uses;
DROP TABLE entries;
DROP TABLE clock;

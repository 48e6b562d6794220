DROP TABLE migration_ceiling;
DROP TABLE fleet_visits;
DROP TABLE fleet_runs;

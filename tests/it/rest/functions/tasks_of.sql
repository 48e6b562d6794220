-- Its rows are those of the table, so others are embedded beside them.
CREATE FUNCTION tasks_of(project bigint, least int DEFAULT 0) RETURNS SETOF tasks STABLE AS $$
  SELECT * FROM tasks WHERE project_id = :project AND coalesce(hours, 0) >= :least -- the last ; of a line
$$;

CREATE FUNCTION task(number int) RETURNS tasks STABLE AS $$ SELECT * FROM tasks WHERE id = :number $$;

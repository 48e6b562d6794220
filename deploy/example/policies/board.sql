-- Who may do what on the board. A person is the member whose e-mail address is the subject of the token.
--
--   owner    sees all of it, and changes all of it
--   editor   sees active projects and their tasks, adds tasks, and changes those that are theirs or nobody's
--   viewer   sees active projects and their tasks

-- Reads past the policies of `members`, which ask it.
CREATE FUNCTION me() RETURNS integer STABLE SECURITY DEFINER AS $$ SELECT id FROM members WHERE email = auth.uid() $$;
CREATE FUNCTION my_role() RETURNS text STABLE SECURITY DEFINER AS $$ SELECT role FROM members WHERE email = auth.uid() $$;

CREATE POLICY colleagues ON members FOR SELECT TO authenticated USING (me() IS NOT NULL);
CREATE POLICY owners ON members TO authenticated USING (my_role() = 'owner') WITH CHECK (my_role() = 'owner');

CREATE POLICY active ON projects FOR SELECT TO authenticated USING (status = 'active' AND me() IS NOT NULL);
CREATE POLICY owners ON projects TO authenticated USING (my_role() = 'owner') WITH CHECK (my_role() = 'owner');

-- A task is seen where its project is: the sub-select sees what the caller sees.
CREATE POLICY of_projects ON tasks FOR SELECT TO authenticated USING (project_id IN (SELECT id FROM projects));
CREATE POLICY owners ON tasks TO authenticated USING (my_role() = 'owner') WITH CHECK (my_role() = 'owner');
CREATE POLICY adding ON tasks FOR INSERT TO authenticated
  WITH CHECK (my_role() = 'editor' AND project_id IN (SELECT id FROM projects));
CREATE POLICY changing ON tasks FOR UPDATE TO authenticated
  USING (my_role() = 'editor' AND (assignee_id = me() OR assignee_id IS NULL))
  WITH CHECK (project_id IN (SELECT id FROM projects));

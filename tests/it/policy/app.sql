-- Whoever is a member. It sees all of `members`, whose own policy asks for it.
CREATE FUNCTION is_member(project integer) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT EXISTS (SELECT 1 FROM members WHERE members.project_id = project AND members.login = auth.uid())
$$;

CREATE POLICY open_to_all ON projects FOR SELECT USING (is_open);
CREATE POLICY own ON projects FOR SELECT TO authenticated USING (is_member(id));

CREATE POLICY of_own_projects ON members FOR SELECT TO authenticated USING (is_member(project_id));

-- Through the policies of projects.
CREATE POLICY of_projects ON tasks FOR SELECT USING (EXISTS (SELECT 1 FROM projects WHERE projects.id = tasks.project_id));

CREATE POLICY seen ON people FOR SELECT TO authenticated, auditor USING (true);
CREATE POLICY self ON people FOR UPDATE TO authenticated USING (login = auth.uid());
GRANT SELECT (id, name), UPDATE (name) ON people TO authenticated;

CREATE POLICY all_of_own ON notes TO authenticated USING (owner = auth.uid());
CREATE POLICY audited ON notes FOR SELECT TO auditor USING (true);
CREATE POLICY all_of_own ON seals TO authenticated USING (owner = (SELECT auth.uid()));
CREATE POLICY all_of_own ON slots TO authenticated USING (owner = auth.uid());

CREATE POLICY anybody_writes ON messages FOR INSERT TO anon WITH CHECK (length(text) > 0);

CREATE POLICY anything ON drafts FOR INSERT TO authenticated WITH CHECK (true);
CREATE POLICY own ON drafts TO authenticated USING (owner = auth.uid());

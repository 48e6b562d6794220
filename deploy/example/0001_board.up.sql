-- A project board: members, projects, tasks. Every tenant's database gets these tables; what is in them is each
-- tenant's own. What a member may see and change is in policies/board.sql.

CREATE TABLE members (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL,
  email      TEXT NOT NULL UNIQUE,
  role       TEXT NOT NULL CHECK (role IN ('owner', 'editor', 'viewer'))
) STRICT;

CREATE TABLE projects (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  owner_id   INTEGER NOT NULL REFERENCES members (id),
  status     TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'done'))
) STRICT;

CREATE INDEX projects_by_owner ON projects (owner_id);

CREATE TABLE tasks (
  id          INTEGER PRIMARY KEY,
  project_id  INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  assignee_id INTEGER REFERENCES members (id),
  title       TEXT NOT NULL CHECK (length(title) > 0),
  state       TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'doing', 'done')),
  due_on      TEXT,
  created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) STRICT;

CREATE INDEX tasks_by_project ON tasks (project_id, state);
CREATE INDEX tasks_by_assignee ON tasks (assignee_id, state);

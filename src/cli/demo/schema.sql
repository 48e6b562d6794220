-- The example application: a project board. Every tenant's database gets the same tables; what is in them is
-- each tenant's own. Applied on every run of the demo, so each statement may meet its own earlier work.

CREATE TABLE IF NOT EXISTS members (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL,
  email      TEXT NOT NULL UNIQUE,
  role       TEXT NOT NULL CHECK (role IN ('owner', 'editor', 'viewer'))
) STRICT;

CREATE TABLE IF NOT EXISTS projects (
  id         INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  owner_id   INTEGER NOT NULL REFERENCES members (id),
  status     TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'done'))
) STRICT;

CREATE TABLE IF NOT EXISTS tasks (
  id          INTEGER PRIMARY KEY,
  project_id  INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
  assignee_id INTEGER REFERENCES members (id),
  title       TEXT NOT NULL,
  state       TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'doing', 'done')),
  due_on      TEXT,
  created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) STRICT;

CREATE INDEX IF NOT EXISTS tasks_by_project ON tasks (project_id, state);
CREATE INDEX IF NOT EXISTS tasks_by_assignee ON tasks (assignee_id, state);

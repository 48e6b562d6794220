-- Globex Energy: wind farms.

INSERT INTO members (id, name, email, role) VALUES
  (1, 'Emeka Nwosu',   'emeka@globex.example', 'owner'),
  (2, 'Freya Lindahl', 'freya@globex.example', 'editor'),
  (3, 'Goran Babić',   'goran@globex.example', 'viewer')
ON CONFLICT DO NOTHING;

INSERT INTO projects (id, name, owner_id, status) VALUES
  (1, 'Wind Park Skagen',     1, 'active'),
  (2, 'Battery Pilot Malmö',  2, 'active')
ON CONFLICT DO NOTHING;

INSERT INTO tasks (id, project_id, assignee_id, title, state, due_on) VALUES
  (1, 1, 2, 'Noise report for the council',      'doing', '2026-12-01'),
  (2, 1, 1, 'Contract with the grid operator',   'open',  '2027-02-15'),
  (3, 1, 2, 'Foundation of turbine 7',           'open',  '2027-03-20'),
  (4, 2, 2, 'Fire safety review',                'open',  '2026-12-11')
ON CONFLICT DO NOTHING;

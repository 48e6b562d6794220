-- Initech Software: reports.

INSERT INTO members (id, name, email, role) VALUES
  (1, 'Hana Sato',    'hana@initech.example',  'owner'),
  (2, 'Ivo Moreau',   'ivo@initech.example',   'editor'),
  (3, 'Jun Castillo', 'jun@initech.example',   'editor')
ON CONFLICT DO NOTHING;

INSERT INTO projects (id, name, owner_id, status) VALUES
  (1, 'Report Generator 4', 1, 'active'),
  (2, 'Office Move',        3, 'active'),
  (3, 'Printer Retirement', 2, 'done')
ON CONFLICT DO NOTHING;

INSERT INTO tasks (id, project_id, assignee_id, title, state, due_on) VALUES
  (1, 1, 2, 'Cover sheet for the weekly report', 'doing', '2026-11-24'),
  (2, 1, 3, 'Export to spreadsheet',             'open',  '2026-12-18'),
  (3, 2, 3, 'Label the moving boxes',            'open',  '2026-12-22'),
  (4, 2, 1, 'Cancel the old lease',              'done',  '2026-10-31'),
  (5, 3, 2, 'Wipe the print queue',              'done',  '2026-07-09')
ON CONFLICT DO NOTHING;

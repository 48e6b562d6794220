-- Acme Construction: bridges and tunnels.

INSERT INTO members (id, name, email, role) VALUES
  (1, 'Ada Okafor',     'ada@acme.example',    'owner'),
  (2, 'Bram de Vries',  'bram@acme.example',   'editor'),
  (3, 'Chiara Rossi',   'chiara@acme.example', 'editor'),
  (4, 'Dmitri Petrov',  'dmitri@acme.example', 'viewer')
ON CONFLICT DO NOTHING;

INSERT INTO projects (id, name, owner_id, status) VALUES
  (1, 'Harbour Bridge',  1, 'active'),
  (2, 'Northern Tunnel', 2, 'active'),
  (3, 'Depot Roof',      1, 'done')
ON CONFLICT DO NOTHING;

INSERT INTO tasks (id, project_id, assignee_id, title, state, due_on) VALUES
  (1, 1, 2, 'Survey the eastern pier',           'done',  '2026-09-14'),
  (2, 1, 3, 'Order 480 anchor bolts',            'doing', '2026-11-30'),
  (3, 1, 3, 'Load test of span 2',               'open',  '2027-01-18'),
  (4, 2, 2, 'Ventilation: compare three offers', 'open',  '2026-12-04'),
  (5, 2, 1, 'Permit for night work',             'doing', '2026-11-27'),
  (6, 3, 4, 'Hand over the keys',                'done',  '2026-08-01')
ON CONFLICT DO NOTHING;

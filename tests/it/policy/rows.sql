INSERT INTO people VALUES (1, 'Ann', 'ann', 10, NULL), (2, 'Bob', 'bob', 20, 1), (3, 'Cid', 'cid', 30, 1);
INSERT INTO projects VALUES (1, 'Engine', false), (2, 'Secret', false), (3, 'Open', true);
INSERT INTO members VALUES (1, 1, 'ann'), (1, 2, 'bob'), (2, 2, 'bob');
INSERT INTO tasks VALUES (1, 'Draw', 1), (2, 'Cut', 1), (3, 'Hide', 2), (4, 'Greet', 3);
INSERT INTO notes(id, project_id, task_id, owner, text) VALUES (1, 1, 1, 'ann', 'ann''s own'), (2, 2, 3, 'ann', 'about a hidden one'), (3, 1, 1, 'bob', 'bob''s own canary');
INSERT INTO seals VALUES (x'01', 'bob'), (x'00ff', 'ann');
INSERT INTO slots VALUES (1, 'bob');
INSERT INTO vault VALUES (1, 1, 'canary');
INSERT INTO drafts VALUES (1, 'ann');

-- Content of the SaaS company's own site: every revision is kept, publishing one is a row in a queue.

CREATE TABLE content_revisions (
    id         TEXT    PRIMARY KEY NOT NULL,
    kind       TEXT    NOT NULL,                    -- page, post, template, …
    item_id    TEXT    NOT NULL,
    revision   INTEGER NOT NULL CHECK (revision >= 1),
    author_id  TEXT    REFERENCES mark_users (id) ON DELETE SET NULL,
    title      TEXT    NOT NULL DEFAULT '',
    body       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (kind, item_id, revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE publishing_queue (
    id           TEXT    PRIMARY KEY NOT NULL,
    revision_id  TEXT    NOT NULL REFERENCES content_revisions (id) ON DELETE CASCADE,
    state        TEXT    NOT NULL CHECK (state IN ('waiting', 'published', 'failed', 'cancelled')),
    publish_at   INTEGER NOT NULL,
    requested_by TEXT    REFERENCES mark_users (id) ON DELETE SET NULL,
    finished_at  INTEGER,
    error        TEXT,
    created_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX publishing_queue_due      ON publishing_queue (publish_at) WHERE state = 'waiting';
CREATE INDEX publishing_queue_revision ON publishing_queue (revision_id);

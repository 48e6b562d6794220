CREATE TABLE entry_uses (
    entry   INTEGER PRIMARY KEY,
    used_at INTEGER NOT NULL
) STRICT;

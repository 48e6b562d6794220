//! What lies on the disk once a server has let go of it: whether every SQLite file is whole.

use std::path::Path;

/// `integrity_check` of every SQLite file below `dir`; how many there were.
#[track_caller]
pub fn check_files(dir: &Path) -> usize {
    let mut checked = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "db" || ext == "sqlite") {
                let file = rusqlite::Connection::open(&path).unwrap();
                let check: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                let dangling: i64 = file.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
                assert_eq!((check.as_str(), dangling), ("ok", 0), "{}", path.display());
                checked += 1;
            }
        }
    }
    checked
}

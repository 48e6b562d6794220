//! Files as SQLite sees them through us, held against what SQLite's own VFS finds in copies of them.

use std::path::Path;

use proptest::prelude::*;
use rusqlite::{Connection, OpenFlags};

use super::install;

/// As whoever comes after a crash: what is on the disk, by SQLite's own VFS.
fn after_a_crash(file: &Path) -> (String, Vec<(i64, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.sqlite");
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        // By another process: closing a file in this one drops the locks that it has on it.
        assert!(std::process::Command::new("cp").args([name(file), name(&copy)]).status().unwrap().success());
    }
    let conn = Connection::open_with_flags_and_vfs(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE, c"unix").unwrap();
    let sound = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    (sound, rows(&conn))
}

fn rows(conn: &Connection) -> Vec<(i64, Vec<u8>)> {
    let mut statement = conn.prepare_cached("SELECT id, v FROM t ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0").unwrap();
    conn
}

fn name_of_vfs(conn: &Connection) -> *const rusqlite::ffi::sqlite3_vfs {
    let mut vfs = std::ptr::null::<rusqlite::ffi::sqlite3_vfs>();
    // SAFETY: the connection is open; the answer is a pointer to its VFS.
    unsafe {
        rusqlite::ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), rusqlite::ffi::SQLITE_FCNTL_VFS_POINTER, (&raw mut vfs).cast())
    };
    vfs
}

#[derive(Clone, Debug)]
enum Deed {
    Insert { rows: u8, bytes: u16 },
    Update { bytes: u16 },
    Delete,
    Savepoint,
    RollBackTo,
    Commit,
    RollBack,
    Checkpoint,
    Another,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (1..40_u8, 0..3_000_u16).prop_map(|(rows, bytes)| Deed::Insert { rows, bytes }),
        4 => (0..3_000_u16).prop_map(|bytes| Deed::Update { bytes }),
        1 => Just(Deed::Delete),
        2 => Just(Deed::Savepoint),
        2 => Just(Deed::RollBackTo),
        6 => Just(Deed::Commit),
        2 => Just(Deed::RollBack),
        1 => Just(Deed::Checkpoint),
        1 => Just(Deed::Another),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Transactions larger than the page cache write a page of the log more than once, take frames back, and reckon checksums
    /// anew: whatever they did, what is committed is on the disk when COMMIT returns, and nothing else is.
    #[test]
    fn what_is_committed_is_in_the_file_and_its_log(deeds in proptest::collection::vec(deed(), 1..60)) {
        install();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let (one, two) = (open(&path), open(&path));
        one.execute_batch("PRAGMA cache_size=2; PRAGMA cache_spill=1; CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB NOT NULL)").unwrap();
        two.execute_batch("PRAGMA cache_size=2; PRAGMA cache_spill=1").unwrap();
        let (mut writer, mut other) = (&one, &two);
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut savepoints = 0;
        for deed in deeds {
            match deed {
                Deed::Insert { rows, bytes } => writer.execute("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) INSERT INTO t (v) SELECT randomblob(?2) FROM n", (rows, bytes)).map(drop).unwrap(),
                Deed::Update { bytes } => writer.execute("UPDATE t SET v = randomblob(?1) WHERE id % 3 = 0", [bytes]).map(drop).unwrap(),
                Deed::Delete => writer.execute_batch("DELETE FROM t WHERE id % 2 = 0").unwrap(),
                Deed::Savepoint => {
                    savepoints += 1;
                    writer.execute_batch("SAVEPOINT s").unwrap();
                }
                Deed::RollBackTo if savepoints > 0 => writer.execute_batch("ROLLBACK TO s").unwrap(),
                Deed::RollBackTo => {}
                Deed::Commit => {
                    writer.execute_batch("COMMIT").unwrap();
                    let here = rows(writer);
                    prop_assert_eq!(after_a_crash(&path), ("ok".to_owned(), here.clone()));
                    prop_assert_eq!(rows(other), here);
                    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
                    savepoints = 0;
                }
                Deed::RollBack => {
                    writer.execute_batch("ROLLBACK").unwrap();
                    prop_assert_eq!(after_a_crash(&path).1, rows(writer));
                    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
                    savepoints = 0;
                }
                Deed::Checkpoint | Deed::Another => {
                    writer.execute_batch("ROLLBACK").unwrap();
                    if matches!(deed, Deed::Another) {
                        std::mem::swap(&mut writer, &mut other);
                    } else {
                        let busy: i64 = writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0)).unwrap();
                        prop_assert_eq!(busy, 0);
                    }
                    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
                    savepoints = 0;
                }
            }
        }
    }
}

#[test]
fn connections_of_one_process_keep_each_other_out_as_sqlite_has_them() {
    install();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    let (one, two) = (open(&path), open(&path));
    // SAFETY: both are names of the VFSs that are registered, for as long as the process lives.
    let name = unsafe { std::ffi::CStr::from_ptr((*name_of_vfs(&one)).zName) };
    assert_eq!(name, c"tenantry");
    one.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)").unwrap();
    two.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, x'00')").unwrap();
    let busy = |conn: &Connection, sql: &str| {
        conn.busy_timeout(std::time::Duration::ZERO).unwrap();
        conn.execute_batch(sql).err().and_then(|error| error.sqlite_error_code()) == Some(rusqlite::ErrorCode::DatabaseBusy)
    };
    assert!(busy(&two, "ROLLBACK; BEGIN IMMEDIATE"));
    two.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    one.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(&two).len(), 0, "its snapshot is from before");
    assert!(busy(&two, "INSERT INTO t VALUES (2, x'00')"));
    let log: i64 = one.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(log, 1, "a reader holds the log back");
    two.execute_batch("ROLLBACK").unwrap();
    let log: i64 = one.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!((log, rows(&two).len()), (0, 1));
    // Out of the log's mode and back: everybody else has to have gone.
    assert!(busy(&one, "PRAGMA journal_mode=DELETE"));
    drop(two);
    one.execute_batch("PRAGMA journal_mode=DELETE; INSERT INTO t VALUES (3, x'00')").unwrap();
    assert!(!path.with_extension("sqlite-wal").exists() && !path.with_extension("sqlite-shm").exists());
    let two = Connection::open(&path).unwrap();
    one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (4, x'00')").unwrap();
    assert_eq!(rows(&two).len(), 2);
    assert!(busy(&two, "BEGIN IMMEDIATE"));
    two.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    assert!(busy(&one, "COMMIT"), "a reader is in the file");
    two.execute_batch("COMMIT").unwrap();
    one.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(&two).len(), 3);
}

#[test]
fn a_file_removed_and_made_again_is_another_file() {
    install();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sqlite");
    let old = open(&path);
    old.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES (1, x'00')").unwrap();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
    }
    let new = open(&path);
    new.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)").unwrap();
    assert_eq!((rows(&old).len(), rows(&new).len()), (1, 0));
    let link = folder.path().join("link.sqlite");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Connection::open(&link).and_then(|conn| conn.execute_batch("SELECT * FROM t")).is_err(), "links are not followed");
}

#[test]
fn a_link_above_a_file_is_followed_unless_that_is_not_wanted() {
    install();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("there")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("there"), folder.path().join("here")).unwrap();
    let path = folder.path().join("here").join("a.sqlite");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    Connection::open_with_flags(&path, flags).and_then(|conn| conn.execute_batch("CREATE TABLE t (x)")).unwrap();
    assert!(folder.path().join("there").join("a.sqlite").exists());
    let strict = Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NOFOLLOW);
    assert!(strict.and_then(|conn| conn.execute_batch("SELECT * FROM t")).is_err());
}

use super::*;

fn set(files: &[(&str, &str)]) -> Arc<Migrations> {
    Arc::new(Migrations::from_files("test", files.iter().copied()).unwrap())
}

fn go(conn: &Connection, set: &Arc<Migrations>, course: Course) -> Result<Moved, Failure> {
    bring(conn, std::slice::from_ref(set), course, None, &super::super::unwatched)
}

fn refused(outcome: Result<Moved, Failure>) -> String {
    match outcome {
        Err(Failure::Refused(error)) => error.message().to_owned(),
        Err(Failure::Sqlite(error)) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    }
}

fn moves(outcome: Result<Moved, Failure>) -> Vec<(u32, u32)> {
    match outcome {
        Ok(moved) => moved.moves.iter().map(|one| (one.from, one.to)).collect(),
        Err(Failure::Refused(error)) => panic!("{error}"),
        Err(Failure::Sqlite(error)) => panic!("{error}"),
    }
}

const TWO: [(&str, &str); 4] = [
    ("0001_a.up.sql", "CREATE TABLE a(x)"),
    ("0001_a.down.sql", "DROP TABLE a"),
    ("0002_b.up.sql", "CREATE TABLE b(x)"),
    ("0002_b.down.sql", "DROP TABLE b"),
];

#[test]
fn a_migration_is_applied_once_and_a_changed_or_unknown_one_is_refused() {
    let conn = Connection::open_in_memory().unwrap();
    let one = set(&TWO[..2]);
    assert_eq!(moves(go(&conn, &one, Course::Up)), [(0, 1)]);
    assert_eq!(moves(go(&conn, &one, Course::Up)), []);
    let changed = set(&[("0001_a.up.sql", "CREATE TABLE a(x, y)"), TWO[1]]);
    let message = refused(go(&conn, &changed, Course::Up));
    assert!(message.contains(&one.steps[0].up.checksum) && message.contains(&changed.steps[0].up.checksum), "{message}");
    assert!(refused(go(&conn, &set(&[]), Course::Up)).contains("test/0001"));
}

#[test]
fn what_a_file_lacks_is_applied_whole_or_not_at_all() {
    let conn = Connection::open_in_memory().unwrap();
    let broken = set(&[TWO[0], ("0002_b.up.sql", "CREATE TABLE b(x); CREATE TABLE a(x)")]);
    assert!(refused(go(&conn, &broken, Course::Up)).contains("0002_b.up failed"));
    assert!(conn.prepare("SELECT * FROM a").is_err(), "the first is not there either");
    assert_eq!(moves(go(&conn, &set(&TWO), Course::Up)), [(0, 2)]);
    let ends = set(&[TWO[0], TWO[2], ("0003_c.up.sql", "CREATE TABLE c(x); COMMIT; CREATE TABLE d(x)")]);
    assert!(refused(go(&conn, &ends, Course::Up)).contains("ended the transaction"));
}

#[test]
fn a_gap_in_the_record_is_refused() {
    let conn = Connection::open_in_memory().unwrap();
    go(&conn, &set(&TWO), Course::Up).ok().unwrap();
    conn.execute_batch("DELETE FROM _tenantry_migrations WHERE version = 1").unwrap();
    assert!(refused(go(&conn, &set(&TWO), Course::Up)).contains("lacks migration test/0001_a"));
}

#[test]
fn a_file_taken_down_stays_there_until_it_is_brought_up() {
    let conn = Connection::open_in_memory().unwrap();
    let all = set(&TWO);
    go(&conn, &all, Course::Up).ok().unwrap();
    let first = Arc::new(all.capped(1));
    assert_eq!(moves(go(&conn, &first, Course::Hold)), [(2, 1)]);
    assert!(conn.prepare("SELECT * FROM b").is_err());
    assert_eq!(moves(go(&conn, &first, Course::Hold)), [], "a second time changes nothing");
    assert_eq!(moves(go(&conn, &all, Course::Up)), []);
    assert_eq!(moves(go(&conn, &all, Course::Lift)), [(1, 2)]);
    assert_eq!(moves(go(&conn, &Arc::new(all.capped(1)), Course::Up)), [], "one that is ahead is left alone");
}

#[test]
fn a_down_file_must_be_there_and_be_what_was_recorded() {
    let conn = Connection::open_in_memory().unwrap();
    go(&conn, &set(&TWO), Course::Up).ok().unwrap();
    let changed = set(&[TWO[0], TWO[1], TWO[2], ("0002_b.down.sql", "DROP TABLE IF EXISTS b")]);
    assert_eq!(moves(go(&conn, &changed, Course::Up)), [], "going up does not ask for it");
    let message = refused(go(&conn, &Arc::new(changed.capped(1)), Course::Hold));
    let down = |set: &Migrations| set.steps[1].down.as_ref().unwrap().checksum.clone();
    assert!(message.contains(&down(&changed)) && message.contains(&down(&set(&TWO))), "{message}");
    let conn = Connection::open_in_memory().unwrap();
    let without = set(&[TWO[0], TWO[2]]);
    go(&conn, &without, Course::Up).ok().unwrap();
    assert!(refused(go(&conn, &Arc::new(without.capped(0)), Course::Hold)).contains("test/0002_b has no down file"));
}

#[test]
fn a_table_that_others_refer_to_can_be_rebuilt_and_a_broken_reference_is_found() {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let first = (
        "0001_a.up.sql",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, n); CREATE TABLE c(p REFERENCES p(id) ON DELETE CASCADE);
         INSERT INTO p VALUES (1, 'x'); INSERT INTO c VALUES (1);",
    );
    go(&conn, &set(&[first]), Course::Up).ok().unwrap();
    let orphans = set(&[first, ("0002_b.up.sql", "DELETE FROM p")]);
    assert!(refused(go(&conn, &orphans, Course::Up)).contains("rows of c without"));
    let rebuilt =
        "CREATE TABLE q(id INTEGER PRIMARY KEY, n NOT NULL); INSERT INTO q SELECT * FROM p; DROP TABLE p; ALTER TABLE q RENAME TO p;";
    go(&conn, &set(&[first, ("0002_b.up.sql", rebuilt)]), Course::Up).ok().unwrap();
    let (left, enforced): (i64, i64) = (
        conn.query_row("SELECT count(*) FROM c", [], |row| row.get(0)).unwrap(),
        conn.query_row("PRAGMA foreign_keys", [], |row| row.get(0)).unwrap(),
    );
    assert_eq!((left, enforced), (1, 1));
}

#[test]
fn a_file_recorded_before_down_files_were_is_read_and_written_on() {
    let conn = Connection::open_in_memory().unwrap();
    let one = set(&TWO[..2]);
    conn.execute_batch(&format!(
        "CREATE TABLE _tenantry_migrations(\"set\" TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, checksum TEXT NOT NULL,
            applied_at INTEGER NOT NULL, took_ms INTEGER NOT NULL, applied_by TEXT NOT NULL, PRIMARY KEY (\"set\", version)) STRICT, WITHOUT ROWID;
         INSERT INTO _tenantry_migrations VALUES ('test', 1, 'a', '{}', 0, 0, '0.0'); CREATE TABLE a(x);",
        one.steps[0].up.checksum
    ))
    .unwrap();
    assert_eq!(moves(go(&conn, &set(&TWO), Course::Up)), [(1, 2)]);
    assert_eq!(moves(go(&conn, &Arc::new(set(&TWO).capped(0)), Course::Hold)), [(2, 0)]);
}

#[test]
fn a_file_is_kept_as_it_was_before_something_is_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, keep) = (folder.path().join("file"), folder.path().join("kept/before"));
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode=WAL").unwrap();
    let first = ("0001_a.up.sql", "CREATE TABLE a(x); INSERT INTO a VALUES (7)");
    let second = ("0002_b.up.sql", "-- tenantry: destructive\nDELETE FROM a");
    let sets = [set(&[first])];
    let moved = bring(&conn, &sets, Course::Up, Some(&keep), &super::super::unwatched).ok().unwrap();
    assert!(!moved.kept && !keep.exists());
    let sets = [set(&[first, second])];
    let moved = bring(&conn, &sets, Course::Up, Some(&keep), &super::super::unwatched).ok().unwrap();
    assert!(moved.kept && moved.destructive == ["test/0002_b.up"]);
    let before: i64 = Connection::open(&keep).unwrap().query_row("SELECT x FROM a", [], |row| row.get(0)).unwrap();
    assert_eq!(before, 7);
}

//! Other processes and a tenant's files: while the server has a file open, `sqlite3 FILE`, or whatever else goes by SQLite's own
//! ways, finds what was acknowledged, copies it whole, and may write; and the server finds that. This process is the other one.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::support::*;

/// Where everybody has a lock who has a log's index open (SQLite's `UNIX_SHM_DMS`).
const OPEN: u64 = 128;

/// By SQLite's own VFS.
fn open(server: &Server, tenant: &TenantClient) -> Connection {
    let conn = Connection::open(server.file(&tenant.id, "database")).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn
}

fn count(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// Whether the server has the file's log to itself.
fn is_to_itself(server: &Server, tenant: &TenantClient) -> bool {
    let index = File::options().read(true).write(true).open(server.file(&tenant.id, "database").with_extension("sqlite-shm")).unwrap();
    // SAFETY: a struct of integers, and an open descriptor; the call fills in whose lock is in the way.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        (lock.l_type, lock.l_start, lock.l_len) = (libc::F_RDLCK as i16, OPEN as i64, 1);
        assert_eq!(libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&index.as_fd()), libc::F_GETLK, &raw mut lock), 0);
        lock.l_type == libc::F_WRLCK as i16
    }
}

#[test]
fn another_process_reads_what_was_acknowledged_and_writes_what_the_server_reads() {
    let server = Server::start();
    let tenant = server.tenant("shared");
    tenant.script("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) VALUES ('ours')");
    assert!(is_to_itself(&server, &tenant));
    let other = open(&server, &tenant);
    assert_eq!(count(&other), 1);
    assert!(!is_to_itself(&server, &tenant));
    for n in 2..20 {
        tenant.sql("INSERT INTO t (v) VALUES ('ours')", json!([])).succeeds();
        assert_eq!(count(&other), 2 * n - 2);
        other.execute_batch("INSERT INTO t (v) VALUES ('theirs')").unwrap();
        assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[2 * n - 1]]));
    }
    // Its snapshot stays what it is, and its lock keeps the server out for no longer than it is held.
    other.execute_batch("BEGIN").unwrap();
    assert_eq!(count(&other), 37);
    tenant.sql("INSERT INTO t (v) VALUES ('ours')", json!([])).succeeds();
    assert_eq!(count(&other), 37);
    other.execute_batch("COMMIT; BEGIN IMMEDIATE; INSERT INTO t (v) VALUES ('theirs')").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| tenant.sql("INSERT INTO t (v) VALUES ('ours')", json!([])).succeeds());
        assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[38]]));
        other.execute_batch("COMMIT").unwrap();
        waits.join().unwrap();
    });
    assert_eq!(count(&other), 40);
    other.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    drop(other);
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[40]]));
    eventually("the server to have its file to itself again", || is_to_itself(&server, &tenant).then_some(()));
    tenant.sql("INSERT INTO t (v) VALUES ('ours')", json!([])).succeeds();
    assert_eq!(count(&open(&server, &tenant)), 41);
}

#[test]
fn a_copy_that_another_process_makes_during_writes_is_one_commit() {
    let server = Server::start();
    let tenant = server.tenant("copied");
    tenant.script("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE u (id INTEGER PRIMARY KEY, v TEXT)");
    let insert = json!({ "statements": [
        { "sql": "INSERT INTO t (v) VALUES (hex(randomblob(300)))" },
        { "sql": "INSERT INTO u (v) VALUES (hex(randomblob(300)))" },
    ] });
    let acknowledged = std::sync::atomic::AtomicI64::new(0);
    let copies = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while copies.load(std::sync::atomic::Ordering::SeqCst) {
                    tenant.post("/v1/sql", insert.clone()).succeeds();
                    acknowledged.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
        for _ in 0..10 {
            let before = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
            let mut copy = Connection::open_in_memory().unwrap();
            let other = open(&server, &tenant);
            let copying = rusqlite::backup::Backup::new(&other, &mut copy).unwrap();
            copying.run_to_completion(1_000_000, Duration::ZERO, None).unwrap();
            drop(copying);
            let of = |table: &str| copy.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(of("t"), of("u"));
            assert!(of("t") >= before, "{} of {before}", of("t"));
            assert_eq!(copy.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
        }
        copies.store(false, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn a_reader_that_may_not_write_the_index_keeps_its_snapshot() {
    let mut server = Server::with(|c| {
        c.set("sqlite.checkpoint_bytes", 65_536);
    });
    let tenant = server.tenant("careful");
    tenant.script(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
         SELECT i, printf('old%.*c', 100, 'x') FROM n",
    );
    let file = server.file(&tenant.id, "database");
    server.kill9();
    // Its whole log is in the file, so that a checkpoint may write under a reader of it.
    let other = Connection::open(&file).unwrap();
    other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    drop(other);
    let reader = Connection::open_with_flags(format!("file:{}?readonly_shm=1", file.display()), flags).unwrap();
    let old = |from: i64| {
        let sql = "SELECT count(*) FROM t WHERE id BETWEEN ?1 AND ?1 + 9 AND v LIKE 'old%'";
        reader.query_row(sql, [from], |row| row.get::<_, i64>(0)).unwrap()
    };
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(old(1), 10);
    server.start_again();
    let tenant = server.known(&tenant);
    for _ in 0..5 {
        tenant.sql("UPDATE t SET v = replace(v, 'old', 'new')", json!([])).succeeds();
    }
    assert_eq!((old(1), old(1000), old(1990)), (10, 10, 10));
    reader.execute_batch("COMMIT").unwrap();
}

#[test]
fn another_process_gets_a_file_while_the_server_is_stopping() {
    use std::io::Write;
    let mut server = Server::with(|c| {
        c.set("shutdown.grace_s", 3_600).set("plans.default.statement_ms", 3_600_000);
    });
    let (tenant, busy) = (server.tenant("wanted"), server.tenant("busy"));
    tenant.script("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) VALUES ('ours')");
    // Whom the server waits for as it stops, and who goes away when this test says so.
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
    let body = json!({ "statements": [{ "sql": endless }] }).to_string();
    let mut client = server.connect();
    write!(
        client,
        "POST /v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        busy.token,
        body.len()
    )
    .unwrap();
    server.until_at_work();
    server.terminate();
    eventually("the door is shut", || server.anyone().call("GET", "/healthz").try_send().is_err().then_some(()));
    assert!(is_to_itself(&server, &tenant));
    let other = open(&server, &tenant);
    assert_eq!(count(&other), 1);
    other.execute_batch("INSERT INTO t (v) VALUES ('theirs')").unwrap();
    drop(client);
    assert!(server.ended().success(), "{}", server.log());
    assert_eq!(count(&other), 2);
    server.start_again();
    assert_eq!(server.known(&tenant).rows("SELECT v FROM t", json!([])), json!([["ours"], ["theirs"]]));
}

#[test]
fn another_process_that_keeps_a_file_locked_does_not_hold_up_the_servers_stop() {
    let mut server = Server::start();
    for begin in ["BEGIN", "BEGIN IMMEDIATE"] {
        let tenant = server.tenant("kept");
        tenant.script("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) VALUES ('ours')");
        let other = open(&server, &tenant);
        other.execute_batch(begin).unwrap();
        assert_eq!(count(&other), 1);
        if begin == "BEGIN" {
            tenant.sql("INSERT INTO t (v) VALUES ('more')", json!([])).succeeds();
        } else {
            other.execute_batch("INSERT INTO t (v) VALUES ('theirs')").unwrap();
        }
        // It ends, with what it was told to keep in the file or its log.
        server.stop();
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(count(&other), 2, "{begin}");
        drop(other);
        server.start_again();
        assert_eq!(server.known(&tenant).rows("SELECT count(*) FROM t", json!([])), json!([[2]]), "{begin}");
    }
}

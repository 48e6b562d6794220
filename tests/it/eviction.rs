//! Files are opened on first use, held within a budget, closed when idle; and none of it loses, blocks or
//! leaks anything. Also what goes back to a pool, and how long a write-ahead log may grow.

use std::collections::HashSet;

use crate::support::*;

/// Descriptors of SQLite files below `tenants` that the server holds.
fn descriptors(server: &Server) -> Vec<String> {
    let dir = format!("/proc/{}/fd", server.pid());
    let links = std::fs::read_dir(dir).unwrap().flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|path| path.to_string_lossy().into_owned()).filter(|path| path.contains("/tenant_")).collect()
}

/// Of each of many writers.
const WRITES: usize = 200;

#[test]
fn under_a_tiny_budget_and_many_writers_nothing_acknowledged_is_lost() {
    let budget = 60;
    let mut server = Server::with(|c| {
        c.set("sqlite.descriptors", budget);
    });
    let tenants: Vec<_> = (0..24).map(|_| server.tenant("crowd")).collect();
    for tenant in &tenants {
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY)");
    }
    let results = at_once(12, |thread| {
        let (mut acknowledged, mut refused, mut most) = (Vec::new(), 0, 0);
        for i in 0..WRITES {
            let which = (thread * 7 + i * 5) % tenants.len();
            let x = (thread * 1_000_000 + i) as i64;
            // At its bound the server says so; it never fails otherwise, and everybody has his turn.
            eventually("it is written", || {
                let answer = tenants[which].sql("INSERT INTO t VALUES (?1)", json!([x]));
                if answer.status == 200 {
                    return Some(());
                }
                answer.refused(503, "overloaded");
                refused += 1;
                None
            });
            acknowledged.push((which, x));
            if thread == 0 {
                most = most.max(descriptors(&server).len());
            }
        }
        (acknowledged, refused, most)
    });
    let refused: usize = results.iter().map(|(_, refused, _)| refused).sum();
    let most = results[0].2;
    let acknowledged: Vec<_> = results.into_iter().flat_map(|(acknowledged, ..)| acknowledged).collect();
    assert!(most <= budget, "{most} descriptors held under a budget of {budget}");
    let health = server.admin().get("/admin/v1/health").expect(200).text();
    let metrics = server.anyone().get("/metrics").expect(200).text();
    assert!(health.contains("evictions") && metrics.contains("evictions"), "{health}");
    server.stop();
    for (which, tenant) in tenants.iter().enumerate() {
        let file = rusqlite::Connection::open(server.file(&tenant.id, "database")).unwrap();
        let check: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let mut there = file.prepare("SELECT x FROM t").unwrap();
        let there: HashSet<i64> = there.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let lost = acknowledged.iter().filter(|(at, x)| *at == which && !there.contains(x)).count();
        assert_eq!(lost, 0, "of {}", tenant.slug);
    }
    println!("eviction: {} writes acknowledged, 0 lost, {refused} refused, at most {most} of {budget} descriptors", acknowledged.len());
}

#[test]
fn files_are_opened_on_first_use_each_by_itself() {
    let server = Server::start();
    let tenant = server.tenant("lazy");
    let open = |role: &str| descriptors(&server).iter().any(|path| path.contains(&format!("tenant_{role}_{}", tenant.id)));
    assert!(!open("database") && !open("cache") && !open("queue"), "{:?}", descriptors(&server));
    tenant.sql("SELECT 1", json!([])).expect(200);
    assert!(open("database") && !open("cache") && !open("queue"), "{:?}", descriptors(&server));
    tenant.call("PUT", "/v1/cache/k").bytes("text/plain", "v").send();
    assert!(open("cache") && !open("queue"), "{:?}", descriptors(&server));
}

#[test]
fn what_nobody_uses_is_closed() {
    let server = Server::with(|c| {
        c.set("tenants.idle_close_s", 1);
    });
    let tenant = server.tenant("idle");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    eventually("the files are closed", || descriptors(&server).is_empty().then_some(()));
    assert!(!server.file(&tenant.id, "database").with_extension("sqlite-wal").exists(), "closing checkpoints");
    assert_eq!(server.admin().get(&format!("/admin/v1/tenants/{}", tenant.id)).expect(200).json()["tenant"]["open"], false);
    assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[1]]));
}

#[test]
fn what_makes_room_leaves_an_empty_log_and_is_one_plain_file_again_once_idle() {
    // Nobody is idle for long enough: what closes the first one is want of room.
    let mut server = Server::with(|c| {
        c.set("sqlite.descriptors", 20).set("tenants.idle_close_s", 3_600);
    });
    let tenant = server.tenant("first");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    let (file, log) = (server.file(&tenant.id, "database"), server.file(&tenant.id, "database").with_extension("sqlite-wal"));
    for _ in 0..5 {
        server.tenant("other").script("CREATE TABLE t (x)");
    }
    let is_closed = |server: &Server| !descriptors(server).iter().any(|path| path.contains(&tenant.id));
    eventually("the first one has made room", || is_closed(&server).then_some(()));
    assert_eq!(std::fs::metadata(&log).map(|log| log.len()).ok(), Some(0), "everything is in the file");
    let alone = rusqlite::Connection::open_with_flags(&file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    assert_eq!(alone.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    drop(alone);
    server.stop();
    assert!(log.exists(), "it was not open");

    let impatient = Server::with(|c| {
        c.dir(server.dir()).set("tenants.idle_close_s", 1);
    });
    assert_eq!(impatient.known(&tenant).rows("SELECT x FROM t", json!([])), json!([[1]]));
    eventually("it is idle", || (is_closed(&impatient) && !log.exists()).then_some(()));
}

#[test]
fn a_hundred_first_requests_open_a_file_once() {
    let server = Server::start();
    let tenant = server.tenant("stampede");
    let answers = at_once(100, |_| tenant.sql("SELECT 1", json!([])).status);
    assert!(answers.iter().all(|status| [200, 429].contains(status)), "{answers:?}");
    let files = descriptors(&server);
    let databases = files.iter().filter(|path| path.ends_with(&format!("tenant_database_{}.sqlite", tenant.id))).count();
    // One writer and the readers of one pool (four, by default), not of a hundred.
    assert!(databases <= 5, "{files:?}");
}

/// `TENANTRY_TENANTS=1000` opens as many as the report speaks of.
#[test]
fn many_open_tenants_cost_descriptors_and_no_threads() {
    let count: usize = std::env::var("TENANTRY_TENANTS").map_or(100, |count| count.parse().expect("TENANTRY_TENANTS is a number"));
    let server = Server::start();
    let threads = || std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().count();
    let use_all = |tenant: &TenantClient| {
        tenant.script("CREATE TABLE IF NOT EXISTS t (x)");
        tenant.rows("SELECT count(*) FROM t", json!([]));
        tenant.call("PUT", "/v1/cache/k").bytes("text/plain", "v").send().succeeds();
        tenant.post("/v1/queues/q/jobs", json!({ "payload": 1 })).expect(201);
    };
    use_all(&server.tenant("first"));
    let before = threads();
    let mut tenants = Vec::new();
    while tenants.len() < count {
        let items: Vec<_> = (0..100).map(|_| json!({ "slug": unique("many"), "name": "Many" })).collect();
        let answer = server.admin().post("/admin/v1/tenants:batch", json!({ "tenants": items })).expect(200).json();
        tenants.extend(answer["results"].as_array().unwrap().iter().map(|result| server.tenant_of(result)));
    }
    at_once(8, |part| tenants.iter().skip(part).step_by(8).for_each(use_all));
    let after = threads();
    let all = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let files = descriptors(&server).len();
    println!("{count} tenants open: {all} descriptors ({files} of tenants' files), {after} threads ({before} with one tenant)");
    assert!(after <= before + 8, "{before} threads with one tenant, {after} with {count}");
    // Three files, each with a writer (3) and a few readers (2).
    assert!(files <= count * 3 * (3 + 4 * 2), "{files} descriptors");
    tenants.iter().take(20).for_each(use_all);
}

#[test]
fn a_process_that_may_have_few_descriptors_keeps_within_them() {
    let server = Server::with(|c| {
        c.descriptor_limit(700);
    });
    let items: Vec<_> = (0..120).map(|_| json!({ "slug": unique("few"), "name": "Few" })).collect();
    let answer = server.admin().post("/admin/v1/tenants:batch", json!({ "tenants": items })).expect(200).json();
    let tenants: Vec<_> = answer["results"].as_array().unwrap().iter().map(|result| server.tenant_of(result)).collect();
    at_once(6, |part| {
        for tenant in tenants.iter().skip(part).step_by(6) {
            tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
            assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[1]]));
            tenant.post("/v1/queues/q/jobs", json!({ "payload": 1 })).expect(201);
        }
    });
    let all = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    println!("120 tenants under a limit of 700 descriptors: {all} held");
    assert!(!server.log().contains("Too many open files"), "{}", server.log());
}

#[test]
fn what_a_request_leaves_on_a_connection_the_next_does_not_see() {
    let server = Server::shared();
    let tenant = server.tenant("clean");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    for round in 0..8 {
        // Allowed or not: whatever happens, nothing of it stays.
        tenant.sql("CREATE TEMP TABLE left_over (x)", json!([]));
        tenant.sql("CREATE TEMP TRIGGER spy AFTER INSERT ON t BEGIN SELECT 1; END", json!([]));
        tenant.sql("CREATE TEMP VIEW t AS SELECT 'not yours' AS x", json!([]));
        tenant.sql("BEGIN", json!([]));
        tenant.sql("SAVEPOINT s", json!([]));
        tenant.post("/v1/sql", json!({ "script": "BEGIN; INSERT INTO t VALUES (2);" }));
        tenant.post("/v1/sql", json!({ "transaction": "none", "statements": [{ "sql": "BEGIN" }, { "sql": "INSERT INTO t VALUES (3)" }] }));
        for pragma in ["foreign_keys = OFF", "query_only = 1", "case_sensitive_like = 1", "recursive_triggers = 1", "busy_timeout = 1"] {
            tenant.sql(&format!("PRAGMA {pragma}"), json!([]));
        }
        for _ in 0..4 {
            let seen = tenant.rows("SELECT (SELECT count(*) FROM sqlite_temp_schema), 'a' LIKE 'A', x FROM t WHERE x = 1", json!([]));
            assert_eq!(seen, json!([[0, 1, 1]]), "round {round}");
            tenant.sql("UPDATE t SET x = x WHERE x = 1", json!([])).expect(200);
        }
    }
    let stray = tenant.rows("SELECT count(*) FROM t WHERE x <> 1", json!([]))[0][0].as_i64().unwrap();
    assert!(stray == 0 || stray % 8 == 0, "a transaction left open was half kept: {stray}");
}

#[test]
fn a_client_that_goes_away_in_the_middle_holds_nobody_up() {
    use std::io::Write;
    let server = Server::with(|c| {
        // What goes on for those who have gone is not over before the test is.
        c.set("plans.default.statement_ms", 3_600_000);
    });
    let tenant = server.tenant("rude");
    tenant.script("CREATE TABLE t (x)");
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
    for sql in [format!("INSERT INTO t {endless} SELECT x FROM c WHERE x < 0"), format!("{endless} SELECT count(*) FROM c")] {
        let body = json!({ "statements": [{ "sql": sql }] }).to_string();
        for _ in 0..3 {
            let mut stream = server.connect();
            let head = format!(
                "POST /v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                tenant.token,
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
            server.until_at_work();
            drop(stream);
        }
        assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]));
        tenant.sql("DELETE FROM t", json!([])).expect(200);
    }
}

#[test]
fn a_long_reader_does_not_let_the_log_grow() {
    let bound = 2 << 20;
    let server = Server::with(|c| {
        c.set("sqlite.wal_max_bytes", bound).set("sqlite.checkpoint_bytes", 256 << 10).set("plans.default.statement_ms", 3_600_000);
    });
    let tenant = server.tenant("log");
    tenant.script("CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB); INSERT INTO t VALUES (1, zeroblob(100000));");
    let wal = server.file(&tenant.id, "database").with_extension("sqlite-wal");
    let length = || std::fs::metadata(&wal).map_or(0, |file| file.len());
    let most = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c, t";
            tenant.sql(sql, json!([]))
        });
        server.until_at_work();
        let mut most = 0;
        while !reader.is_finished() {
            tenant.sql("UPDATE t SET x = randomblob(100000)", json!([])).expect(200);
            most = most.max(length());
        }
        let answer = reader.join().unwrap();
        assert!([422, 503].contains(&answer.status), "the reader held the log back and was stopped: {} {}", answer.status, answer.text());
        most
    });
    println!("the log beside a long reader: at most {most} bytes, bound {bound}");
    // One more commit may be under way when the bound is seen.
    assert!(most < 2 * bound, "{most} bytes");
    eventually("the log is cut", || {
        tenant.sql("UPDATE t SET x = randomblob(10)", json!([])).expect(200);
        (length() <= bound).then_some(())
    });
}

#[test]
fn an_idle_files_log_is_checkpointed() {
    let server = Server::with(|c| {
        c.set("sqlite.idle_checkpoint_ms", 200);
    });
    let tenant = server.tenant("log");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(200000));");
    let file = server.file(&tenant.id, "database");
    eventually("the database file has the rows", || (std::fs::metadata(&file).unwrap().len() > 200_000).then_some(()));
}

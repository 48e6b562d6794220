//! The outbox: a row inserted together with the tenant's own becomes one job, also when the server dies; one that is rolled
//! back becomes none.

use super::wait::wait;
use super::*;
use crate::support::shim::*;

fn shop(server: &Server) -> TenantClient {
    shop_of(server.tenant("queue"))
}

fn shop_of(tenant: TenantClient) -> TenantClient {
    tenant.script(
        "CREATE TABLE orders (n INTEGER PRIMARY KEY);
         CREATE TRIGGER ordered AFTER INSERT ON orders BEGIN
             INSERT INTO _outbox (queue, payload, options) VALUES ('mail', json_object('n', NEW.n), '{\"priority\":3}');
         END;",
    );
    tenant
}

/// Claims, waiting, until so many jobs of the queue are done; their payloads.
fn drain(tenant: &TenantClient, queue: &str, jobs: usize) -> Vec<Value> {
    let mut done = Vec::new();
    while done.len() < jobs {
        let came = wait(tenant, queue, 20, 60);
        assert!(!came.is_empty(), "{} of {jobs} jobs came", done.len());
        for job in came {
            ack(tenant, &job).expect(200);
            done.push(job["payload"].clone());
        }
    }
    done
}

fn rows(tenant: &TenantClient, sql: &str) -> Value {
    tenant.rows(sql, json!([]))
}

/// Until nothing waits to be relayed or swept.
fn until_relayed(tenant: &TenantClient) {
    eventually("the outbox is empty", || {
        (rows(tenant, "SELECT count(*) FROM _outbox WHERE refused IS NULL") == json!([[0]])).then_some(())
    });
}

#[test]
fn what_is_inserted_with_a_transaction_comes_as_a_job_and_what_is_rolled_back_does_not() {
    let server = Server::shared();
    let tenant = shop(&server);
    let insert = "INSERT INTO _outbox (queue, payload) VALUES ('mail', ?1)";
    tenant.post("/v1/sql", json!({ "statements": [{ "sql": insert, "params": ["{\"by\":\"sql\"}"] }] })).expect(200);
    let failing = json!({ "statements": [{ "sql": insert, "params": ["1"] }, { "sql": "INSERT INTO nowhere VALUES (1)" }] });
    tenant.post("/v1/sql", failing).refused(400, "sql_error");
    assert_eq!(drain(&tenant, "mail", 1), [json!({ "by": "sql" })]);

    tenant.post("/rest/v1/orders", json!({ "n": 1 })).expect(201);
    assert_eq!(drain(&tenant, "mail", 1), [json!({ "n": 1 })], "a row over HTTP, by a trigger");
    let hrana = |sqls: &[&str]| {
        let requests: Vec<_> = sqls.iter().map(|sql| json!({ "type": "execute", "stmt": { "sql": sql } })).collect();
        tenant.post("/v2/pipeline", json!({ "requests": requests })).expect(200);
    };
    hrana(&["BEGIN", "INSERT INTO orders VALUES (2)", "ROLLBACK"]);
    hrana(&["BEGIN", "INSERT INTO orders VALUES (3)", "COMMIT"]);
    assert_eq!(drain(&tenant, "mail", 1), [json!({ "n": 3 })], "a transaction of its own");
    until_relayed(&tenant);
    assert!(claim(&tenant, "mail", 9, 60).is_empty());
}

#[test]
fn a_row_is_a_job_with_all_its_options_in_the_order_of_their_insertion() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    tenant.script(
        "INSERT INTO _outbox (queue, payload, options) VALUES
            ('q', '1', NULL), ('q', 2.5, '{}'), ('q', NULL, '{\"priority\":9,\"max_attempts\":1}'),
            ('q', x'00ff', '{\"payload_type\":\"a/b\"}'), ('later', '1', '{\"delay_s\":600}')",
    );
    assert_eq!(drain(&tenant, "q", 4), [json!(null), json!(1), json!(2.5), json!({ "base64": "AP8=" })]);
    eventually("the last one is there", || {
        let jobs = tenant.get("/v1/queues/later/jobs?state=scheduled").expect(200).json()["jobs"].clone();
        (jobs.as_array().unwrap().len() == 1).then_some(())
    });
}

#[test]
fn what_cannot_be_a_job_is_set_aside_with_its_reason_and_holds_nobody_up() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let long = "x".repeat(600_000);
    let bad = [
        ("no such name", json!("1"), json!(null), "a queue's name"),
        ("q", json!("not json"), json!(null), "JSON"),
        ("q", json!(format!("\"{long}\"")), json!(null), "bytes"),
        ("q", json!("1"), json!("{\"priority\":9000000}"), "priority"),
        ("q", json!("1"), json!("{\"colour\":1}"), "colour"),
        ("q", json!("1"), json!("{\"unique\":{\"key\":\"k\"}}"), "unique key"),
    ];
    enqueue(&tenant, "q", json!({ "payload": "holder", "unique": { "key": "k" } }));
    let row = |queue: &str, payload: &Value, options: &Value| {
        let sql = "INSERT INTO _outbox (queue, payload, options) VALUES (?1, ?2, ?3)";
        json!({ "sql": sql, "params": [queue, payload, options] })
    };
    let mut statements: Vec<_> = bad.iter().map(|(queue, payload, options, _)| row(queue, payload, options)).collect();
    statements.push(row("q", &json!("\"good\""), &json!(null)));
    tenant.post("/v1/sql", json!({ "statements": statements })).expect(200);
    until_relayed(&tenant);
    assert_eq!(drain(&tenant, "q", 2), [json!("holder"), json!("good")]);
    let refused = rows(&tenant, "SELECT refused, queue FROM _outbox ORDER BY id");
    let refused = refused.as_array().unwrap();
    assert_eq!(refused.len(), bad.len());
    for (row, (queue, .., named)) in refused.iter().zip(&bad) {
        assert!(text(&row[0]).contains(named) && row[1] == *queue, "{row} should name {named}");
    }
    // Put right and sent again.
    tenant.script("INSERT INTO _outbox (queue, payload) SELECT 'q', '\"again\"' FROM _outbox WHERE queue = 'no such name'");
    assert_eq!(drain(&tenant, "q", 1), [json!("again")]);
}

#[test]
fn nobody_touches_what_is_behind_the_outbox() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    for sql in [
        "SELECT * FROM _tenantry_outbox",
        "INSERT INTO _tenantry_outbox (id, created_at) VALUES (9, 0)",
        "UPDATE _tenantry_outbox SET id = 9",
        "DROP VIEW _outbox",
        "CREATE TRIGGER t INSTEAD OF DELETE ON _outbox BEGIN SELECT 1; END",
        "DELETE FROM _tenantry_job_done",
    ] {
        tenant.post("/v1/sql", json!({ "statements": [{ "sql": sql }] })).refused(403, "sql_denied");
    }
    for sql in ["DELETE FROM _outbox", "UPDATE _outbox SET queue = 'x'"] {
        tenant.post("/v1/sql", json!({ "statements": [{ "sql": sql }] })).refused(400, "sql_error");
    }
    let reader = server.scoped(&tenant, &["sql:read"]);
    reader.post("/v1/sql", json!({ "statements": [{ "sql": "INSERT INTO _outbox (queue) VALUES ('q')" }] })).refused(403, "forbidden");
}

#[test]
fn a_full_queue_leaves_the_outbox_waiting_and_takes_it_when_there_is_room() {
    let shim = Shim::new();
    let mut server = Server::with(|s| {
        s.set("plans.tiny.queue_bytes", 1 << 20);
        shim.under(s);
    });
    let tenant = server.tenant_on("tiny", "queue");
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90)
                INSERT INTO _outbox (queue, payload) SELECT 'q', json_quote(i || printf('%.*c', 16000, 'x')) FROM n";
    tenant.script(many);
    let waiting = || rows(&tenant, "SELECT count(*) FROM _outbox")[0][0].as_i64().unwrap();
    let left = eventually("the queue is full", || {
        let left = Some(waiting()).filter(|left| *left < 90)?;
        (tenant.post("/v1/queues/other/jobs", json!({ "payload": "x".repeat(16_000) })).status == 507).then_some(left)
    });
    assert!(left > 0);
    server.stop();
    server.start_again();
    let mut came = drain(&tenant, "q", 90 - left as usize);
    // The moment at which the server looks again comes, though nobody opens the database.
    shim.set_clock_ahead(120);
    came.extend(drain(&tenant, "q", left as usize));
    let numbers: Vec<_> = came.iter().map(|payload| text(payload).trim_end_matches('x').parse::<i64>().unwrap()).collect();
    assert_eq!(numbers, (1..=90).collect::<Vec<_>>());
    until_relayed(&tenant);
}

#[test]
fn whom_the_relay_gave_up_it_finds_again_though_nobody_sends_sql() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let (suspended, left) = (shop(&server), shop(&server));
    shim.set(&Rule { times: u64::MAX, ..Rule::new(WRITE | SYNC, "*/tenant_queue_*.sqlite*", EIO) });
    for tenant in [&suspended, &left] {
        let hits = shim.hits();
        tenant.script("INSERT INTO orders VALUES (1)");
        eventually("the queue fails", || (shim.hits() > hits).then_some(()));
    }
    let path = format!("/admin/v1/tenants/{}", suspended.id);
    server.admin().patch(&path, json!({ "state": "suspended" })).expect(200);
    shim.clear();
    // A clean end empties the logs, by which a start finds what is left.
    server.stop();
    server.start_again();
    let is_there = |tenant: &TenantClient| (tenant.get("/v1/queues/mail").json()["jobs"]["ready"] == json!(1)).then_some(());
    eventually("the job of who was left", || is_there(&left));
    server.admin().patch(&path, json!({ "state": "active" })).expect(200);
    eventually("the job of who was suspended", || is_there(&suspended));
    for tenant in [&suspended, &left] {
        until_relayed(tenant);
        assert_eq!(drain(tenant, "mail", 1), [json!({ "n": 1 })]);
    }
}

#[test]
fn refused_rows_in_a_full_database_are_kept_and_hold_nobody_up() {
    let server = Server::with(|s| {
        s.set("plans.tiny.database_bytes", 1 << 20);
    });
    let tenant = server.tenant_on("tiny", "queue");
    tenant.script("CREATE TABLE filler (x)");
    let statement = |sql: &str| json!({ "sql": sql });
    let put = |bytes: usize| {
        // In one transaction with the rows: when they are relayed, it is full.
        let filler = format!("INSERT INTO filler VALUES (zeroblob({bytes}))");
        let bad = "INSERT INTO _outbox (queue, payload) VALUES ('no such name', json_quote(printf('%.*c', 200000, 'x')))";
        let good = "INSERT INTO _outbox (queue, payload) VALUES ('q', '1')";
        tenant.post("/v1/sql", json!({ "statements": [statement(&filler), statement(bad), statement(good)] })).status
    };
    let filled = (100..900).rev().step_by(25).map(|kib| put(kib << 10)).find(|status| *status != 507);
    assert_eq!(filled, Some(200));
    assert_eq!(drain(&tenant, "q", 1), [json!(1)]);
    until_relayed(&tenant);
    assert_eq!(rows(&tenant, "SELECT length(payload) FROM _outbox WHERE refused IS NOT NULL"), json!([[200_002]]));
    // The next one comes too.
    tenant.script("INSERT INTO _outbox (queue, payload) VALUES ('q', '2')");
    assert_eq!(drain(&tenant, "q", 1), [json!(2)]);
}

#[test]
fn killed_at_any_call_each_committed_row_becomes_one_job_and_no_other_does() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let tenant = shop(&server);
    let (mut kills, mut at, mut unanswered) = (0, 0, 0);
    for nth in 1.. {
        at += 1;
        shim.set(&Rule { nth, ..Rule::new(ALL, format!("*/tenant_*_{}.sqlite*", tenant.id), KILL) });
        let body = json!({ "statements": [{ "sql": "INSERT INTO orders VALUES (?1)", "params": [at] }] });
        let answered = tenant.call("POST", "/v1/sql").json(&body).try_send().is_ok_and(|answer| answer.status == 200);
        unanswered += usize::from(!answered);
        // The row is relayed and swept, or the server dies.
        let relayed = || {
            let left = json!({ "statements": [{ "sql": "SELECT count(*) FROM _outbox" }] });
            match tenant.call("POST", "/v1/sql").json(&left).try_send() {
                Ok(answer) => (answer.json()["results"][0]["rows"] == json!([[0]])).then_some(false),
                Err(_) => Some(true),
            }
        };
        let gone = !answered || eventually("it is relayed or the server dies", relayed);
        let (_, hits) = shim.clear();
        assert!(hits > 0 || !gone, "call {nth}: the server is gone, and was not killed");
        if hits == 0 {
            break;
        }
        kills += 1;
        server.ended();
        server.start_again();
        if nth % 2 == 0 {
            // Nobody touches the database: the relay finds by itself what is left.
            let answered = at - unanswered as i64;
            let ready = || tenant.get("/v1/queues/mail").json()["jobs"]["ready"].as_i64().unwrap_or(0);
            eventually("what was acknowledged has come", || (ready() >= answered).then_some(()));
        }
        until_relayed(&tenant);
    }
    let committed = rows(&tenant, "SELECT n FROM orders ORDER BY n");
    let committed: Vec<_> = committed.as_array().unwrap().iter().map(|row| row[0].clone()).collect();
    let mut came: Vec<_> = drain(&tenant, "mail", committed.len()).iter().map(|payload| payload["n"].clone()).collect();
    assert!(claim(&tenant, "mail", 9, 60).is_empty(), "none came twice");
    came.sort_by_key(|n| n.as_i64());
    assert_eq!(came, committed);
    println!("{kills} kills over the calls of a commit, its relay and its sweep: {} rows committed, {} jobs", committed.len(), came.len());
    assert!(kills >= 6, "the row's commit, the job's and the sweep's are two calls each: {kills}");
    server.stop();
    crate::support::check_files(server.dir());
}

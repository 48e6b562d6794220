//! Writes behind the cache that fail, or beside which something fails: each is made or dead with its reason, and no key goes on
//! holding what is older than that.

use super::*;
use crate::queue::webhook::Target;

/// Makes the table take what it refused.
const LENIENT: &str = "DROP TABLE log; CREATE TABLE log (n INTEGER PRIMARY KEY, k TEXT, v INTEGER)";

fn dead(tenant: &TenantClient) -> Value {
    eventually("it is dead", || jobs(tenant, "dead").pop())
}

fn redrive(tenant: &TenantClient, body: Value) -> Value {
    tenant.post("/v1/queues/_behind/redrive", body).expect(200).json()
}

#[test]
fn requests_to_slow_webhooks_hold_no_write_up() {
    let server = Server::with(|s| {
        s.set("queue.private_targets", true).set("queue.deliveries", 1).set("queue.deliveries_per_tenant", 1);
    });
    let (hooked, other, target) = (tenant(&server), tenant(&server), Target::start());
    target.answers(&["nothing"; 9]);
    hooked.put("/v1/queues/q/webhook", json!({ "url": target.url, "timeout_s": 60 })).expect(200);
    let enqueue = || hooked.post("/v1/queues/q/jobs", json!({ "payload": 1 })).expect(201);
    (0..3).for_each(|_| drop(enqueue()));
    target.gets(1);
    for tenant in [&hooked, &other] {
        for value in 1..=3 {
            write(tenant, "k", value).expect(202);
            until_written(tenant, "k", &(1..=value).collect::<Vec<_>>());
        }
    }
    assert_eq!(target.posted().len(), 1, "the request is still under way");
}

#[test]
fn a_redriven_write_is_what_its_key_holds_before_it_is_made() {
    let (_server, tenant) = crate::cache::through::slow();
    tenant.script(SCHEMA);
    for by_id in [false, true] {
        tenant.script(&format!("DROP TABLE log; {SCHEMA}"));
        write(&tenant, "k", -1).expect(202);
        let id = dead(&tenant)["id"].clone();
        tenant.script(LENIENT);
        put(&tenant, "k", b"older");
        let baton = crate::cache::remember::pipeline(&tenant, &Value::Null, &["BEGIN IMMEDIATE"]);
        let body = if by_id { json!({ "ids": [id] }) } else { json!({}) };
        assert_eq!(redrive(&tenant, body), json!({ "jobs": 1, "more": false }));
        let got = tenant.get(&path("k")).expect(200);
        assert_eq!((got.text().as_str(), got.header("cache-status")), ("-1", Some("tenantry; hit; detail=behind")), "by id: {by_id}");
        crate::cache::remember::pipeline(&tenant, &baton, &["COMMIT"]);
        until_written(&tenant, "k", &[-1]);
    }
}

#[test]
fn dead_writes_are_redriven_in_steps_as_many_as_are_asked_for() {
    let server = Server::shared();
    let tenant = tenant(&server);
    (0..20).for_each(|n| drop(write(&tenant, &format!("k{n}"), -1).expect(202)));
    eventually("all are dead", || (jobs(&tenant, "dead").len() == 20).then_some(()));
    tenant.script(LENIENT);
    assert_eq!(redrive(&tenant, json!({ "max": 18 })), json!({ "jobs": 18, "more": true }));
    assert_eq!(redrive(&tenant, json!({})), json!({ "jobs": 2, "more": false }));
    (0..20).for_each(|n| until_written(&tenant, &format!("k{n}"), &[-1]));
}

#[test]
fn a_redriven_write_is_tried_as_often_as_it_was_given_tries() {
    let shim = Shim::new();
    let server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    write(&tenant, "k", -1).expect(202);
    assert!(dead(&tenant)["error"].as_str().unwrap().contains("CHECK"));
    tenant.script(LENIENT);
    shim.set(&Rule { times: u64::MAX, ..Rule::new(WRITE, format!("*/tenant_database_{}.sqlite-wal", tenant.id), EIO) });
    put(&tenant, "k", b"older");
    assert_eq!(redrive(&tenant, json!({ "attempts": 1 }))["jobs"], 1);
    let job = dead(&tenant);
    assert!(!job["error"].as_str().unwrap().contains("CHECK") && job["attempt"] == 2, "{job}");
    shim.clear();
    assert!(!has(&tenant, "k"));
}

#[test]
fn what_cannot_be_read_is_dead_and_its_entry_is_gone_where_it_says_whose_it_is() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    for key in ["nameless", "named"] {
        write_later(&tenant, key, 1).expect(202);
    }
    server.stop();
    let file = rusqlite::Connection::open(server.file(&tenant.id, "queue")).unwrap();
    let spoil = |to: &str, key: &str| {
        let update = format!("UPDATE job_bodies SET payload = CAST({to} AS BLOB) WHERE CAST(payload AS TEXT) LIKE '%\"{key}\"%'");
        assert_eq!(file.execute(&update, []).unwrap(), 1);
    };
    spoil("'{}'", "nameless");
    spoil("json_set(CAST(payload AS TEXT), '$.entry', json('{}'))", "named");
    drop(file);
    server.start_again();
    shim.set_clock_ahead(3_700);
    eventually("both are dead", || (jobs(&tenant, "dead").len() == 2).then_some(()));
    assert!(!has(&tenant, "named"));
    assert!(log(&tenant, "named").is_empty() && log(&tenant, "nameless").is_empty());
}

#[test]
fn a_write_is_not_done_with_while_nobody_can_say_what_its_key_holds() {
    let shim = Shim::new();
    let mut server = Server::with(|s| {
        s.set("cache.memory_bytes", 0);
        shim.under(s);
    });
    let tenant = tenant(&server);
    write_later(&tenant, "k", 1).expect(202);
    put(&tenant, "k", b"older");
    server.stop();
    server.start_again();
    // The file can neither be opened nor removed.
    let cache = format!("*/tenant_cache_{}.sqlite*", tenant.id);
    shim.set(&Rule { times: u64::MAX, ..Rule::new(OPEN | UNLINK, cache, EIO) });
    shim.set_clock_ahead(3_700);
    eventually("it is written", || (log(&tenant, "k") == [1]).then_some(()));
    eventually("nobody is at it", || jobs(&tenant, "leased").is_empty().then_some(()));
    assert_eq!((jobs(&tenant, "done").len(), jobs(&tenant, "scheduled").len()), (0, 1));
    server.kill9();
    shim.clear();
    server.start_again();
    shim.set_clock_ahead(4_800);
    until_written(&tenant, "k", &[1]);
    assert!(!has(&tenant, "k"));
}

#[test]
fn a_write_that_was_claimed_is_made_though_what_else_is_due_cannot_be_asked() {
    let mut server = Server::start();
    let tenant = tenant(&server);
    write(&tenant, "k", 1).expect(202);
    until_written(&tenant, "k", &[1]);
    server.stop();
    // From the claim on there is a webhook that cannot be read.
    let harm = "CREATE TRIGGER harm AFTER UPDATE ON jobs WHEN new.state = 4 BEGIN
         INSERT INTO queues (queue, name, created_at) VALUES (99, 'no name of a queue', 0);
         INSERT INTO webhooks (queue, url, secret, timeout_ms, concurrency, created_at, updated_at) VALUES (99, '', x'', 1, 1, 0, 0);
         END";
    rusqlite::Connection::open(server.file(&tenant.id, "queue")).unwrap().execute_batch(harm).unwrap();
    server.start_again();
    let tenant = server.known(&tenant);
    write(&tenant, "k", 2).expect(202);
    until_written(&tenant, "k", &[1, 2]);
    assert!(server.log().contains("what else is due could not be asked"));
}

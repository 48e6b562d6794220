//! Writing behind the cache: what was acknowledged is what the key holds from then on, and in the end the database has it,
//! once and in order.

mod checker;
mod failing;

use super::{has, path, put};
use crate::support::shim::*;
use crate::support::{Answer, Server, TenantClient, Value, eventually, json};

const SCHEMA: &str = "CREATE TABLE log (n INTEGER PRIMARY KEY, k TEXT, v INTEGER CHECK (v >= 0))";

fn tenant(server: &Server) -> TenantClient {
    let tenant = server.tenant("behind");
    tenant.script(SCHEMA);
    tenant
}

fn body(key: &str, value: i64) -> Value {
    let statements = json!([{ "sql": "INSERT INTO log (k, v) VALUES (?1, ?2)", "params": [key, value] }]);
    json!({ "statements": statements, "entry": { "text": value.to_string() } })
}

fn write(tenant: &TenantClient, key: &str, value: i64) -> Answer {
    tenant.put(&format!("{}/behind", path(key)), body(key, value))
}

/// In an hour.
fn write_later(tenant: &TenantClient, key: &str, value: i64) -> Answer {
    let mut body = body(key, value);
    body["delay_s"] = json!(3_600);
    tenant.put(&format!("{}/behind", path(key)), body)
}

fn log(tenant: &TenantClient, key: &str) -> Vec<i64> {
    let rows = tenant.rows("SELECT v FROM log WHERE k = ?1 ORDER BY n", json!([key]));
    rows.as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect()
}

fn jobs(tenant: &TenantClient, state: &str) -> Vec<Value> {
    tenant.get(&format!("/v1/queues/_behind/jobs?state={state}")).expect(200).json()["jobs"].as_array().unwrap().clone()
}

#[track_caller]
fn until_written(tenant: &TenantClient, key: &str, values: &[i64]) {
    eventually("it is written", || (log(tenant, key) == values).then_some(()));
    eventually("its job is done", || {
        let counts = tenant.get("/v1/queues/_behind").expect(200).json()["jobs"].clone();
        ["waiting", "ready", "scheduled", "leased"].iter().all(|state| counts[state] == 0).then_some(())
    });
}

#[test]
fn what_is_acknowledged_is_in_the_cache_at_once_and_in_the_database_soon() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let answer = write(&tenant, "k", 1).expect(202);
    assert_eq!((answer.json()["queue"].as_str(), answer.json()["state"].as_str()), (Some("_behind"), Some("ready")));
    let got = tenant.get(&path("k")).expect(200);
    assert_eq!(got.text(), "1");
    until_written(&tenant, "k", &[1]);
    let after = tenant.get(&path("k")).expect(200);
    assert_eq!((after.text(), after.header("etag")), ("1".to_owned(), answer.header("etag")), "it stays, as it is what was written");
    for n in 0..30 {
        write(&tenant, &format!("many-{n}"), n).expect(202);
    }
    for n in 0..30 {
        until_written(&tenant, &format!("many-{n}"), &[n]);
    }
}

#[test]
fn while_one_waits_a_newer_one_takes_its_place_at_its_time() {
    let shim = Shim::new();
    let server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    let first = write_later(&tenant, "k", 1).expect(202).json();
    for value in 2..=20 {
        let next = write_later(&tenant, "k", value).expect(202).json();
        assert_eq!(next["run_at"], first["run_at"], "who writes all the time is written all the same");
        assert_ne!(next["id"], first["id"]);
    }
    write_later(&tenant, "other", 7).expect(202);
    assert_eq!((jobs(&tenant, "scheduled").len(), jobs(&tenant, "cancelled").len()), (2, 0), "one for each key, and no history");
    assert_eq!((log(&tenant, "k"), tenant.get(&path("k")).text()), (vec![], "20".to_owned()));
    shim.set_clock_ahead(3_700);
    until_written(&tenant, "k", &[20]);
    until_written(&tenant, "other", &[7]);
}

#[test]
fn who_misses_the_entry_meanwhile_is_answered_with_what_is_to_be_written() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    let kept = |what: &str| {
        let got = tenant.get(&path("k")).expect(200);
        assert_eq!((got.text(), got.header("cache-status")), ("5".to_owned(), Some("tenantry; hit; detail=behind")), "{what}");
        assert_eq!(got.header("content-type"), Some("a/b"));
        let filled = tenant.get(&format!("{}?fill=60", path("k"))).expect(200);
        assert_eq!((filled.text(), filled.header("fill-token")), ("5".to_owned(), None), "{what}");
        assert_eq!(tenant.call("HEAD", &path("k")).send().status, 200, "{what}");
    };
    let mut delayed = body("k", 5);
    delayed["delay_s"] = json!(3_600);
    delayed["entry"]["content_type"] = json!("a/b");
    tenant.put("/v1/cache/k/behind", delayed.clone()).expect(202);
    tenant.delete(&path("k")).expect(204);
    kept("deleted");
    server.restart();
    kept("after a restart");
    server.stop();
    std::fs::remove_file(server.file(&tenant.id, "cache")).unwrap();
    server.start_again();
    kept("without its file");
    let operations = json!({ "operations": [{ "op": "get", "key": "k" }, { "op": "get", "key": "none" }] });
    let results = tenant.post("/v1/cache", operations).expect(200).json()["results"].clone();
    assert_eq!(results, json!([{ "text": "5", "content_type": "a/b", "behind": true }, { "hit": false }]));

    delayed["entry"] = json!({ "absent": true });
    tenant.put("/v1/cache/gone/behind?namespace=n", delayed).expect(202);
    tenant.delete("/v1/cache?all=true").expect(204);
    tenant.get("/v1/cache/gone?namespace=n").expect(204);
    assert!(!has(&tenant, "gone") && !has(&tenant, "none"), "of another key nothing is to be written");
    // Something else under the key is not what the database has in the end.
    put(&tenant, "k", b"else");
    assert_eq!(tenant.get(&path("k")).text(), "else");
    shim.set_clock_ahead(3_700);
    until_written(&tenant, "k", &[5, 5]);
    assert!(!has(&tenant, "k"));
    let free = tenant.get(&format!("{}?fill=60", path("k"))).expect(404);
    assert!(free.header("fill-token").is_some());
}

#[test]
fn one_that_is_being_made_comes_before_the_next_and_only_the_last_of_those_comes() {
    let (_server, tenant) = super::through::slow();
    tenant.script(SCHEMA);
    let baton = super::remember::pipeline(&tenant, &Value::Null, &["BEGIN IMMEDIATE"]);
    write(&tenant, "k", 1).expect(202);
    eventually("it is being made", || (jobs(&tenant, "leased").len() == 1).then_some(()));
    for value in 2..=4 {
        assert_eq!(write(&tenant, "k", value).expect(202).json()["state"], "waiting");
        assert_eq!(tenant.get(&path("k")).expect(200).text(), value.to_string());
    }
    assert_eq!((jobs(&tenant, "leased").len(), jobs(&tenant, "waiting").len()), (1, 1));
    write(&tenant, "other", 9).expect(202);
    super::remember::pipeline(&tenant, &baton, &["COMMIT"]);
    until_written(&tenant, "k", &[1, 4]);
    until_written(&tenant, "other", &[9]);
    let entry = tenant.get(&path("k"));
    assert!(entry.status == 404 || entry.text() == "4");
}

#[test]
fn one_that_was_being_made_at_a_kill_is_made_at_the_next_start() {
    let (mut server, tenant) = super::through::slow();
    tenant.script(SCHEMA);
    super::remember::pipeline(&tenant, &Value::Null, &["BEGIN IMMEDIATE"]);
    write(&tenant, "k", 1).expect(202);
    eventually("it is being made", || (jobs(&tenant, "leased").len() == 1).then_some(()));
    server.kill9();
    server.start_again();
    let tenant = server.known(&tenant);
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "1");
    until_written(&tenant, "k", &[1]);
}

#[test]
fn one_that_fails_is_not_tried_again_when_a_newer_one_waits_for_it() {
    let (_server, tenant) = super::through::slow();
    tenant.script(SCHEMA);
    let baton = super::remember::pipeline(&tenant, &Value::Null, &["BEGIN IMMEDIATE"]);
    write(&tenant, "k", -1).expect(202);
    eventually("it is being made", || (jobs(&tenant, "leased").len() == 1).then_some(()));
    write(&tenant, "k", 2).expect(202);
    super::remember::pipeline(&tenant, &baton, &["COMMIT"]);
    until_written(&tenant, "k", &[2]);
    assert_eq!((jobs(&tenant, "dead").len(), jobs(&tenant, "cancelled").len()), (0, 1));
}

#[test]
fn what_can_never_be_written_is_dead_with_its_reason_and_its_entry_is_gone() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let id = write(&tenant, "k", -1).expect(202).json()["id"].clone();
    let dead = |count: usize| eventually("it is dead", || Some(jobs(&tenant, "dead")).filter(|dead| dead.len() == count));
    let job = dead(1).remove(0);
    assert!(job["id"] == id && job["error"].as_str().unwrap().contains("CHECK"), "{job}");
    assert!(!has(&tenant, "k"));
    assert!(log(&tenant, "k").is_empty());
    let path_of = format!("/v1/jobs/{}", id.as_str().unwrap());
    assert_eq!(tenant.get(&path_of).expect(200).json()["payload"]["key"], "k");

    // Put right, it is made when it is redriven; meanwhile it is what the key holds.
    tenant.script("DROP TABLE log; CREATE TABLE log (n INTEGER PRIMARY KEY, k TEXT, v INTEGER)");
    let redrive = || tenant.post("/v1/queues/_behind/redrive", json!({})).expect(200).json()["jobs"].clone();
    assert_eq!(redrive(), 1);
    until_written(&tenant, "k", &[-1]);

    // A newer one takes a dead one's place: it is not brought back after it.
    tenant.script("DROP TABLE log");
    write(&tenant, "k", 3).expect(202);
    dead(1);
    tenant.script(SCHEMA);
    write(&tenant, "k", 4).expect(202);
    until_written(&tenant, "k", &[4]);
    assert_eq!((redrive(), log(&tenant, "k")), (json!(0), vec![4]));
}

#[test]
fn a_write_through_the_cache_does_not_overtake_one_behind_it() {
    let server = Server::shared();
    let tenant = tenant(&server);
    write_later(&tenant, "k", 1).expect(202);
    tenant.put("/v1/cache/k/through", body("k", 2)).refused(409, "conflict");
    assert_eq!((log(&tenant, "k"), tenant.get(&path("k")).expect(200).text()), (vec![], "1".to_owned()));
    tenant.put("/v1/cache/other/through", body("other", 2)).expect(200);
}

#[test]
fn its_queue_is_the_servers_own() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let id = write_later(&tenant, "k", 1).expect(202).json()["id"].as_str().unwrap().to_owned();
    let queue = "/v1/queues/_behind";
    tenant.post(&format!("{queue}/jobs"), json!({ "payload": 1 })).refused(403, "forbidden");
    tenant.post(&format!("{queue}/claim"), json!({})).refused(403, "forbidden");
    tenant.post("/v1/claim", json!({ "queues": ["a", "_behind"] })).refused(403, "forbidden");
    let then = json!({ "jobs": [{ "payload": 1 }], "then": { "queue": "_behind", "job": { "payload": 1 } } });
    tenant.post("/v1/queues/a/jobs", then).refused(403, "forbidden");
    tenant.patch(queue, json!({ "paused": true })).refused(403, "forbidden");
    tenant.put(&format!("{queue}/webhook"), json!({ "url": "https://example.com/" })).refused(403, "forbidden");
    let schedule = json!({ "cron": "0 * * * *", "job": { "payload": 1 } });
    tenant.put(&format!("{queue}/schedules/s"), schedule).refused(403, "forbidden");
    tenant.post(&format!("/v1/jobs/{id}/cancel"), json!({})).refused(403, "forbidden");
    tenant.script("INSERT INTO _outbox (queue, payload) VALUES ('_behind', '1')");
    eventually("the outbox refuses it", || (tenant.rows("SELECT refused FROM _outbox", json!([]))[0][0].is_string()).then_some(()));

    // Its payload is for who may write what it says.
    let looker = server.scoped(&tenant, &["queue:consume", "queue:produce", "sql:read"]);
    looker.get(&format!("/v1/jobs/{id}")).refused(403, "forbidden");
    looker.post(&format!("{queue}/redrive"), json!({})).refused(403, "forbidden");
    looker.post(&format!("{queue}/purge"), json!({ "state": "dead" })).refused(403, "forbidden");
    assert_eq!(looker.get(&format!("{queue}/jobs?state=scheduled")).expect(200).json()["jobs"][0]["id"], *id);
    tenant.get(&format!("/v1/jobs/{id}")).expect(200);
    assert_eq!(tenant.get(queue).expect(200).json()["jobs"]["scheduled"], 1);
}

#[test]
fn it_is_for_tokens_that_may_write_and_cache_and_runs_under_their_scopes() {
    let server = Server::shared();
    let tenant = tenant(&server);
    for scopes in [&["cache"][..], &["sql:write"], &["cache", "sql:read", "queue:produce"]] {
        write(&server.scoped(&tenant, scopes), "k", 1).refused(403, "forbidden");
    }
    let writer = server.scoped(&tenant, &["cache", "sql:write"]);
    write(&writer, "k", 1).expect(202);
    until_written(&tenant, "k", &[1]);
    let mut drops = body("k", 2);
    drops["statements"] = json!([{ "sql": "DROP TABLE log" }]);
    writer.put("/v1/cache/k/behind", drops.clone()).expect(202);
    let dead = eventually("it is dead", || jobs(&tenant, "dead").pop());
    assert!(dead["error"].as_str().unwrap().contains("sql:schema"), "{dead}");
    assert_eq!(log(&tenant, "k"), [1]);

    let refused = |member: &str, value: Value, status: u16, code: &str| {
        let mut wrong = body("kept", 1);
        wrong[member] = value;
        tenant.put("/v1/cache/kept/behind", wrong).refused(status, code);
    };
    put(&tenant, "kept", b"before");
    refused("statements", json!([]), 400, "bad_request");
    refused("entry", json!({}), 400, "bad_request");
    refused("delay_s", json!(-1), 400, "bad_request");
    refused("entry", json!({ "text": "x".repeat(300_000) }), 413, "payload_too_large");
    assert_eq!(tenant.get(&path("kept")).expect(200).text(), "before");
}

#[test]
fn a_repeated_request_adds_nothing_and_brings_no_old_value_back() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let send = |value: i64| tenant.call("PUT", "/v1/cache/k/behind").idempotency_key("one").json(&body("k", value)).send();
    let first = send(1).expect(202).json();
    until_written(&tenant, "k", &[1]);
    write(&tenant, "k", 2).expect(202);
    until_written(&tenant, "k", &[1, 2]);
    let again = send(1).expect(202);
    assert_eq!((again.header("idempotent-replayed"), again.json()["id"].clone()), (Some("true"), first["id"].clone()));
    assert!(!has(&tenant, "k"));
    send(3).refused(409, "conflict");
    until_written(&tenant, "k", &[1, 2]);
}

#[test]
fn it_is_written_also_when_the_tenant_sleeps_and_when_nobody_opens_its_files() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let (suspended, left) = (tenant(&server), tenant(&server));
    write_later(&suspended, "k", 1).expect(202);
    write_later(&left, "k", 1).expect(202);
    let at = format!("/admin/v1/tenants/{}", suspended.id);
    server.admin().patch(&at, json!({ "state": "suspended" })).expect(200);
    server.stop();
    server.start_again();
    shim.set_clock_ahead(3_700);
    // Its cache and its queue are not asked for.
    let written = |tenant: &TenantClient| eventually("it is written", || (log(tenant, "k") == [1]).then_some(()));
    written(&left);
    server.admin().patch(&at, json!({ "state": "active" })).expect(200);
    written(&suspended);
}

//! Writing through the cache: the statements are those of `/v1/sql`, and the entry never holds what was before them.

mod truth;

use super::{has, path, put, put_with};
use crate::support::shim::*;
use crate::support::{Answer, Server, TenantClient, Value, check_files, eventually, json};

fn tenant(server: &Server) -> TenantClient {
    let tenant = server.tenant("through");
    tenant.script("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER CHECK (v >= 0)); INSERT INTO t VALUES ('k', 0)");
    tenant
}

fn body(key: &str, value: i64) -> Value {
    let sql = "INSERT INTO t VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
    json!({ "statements": [{ "sql": sql, "params": [key, value] }], "entry": { "text": value.to_string() } })
}

fn write(tenant: &TenantClient, key: &str, value: i64) -> Answer {
    tenant.put(&format!("{}/through", path(key)), body(key, value))
}

fn stored(tenant: &TenantClient, key: &str) -> i64 {
    tenant.rows("SELECT v FROM t WHERE k = ?1", json!([key]))[0][0].as_i64().unwrap()
}

/// A server on which a transaction may keep the turn to write, and a tenant of it.
pub(super) fn slow() -> (Server, TenantClient) {
    let server = Server::with(|s| {
        s.set("hrana.transaction_idle_ms", 60_000).set("hrana.transaction_idle_contended_ms", 60_000);
        s.set("hrana.turn_wait_ms", 60_000);
    });
    let tenant = tenant(&server);
    (server, tenant)
}

/// Runs `meanwhile` after a write through the cache has begun and before its statements can; what it answered.
fn during(tenant: &TenantClient, key: &str, value: i64, meanwhile: impl FnOnce()) -> Answer {
    put_with(tenant, key, "ttl=600");
    let baton = super::remember::pipeline(tenant, &Value::Null, &["BEGIN IMMEDIATE"]);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(tenant, key, value));
        eventually("the entry is thrown away", || (!has(tenant, key)).then_some(()));
        meanwhile();
        super::remember::pipeline(tenant, &baton, &["COMMIT"]);
        writing.join().unwrap()
    })
}

#[test]
fn the_statements_answer_as_sql_does_and_then_the_entry_is_there() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let answer = write(&tenant, "k", 1).expect(200);
    assert_eq!(answer.json()["results"], json!([{ "columns": [], "rows": [], "rows_affected": 1, "last_insert_rowid": null }]));
    assert_eq!(answer.header("cache-status"), Some("tenantry; fwd=method; stored"));
    let got = tenant.get(&path("k")).expect(200);
    assert_eq!((got.text(), got.header("etag")), ("1".to_owned(), answer.header("etag")));
    assert_eq!(stored(&tenant, "k"), 1);

    let statements = json!([{ "sql": "UPDATE t SET v = 2 RETURNING v" }]);
    let through = |entry: Value| tenant.put("/v1/cache/k/through?namespace=n", json!({ "statements": statements, "entry": entry }));
    let answer = through(json!({ "json": { "n": 1.50 }, "ttl": 60, "tags": ["a"] })).expect(200);
    assert_eq!(answer.json()["results"][0]["rows"], json!([[2]]));
    let got = tenant.get("/v1/cache/k?namespace=n").expect(200);
    assert_eq!((got.header("content-type"), got.text()), (Some("application/json"), r#"{"n":1.5}"#.to_owned()));
    through(json!({ "base64": "AP8=", "content_type": "a/b" })).expect(200);
    assert_eq!(tenant.get("/v1/cache/k?namespace=n").expect(200).body, [0, 255]);
    through(json!({ "absent": true })).expect(200);
    tenant.get("/v1/cache/k?namespace=n").expect(204);
    for refused in [json!({}), json!({ "text": "a", "json": 1 }), json!({ "text": "a", "ttl": 0 }), json!({ "text": "a", "key": "k" })] {
        through(refused).refused(400, "bad_request");
    }
}

#[test]
fn statements_that_fail_change_nothing_and_leave_no_entry() {
    let server = Server::shared();
    let tenant = tenant(&server);
    write(&tenant, "k", 1).expect(200);
    let mut failing = body("k", 2);
    failing["statements"].as_array_mut().unwrap().push(json!({ "sql": "UPDATE t SET v = -1" }));
    let refused = tenant.put("/v1/cache/k/through", failing).refused(409, "constraint_violation");
    assert_eq!(refused["details"]["statement"], 1);
    assert_eq!(stored(&tenant, "k"), 1);
    assert!(!has(&tenant, "k"));
    let fill = tenant.get("/v1/cache/k?fill=60").expect(404);
    assert!(fill.header("fill-token").is_some(), "the key is free again");
    write(&tenant, "k", 3).expect(200);
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "3");
}

#[test]
fn it_is_for_tokens_that_may_write_and_cache_and_runs_under_their_scopes() {
    let server = Server::shared();
    let tenant = tenant(&server);
    put(&tenant, "k", b"before");
    for scopes in [&["cache"][..], &["sql:write"], &["cache", "sql:read"], &["cache", "sql:read", "sql:schema"]] {
        write(&server.scoped(&tenant, scopes), "k", 1).refused(403, "forbidden");
    }
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "before");
    let writer = server.scoped(&tenant, &["cache", "sql:write"]);
    let refused = |sql: &str, status: u16, code: &str| {
        let body = json!({ "statements": [{ "sql": sql }], "entry": { "text": "x" } });
        writer.put("/v1/cache/k/through", body).refused(status, code);
    };
    refused("DROP TABLE t", 403, "forbidden");
    refused("SELECT v FROM t", 403, "forbidden");
    refused("ATTACH 'x' AS y", 403, "sql_denied");
    refused("INSERT INTO _tenantry_job_done VALUES (x'00', 1)", 403, "sql_denied");
    writer
        .put("/v1/cache/k/through", json!({ "statements": [{ "sql": "INSERT INTO t VALUES ('n', 1)" }], "entry": { "text": "1" } }))
        .expect(200);
}

#[test]
fn a_repeated_request_runs_nothing_again_and_brings_no_old_value_back() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let send = |value: i64, key: &str| tenant.call("PUT", "/v1/cache/k/through").idempotency_key(key).json(&body("k", value)).send();
    let first = send(1, "one").expect(200);
    write(&tenant, "k", 2).expect(200);
    let again = send(1, "one").expect(200);
    assert_eq!((again.header("idempotent-replayed"), again.header("etag")), (Some("true"), None));
    assert_eq!(again.body, first.body);
    assert_eq!(stored(&tenant, "k"), 2);
    assert!(!has(&tenant, "k"), "the value of the repeated request may be older than another write");
    send(3, "one").refused(409, "conflict");
}

#[test]
fn whatever_writes_the_key_meanwhile_leaves_no_entry() {
    let (_server, tenant) = slow();
    let ways: [(&str, &dyn Fn()); 5] = [
        ("put", &|| drop(put_with(&tenant, "k", ""))),
        ("delete", &|| drop(tenant.delete(&path("k")).expect(204))),
        ("increment", &|| drop(tenant.post("/v1/cache/k/increment", json!({})).expect(200))),
        ("prefix", &|| drop(tenant.delete("/v1/cache?prefix=k").expect(204))),
        ("everything", &|| drop(tenant.delete("/v1/cache?all=true").expect(204))),
    ];
    for (n, (way, deed)) in (1..).zip(ways) {
        let answer = during(&tenant, "k", n, deed).expect(200);
        assert_eq!(answer.header("cache-status"), Some("tenantry; fwd=method; detail=lease_lost"), "{way}");
        assert_eq!(stored(&tenant, "k"), n, "{way}");
        assert!(!has(&tenant, "k"), "{way}");
    }
    let answer = during(&tenant, "k", 9, || drop(tenant.delete("/v1/cache?tag=other&").expect(204))).expect(200);
    assert!(answer.header("etag").is_some() && tenant.get(&path("k")).text() == "9", "another tag is none of its business");
}

#[test]
fn who_began_to_fill_before_puts_nothing_and_who_asks_meanwhile_waits_for_what_is_written() {
    let (_server, tenant) = slow();
    let fill = |token: &str| tenant.call("PUT", &path("k")).header("Fill-Token", token).bytes("text/plain", "old").send();
    let answer = std::thread::scope(|scope| {
        let mut waiting = None;
        let answer = during(&tenant, "k", 5, || {
            let asked = tenant.get("/v1/cache/k?fill=60").expect(404);
            assert!(asked.header("fill-token").is_none(), "what would be read now is about to be old");
            waiting = Some(scope.spawn(|| tenant.get("/v1/cache/k?fill=60&wait=20")));
        });
        assert_eq!(waiting.unwrap().join().unwrap().expect(200).text(), "5");
        answer
    });
    assert!(answer.header("etag").is_some());

    tenant.delete(&path("k")).expect(204);
    let token = tenant.get("/v1/cache/k?fill=60").expect(404).header("fill-token").unwrap().to_owned();
    write(&tenant, "k", 6).expect(200);
    fill(&token).refused(409, "lease_lost");
    assert_eq!(tenant.get(&path("k")).text(), "6");
}

#[test]
fn when_its_client_hangs_up_it_goes_on_and_nobody_fills_the_entry_before_the_commit() {
    use std::io::Write;
    let (server, tenant) = slow();
    put_with(&tenant, "k", "ttl=600");
    let baton = super::remember::pipeline(&tenant, &Value::Null, &["BEGIN IMMEDIATE"]);
    let text = body("k", 7).to_string();
    let mut stream = server.connect();
    write!(
        stream,
        "PUT /v1/cache/k/through HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        tenant.token,
        text.len()
    )
    .unwrap();
    eventually("the entry is thrown away", || (!has(&tenant, "k")).then_some(()));
    drop(stream);
    for _ in 0..20 {
        assert!(tenant.get("/v1/cache/k?fill=60").expect(404).header("fill-token").is_none());
    }
    super::remember::pipeline(&tenant, &baton, &["COMMIT"]);
    assert_eq!(tenant.get("/v1/cache/k?fill=60&wait=20").expect(200).text(), "7");
    assert_eq!(stored(&tenant, "k"), 7);
}

#[test]
fn killed_at_any_call_the_entry_is_what_the_database_has_or_none() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    let (mut kills, mut committed) = (0, 0);
    for nth in 1.. {
        let value = i64::try_from(nth).unwrap() * 2;
        write(&tenant, "k", value - 1).expect(200);
        shim.set(&Rule { nth, ..Rule::new(ALL, format!("*/tenant_*_{}.sqlite*", tenant.id), KILL) });
        let sent = tenant.call("PUT", "/v1/cache/k/through").json(&body("k", value)).try_send();
        let answered = sent.is_ok_and(|answer| answer.status == 200);
        let (_, hits) = shim.clear();
        if hits > 0 {
            kills += 1;
            server.ended();
            server.start_again();
        }
        let there = stored(&tenant, "k");
        assert!(there == value || !answered && there == value - 1, "{there} after {value}");
        committed += u32::from(hits > 0 && there == value);
        let entry = tenant.get(&path("k"));
        assert!(entry.status == 404 || entry.expect(200).text() == there.to_string(), "call {nth}");
        if hits == 0 {
            assert!(answered);
            break;
        }
    }
    println!("{kills} kills, {committed} of them after the commit");
    assert!(committed > 0 && committed < kills);
    server.stop();
    check_files(server.dir());
}

#[test]
fn a_cache_file_that_fails_costs_the_entry_and_not_the_write() {
    let mut server = Server::start();
    let tenant = tenant(&server);
    write(&tenant, "k", 1).expect(200);
    server.stop();
    std::fs::write(server.file(&tenant.id, "cache"), vec![0x42; 64 << 10]).unwrap();
    server.start_again();
    write(&tenant, "k", 2).expect(200);
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "2", "it was made anew");
    let tiny = server.file(&tenant.id, "cache");
    std::fs::write(&tiny, vec![0x42; 256 << 10]).unwrap();
    write(&tenant, "k", 3).expect(200);
    assert_eq!(stored(&tenant, "k"), 3);
    let entry = tenant.get(&path("k"));
    assert!(entry.status == 404 || entry.text() == "3");

    let full = Server::with(|s| {
        s.set("plans.tiny.cache_bytes", 1 << 20);
        s.set("cache.compress_from_bytes", 0);
    });
    let tenant = full.tenant_on("tiny", "through");
    tenant.script("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)");
    let mut large = body("k", 4);
    // Which no compression makes smaller.
    let noise = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, super::noise(1 << 20));
    large["entry"] = json!({ "base64": noise });
    let answer = tenant.put("/v1/cache/k/through", large).expect(200);
    assert_eq!(answer.header("cache-status"), Some("tenantry; fwd=method; detail=quota_exceeded"));
    assert_eq!(stored(&tenant, "k"), 4);
}

#[test]
fn a_cache_that_takes_no_write_costs_the_entry_and_does_not_answer_with_the_old_one() {
    let shim = Shim::new();
    let server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    write(&tenant, "k", 1).expect(200);
    shim.set(&Rule { times: u64::MAX, ..Rule::new(WRITE, format!("*/tenant_cache_{}.sqlite*", tenant.id), ENOSPC) });
    let answer = write(&tenant, "k", 2).expect(200);
    assert_eq!((answer.header("etag"), answer.header("cache-status")), (None, Some("tenantry; fwd=method; detail=not-stored")));
    assert_eq!((stored(&tenant, "k"), has(&tenant, "k")), (2, false));
    shim.clear();
    eventually("it is stored and found again", || {
        write(&tenant, "k", 3).expect(200);
        has(&tenant, "k").then(|| assert_eq!(tenant.get(&path("k")).text(), "3"))
    });
}

#[test]
fn a_commit_whose_fate_is_unknown_leaves_no_entry() {
    let shim = Shim::new();
    let server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    write(&tenant, "k", 1).expect(200);
    shim.set(&Rule::new(SYNC, format!("*/tenant_database_{}.sqlite-wal", tenant.id), EIO));
    let answer = write(&tenant, "k", 2);
    let (_, hits) = shim.clear();
    assert_eq!(hits, 1);
    answer.refused(500, "unknown");
    assert!(!has(&tenant, "k"));
    let there = stored(&tenant, "k");
    assert!(there == 1 || there == 2);
    write(&tenant, "k", 3).expect(200);
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "3");
}

#[test]
fn a_remembered_answer_is_that_of_the_statements_before_it() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let ask = json!({ "sql": "SELECT v FROM t WHERE k = ?1", "params": ["k"] });
    let set = |value: i64| {
        let mut both = ask.clone();
        both["statements"] = json!([{ "sql": "UPDATE t SET v = ?1", "params": [value] }]);
        both
    };
    let at = "/v1/cache/q/remember";
    for value in [1, 2] {
        let made = tenant.put(at, set(value)).expect(200);
        assert_eq!(made.json()["results"][0]["rows"], json!([[value]]));
        assert_eq!(made.header("cache-status"), Some("tenantry; fwd=miss; stored"));
        let again = tenant.post(at, ask.clone()).expect(200);
        assert!(again.header("cache-status").unwrap().starts_with("tenantry; hit"));
        assert_eq!(again.body, made.body);
    }
    tenant.post(at, set(3)).refused(400, "bad_request");
    tenant.put(at, ask.clone()).refused(400, "bad_request");
    tenant.put(at, set(-1)).refused(409, "constraint_violation");
    let mut wrong = set(4);
    wrong["sql"] = json!("SELECT nope FROM t");
    assert_eq!(tenant.put(at, wrong).refused(400, "sql_error")["details"]["committed"], true);
    assert_eq!(stored(&tenant, "k"), 4);
    let repeated = || tenant.call("PUT", at).idempotency_key("one").json(&set(5)).send().expect(200);
    repeated();
    tenant.put(at, set(6)).expect(200);
    let again = repeated();
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json()["results"][0]["rows"], json!([[6]]), "nothing was written, and the answer is current");
    for scopes in [&["cache", "sql:read"][..], &["cache", "sql:write"], &["sql:read", "sql:write"]] {
        server.scoped(&tenant, scopes).put(at, set(7)).refused(403, "forbidden");
    }
    assert_eq!(stored(&tenant, "k"), 6);
}

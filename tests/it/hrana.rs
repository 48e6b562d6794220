//! Hrana over HTTP, as the libSQL clients speak it; [`socket`] has the WebSocket. The clients themselves run in
//! `tests/clients`.

mod peer;
mod socket;

use crate::support::*;

fn pipeline(tenant: &TenantClient, baton: Value, requests: Value) -> Answer {
    tenant.post("/v3/pipeline", json!({ "baton": baton, "requests": requests }))
}

fn execute(sql: &str) -> Value {
    json!({ "type": "execute", "stmt": { "sql": sql } })
}

/// Runs statements on the stream behind the baton, each of which must do; the next baton.
#[track_caller]
fn run(tenant: &TenantClient, baton: Value, statements: &[&str]) -> Value {
    let answer = pipeline(tenant, baton, statements.iter().map(|sql| execute(sql)).collect()).expect(200).json();
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["type"], "ok", "{answer}");
    }
    assert!(answer["baton"].is_string(), "{answer}");
    answer["baton"].clone()
}

#[test]
fn both_versions_are_there_for_anyone_to_see() {
    let server = Server::shared();
    for path in ["/v2", "/v3"] {
        server.anyone().get(path).expect(200);
    }
    server.anyone().post("/v3/pipeline", json!({ "requests": [] })).refused(401, "unauthenticated");
    server.anyone().get("/").refused(400, "bad_request");
    server.anyone().get("/v3-protobuf").refused(404, "not_found");
}

#[test]
fn a_pipeline_is_answered_in_the_shapes_of_the_specification() {
    let server = Server::shared();
    let tenant = server.tenant("pipeline");
    let args = json!([
        { "type": "null" },
        { "type": "integer", "value": "-9223372036854775808" },
        { "type": "float", "value": 0.5 },
        { "type": "text", "value": "é" },
        { "type": "blob", "base64": "AP8=" },
    ]);
    let requests = json!([
        { "type": "execute", "stmt": { "sql": "SELECT ? AS n, ?, ?, ?, ?", "args": args } },
        execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"),
        { "type": "execute", "stmt": { "sql": "INSERT INTO t (v) VALUES (:v)", "named_args": [{ "name": "v", "value": { "type": "text", "value": "x" } }] } },
        { "type": "execute", "stmt": { "sql": "SELECT v FROM t", "want_rows": false } },
        execute("SELECT nope"),
        { "type": "store_sql", "sql_id": 7, "sql": "SELECT id, v FROM t" },
        { "type": "execute", "stmt": { "sql_id": 7 } },
        { "type": "describe", "sql_id": 7 },
        { "type": "sequence", "sql": "UPDATE t SET v = 'y'; UPDATE t SET v = v || 'z';" },
        { "type": "get_autocommit" },
        { "type": "close" },
    ]);
    for version in ["v2", "v3"] {
        tenant.script("DROP TABLE IF EXISTS t");
        let answer = tenant.post(&format!("/{version}/pipeline"), json!({ "requests": requests })).expect(200).json();
        assert_eq!((&answer["baton"], &answer["base_url"]), (&Value::Null, &Value::Null));
        let results = &answer["results"];
        let ok = |at: usize| {
            assert_eq!(results[at]["type"], "ok", "{}", results[at]);
            &results[at]["response"]
        };
        assert_eq!(ok(0)["result"]["rows"], json!([args]));
        assert_eq!(ok(0)["result"]["cols"][0], json!({ "name": "n", "decltype": null }));
        assert_eq!((&ok(2)["result"]["affected_row_count"], &ok(2)["result"]["last_insert_rowid"]), (&json!(1), &json!("1")));
        assert_eq!((&ok(3)["result"]["rows"], &ok(3)["result"]["cols"][0]["decltype"]), (&json!([]), &json!("TEXT")));
        let error = json!({ "type": "error", "error": { "message": "no such column: nope", "code": "SQLITE_ERROR" } });
        assert_eq!(results[4], error, "and the requests after it were run");
        assert_eq!(ok(6)["result"]["rows"], json!([[{ "type": "integer", "value": "1" }, { "type": "text", "value": "x" }]]));
        assert_eq!(ok(7)["result"]["cols"][1], json!({ "name": "v", "decltype": "TEXT" }));
        assert_eq!(*ok(8), json!({ "type": "sequence" }));
        assert_eq!(*ok(9), json!({ "type": "get_autocommit", "is_autocommit": true }));
        assert_eq!(*ok(10), json!({ "type": "close" }));
        assert_eq!(tenant.rows("SELECT v FROM t", json!([])), json!([["yz"]]));
    }
}

#[test]
fn a_transaction_lives_from_one_request_to_the_next_by_its_baton() {
    let server = Server::shared();
    let tenant = server.tenant("baton");
    tenant.script("CREATE TABLE t (x)");
    let begun = run(&tenant, Value::Null, &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"]);
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]), "others do not see it");
    let inside = run(&tenant, begun.clone(), &["INSERT INTO t VALUES (2)"]);
    let stale = pipeline(&tenant, begun, json!([execute("SELECT 1")])).refused(400, "bad_request");
    let ended = run(&tenant, inside, &["COMMIT"]);
    assert_eq!(tenant.rows("SELECT sum(x) FROM t", json!([])), json!([[3]]));

    // A baton of another tenant's, and of another subject's, looks like one that was used or made up.
    let other = server.tenant("baton");
    let colleague = server.scoped(&tenant, &["sql:read", "sql:write"]);
    for refused in [&other, &colleague].map(|caller| pipeline(caller, ended.clone(), json!([])).refused(400, "bad_request")) {
        assert_eq!(refused, stale);
    }
    assert_eq!(pipeline(&tenant, json!("made up"), json!([])).refused(400, "bad_request"), stale);
    let answer = pipeline(&tenant, ended, json!([{ "type": "close" }])).expect(200).json();
    assert_eq!(answer["baton"], Value::Null);
}

#[test]
fn an_abandoned_transaction_is_rolled_back_and_others_write() {
    let server = Server::shared();
    let tenant = server.tenant("abandoned");
    tenant.script("CREATE TABLE t (x)");
    let abandoned = run(&tenant, Value::Null, &["BEGIN IMMEDIATE", "INSERT INTO t VALUES ('lost')"]);
    tenant.sql("INSERT INTO t VALUES ('kept')", json!([])).expect(200);
    let late = pipeline(&tenant, abandoned, json!([execute("COMMIT")])).expect(200).json();
    assert_eq!(late["results"][0]["type"], "error", "{late}");
    assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([["kept"]]));
}

#[test]
fn the_metrics_tell_how_many_transactions_are_open() {
    let server = Server::start();
    let tenant = server.tenant("counted");
    tenant.script("CREATE TABLE t (x)");
    let told = || {
        let text = server.anyone().get("/metrics").expect(200).text();
        ["begun", "ended"].map(|what| {
            let name = format!("tenantry_sqlite_interactive_transactions_{what}_total ");
            text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {name}in {text}")).parse::<u64>().unwrap()
        })
    };
    let baton = run(&tenant, Value::Null, &["BEGIN", "INSERT INTO t VALUES (1)"]);
    assert_eq!(told(), [1, 0]);
    run(&tenant, baton, &["COMMIT"]);
    eventually("the session is closed", || (told() == [1, 1]).then_some(()));
}

#[test]
fn a_stream_survives_the_closing_of_its_files_and_a_transaction_does_not() {
    let server = Server::with(|c| {
        c.set("plans.other.statement_ms", 9_000);
    });
    let tenant = server.tenant("evicted");
    tenant.script("CREATE TABLE t (x)");
    let path = format!("/admin/v1/tenants/{}", tenant.id);
    let stored = pipeline(&tenant, Value::Null, json!([{ "type": "store_sql", "sql_id": 1, "sql": "SELECT count(*) FROM t" }]));
    let baton = stored.expect(200).json()["baton"].clone();
    let open = run(&tenant, Value::Null, &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"]);
    // Another plan: the files are closed and opened anew.
    server.admin().patch(&path, json!({ "plan": "other" })).succeeds();
    let answer = pipeline(&tenant, baton, json!([{ "type": "execute", "stmt": { "sql_id": 1 } }])).expect(200).json();
    assert_eq!(answer["results"][0]["response"]["result"]["rows"], json!([[{ "type": "integer", "value": "0" }]]), "{answer}");
    let answer = pipeline(&tenant, open, json!([execute("COMMIT")])).expect(200).json();
    assert_eq!(answer["results"][0]["type"], "error", "{answer}");
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]));
}

#[test]
fn a_suspended_tenants_transaction_ends_with_it() {
    let server = Server::shared();
    let tenant = server.tenant("suspended");
    tenant.script("CREATE TABLE t (x)");
    let open = run(&tenant, Value::Null, &["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"]);
    let path = format!("/admin/v1/tenants/{}", tenant.id);
    server.admin().patch(&path, json!({ "state": "suspended" })).succeeds();
    pipeline(&tenant, open.clone(), json!([execute("COMMIT")])).refused(403, "tenant_suspended");
    server.admin().patch(&path, json!({ "state": "active" })).succeeds();
    let late = pipeline(&tenant, open, json!([execute("COMMIT")]));
    assert!(late.status == 400 || late.json()["results"][0]["type"] == "error", "{}", late.text());
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]));
}

#[test]
fn scopes_and_the_sandbox_hold_inside_a_transaction_too() {
    let server = Server::shared();
    let tenant = server.tenant("hrana-scopes");
    tenant.script("CREATE TABLE t (x)");
    let reader = server.scoped(&tenant, &["sql:read"]);
    let code = |caller: &TenantClient, statements: &[&str]| {
        let requests = statements.iter().map(|sql| execute(sql)).chain([json!({ "type": "close" })]).collect();
        let answer = pipeline(caller, Value::Null, requests).expect(200).json();
        answer["results"][statements.len() - 1]["error"]["code"].clone()
    };
    assert_eq!(code(&reader, &["INSERT INTO t VALUES (1)"]), "FORBIDDEN");
    assert_eq!(code(&reader, &["BEGIN", "DELETE FROM t"]), "FORBIDDEN");
    assert_eq!(code(&reader, &["BEGIN", "SELECT * FROM t"]), Value::Null);
    assert_eq!(code(&server.scoped(&tenant, &["cache"]), &["SELECT 1"]), "FORBIDDEN");
    for sql in ["ATTACH 'x' AS x", "PRAGMA journal_mode = DELETE", "DELETE FROM _tenantry_migrations", "VACUUM INTO 'x'"] {
        for statements in [&[sql][..], &["BEGIN IMMEDIATE", sql]] {
            assert_eq!(code(&tenant, statements), "SQL_DENIED", "{statements:?}");
        }
    }
}

#[test]
fn a_cursor_tells_a_batch_line_by_line() {
    let server = Server::shared();
    let tenant = server.tenant("cursor");
    let steps = json!([
        { "stmt": { "sql": "SELECT 1 AS one UNION ALL SELECT 2" } },
        { "stmt": { "sql": "SELECT nope" } },
        { "condition": { "type": "ok", "step": 1 }, "stmt": { "sql": "SELECT 3" } },
        { "condition": { "type": "error", "step": 1 }, "stmt": { "sql": "BEGIN" } },
    ]);
    let answer = tenant.post("/v3/cursor", json!({ "baton": null, "batch": { "steps": steps } })).expect(200);
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |n: &str| json!({ "type": "row", "row": [{ "type": "integer", "value": n }] });
    let end = json!({ "type": "step_end", "affected_row_count": 0, "last_insert_rowid": null });
    let error = json!({ "message": "no such column: nope", "code": "SQLITE_ERROR" });
    assert_eq!(
        lines[1..],
        [
            json!({ "type": "step_begin", "step": 0, "cols": [{ "name": "one", "decltype": null }] }),
            row("1"),
            row("2"),
            end.clone(),
            json!({ "type": "step_error", "step": 1, "error": error }),
            json!({ "type": "step_begin", "step": 3, "cols": [] }),
            end,
        ]
    );
    let answer =
        pipeline(&tenant, lines[0]["baton"].clone(), json!([{ "type": "get_autocommit" }, { "type": "close" }])).expect(200).json();
    assert_eq!(answer["results"][0]["response"]["is_autocommit"], false);
}

#[test]
fn streams_are_bounded_and_expire() {
    let server = Server::with(|c| {
        c.set("hrana.streams_per_tenant", 1).set("hrana.stream_idle_ms", 100);
    });
    let tenant = server.tenant("bounded");
    let baton = run(&tenant, Value::Null, &["SELECT 1"]);
    pipeline(&tenant, Value::Null, json!([])).refused(429, "too_many_requests");
    // As soon as another stream can be opened, the first is over.
    eventually("the stream expires", || (pipeline(&tenant, Value::Null, json!([{ "type": "close" }])).status == 200).then_some(()));
    pipeline(&tenant, baton, json!([])).refused(400, "bad_request");
}

#[test]
fn an_answer_is_within_the_plan_over_a_whole_pipeline() {
    let server = Server::with(|c| {
        c.set("plans.default.result_bytes", 100_000).set("plans.default.statement_ms", 1_000);
    });
    let tenant = server.tenant("large");
    let large = execute("SELECT hex(zeroblob(20000))");
    let answer = pipeline(&tenant, Value::Null, Value::Array(vec![large; 10])).expect(200);
    assert!(answer.body.len() < 200_000, "{} bytes", answer.body.len());
    let answer = answer.json();
    assert_eq!((&answer["results"][0]["type"], &answer["results"][9]["error"]["code"]), (&json!("ok"), &json!("RESULT_TOO_LARGE")));

    let endless = execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n");
    let answer = pipeline(&tenant, Value::Null, Value::Array(vec![endless; 50])).expect(200).json();
    assert_eq!(answer["results"][0]["error"]["code"], "SQLITE_INTERRUPT");
    assert_eq!(answer["results"][49]["error"]["code"], "STATEMENT_TIMEOUT", "the plan's time is for all of them");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let server = Server::shared();
    let tenant = server.tenant("nonsense");
    for (body, words) in [
        (json!({ "requests": [{ "type": "dance" }] }), "dance"),
        (json!({ "requests": [{ "type": "execute" }] }), "stmt"),
        (
            json!({ "requests": [{ "type": "execute", "stmt": { "sql": "SELECT ?", "args": [{ "type": "integer", "value": 1 }] } }] }),
            "string",
        ),
        (json!({ "requests": [{ "type": "execute", "stmt": {} }] }), "sql_id"),
        (json!({ "requests": vec![json!({ "type": "close" }); 10_001] }), "10000"),
        (json!([]), "wrong form"),
    ] {
        let refused = tenant.post("/v2/pipeline", body).refused(400, "bad_request");
        assert!(refused["message"].as_str().unwrap().contains(words), "{refused}");
    }
    let large = json!({ "requests": [execute(&"x".repeat(5 << 20))] });
    tenant.post("/v2/pipeline", large).refused(413, "payload_too_large");
}

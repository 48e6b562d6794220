//! `POST /v1/sql`: the shapes, the values, the transaction, the scopes and the errors.

use crate::support::*;

fn run(tenant: &TenantClient, body: Value) -> Answer {
    tenant.post("/v1/sql", body)
}

#[test]
fn the_shapes_are_exactly_these() {
    let server = Server::shared();
    let tenant = server.tenant("shape");
    let script =
        run(&tenant, json!({ "script": "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) VALUES ('x'), ('y');" }));
    assert_eq!(script.header("content-type"), Some("application/json"));
    assert!(script.expect(200).json()["duration_ms"].is_number());

    let answer = run(&tenant, json!({ "statements": [{ "sql": "SELECT v FROM t WHERE id = ?1", "params": [1] }] })).expect(200).json();
    let keys: Vec<_> = answer.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["duration_ms", "results"]);
    assert!(answer["duration_ms"].as_f64().is_some_and(|took| took >= 0.0), "{answer}");
    assert_eq!(answer["results"], json!([{ "columns": ["v"], "rows": [["x"]], "rows_affected": 0, "last_insert_rowid": null }]));

    let answer = run(&tenant, json!({ "statements": [{ "sql": "INSERT INTO t (v) VALUES ('z')" }, { "sql": "UPDATE t SET v = v" }] }));
    let results = answer.expect(200).json()["results"].clone();
    assert_eq!(results[0], json!({ "columns": [], "rows": [], "rows_affected": 1, "last_insert_rowid": 3 }));
    assert_eq!((&results[1]["rows_affected"], &results[1]["rows"]), (&json!(3), &json!([])));

    let returning = tenant.result("INSERT INTO t (v) VALUES ('r') RETURNING id, v", json!([]));
    assert_eq!((&returning["columns"], &returning["rows"]), (&json!(["id", "v"]), &json!([[4, "r"]])));
    assert_eq!(
        tenant.result("SELECT 1 AS a, 2 AS a WHERE 0", json!([])),
        json!({ "columns": ["a", "a"], "rows": [], "rows_affected": 0, "last_insert_rowid": null })
    );
}

#[test]
fn mathematical_functions_are_there() {
    let tenant = Server::shared().tenant("math");
    let rows = tenant.rows("SELECT sqrt(16), pow(2, 10), ceil(1.2), floor(-1.2), ln(1), sqrt(-1), mod(7, 4)", json!([]));
    assert_eq!(rows, json!([[4.0, 1024.0, 2.0, -2.0, 0.0, null, 3.0]]));
}

#[test]
fn a_statement_may_ask_for_the_rowid_that_the_one_before_made() {
    let tenant = Server::shared().tenant("rowid");
    tenant
        .script("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p INTEGER NOT NULL REFERENCES p(id)); INSERT INTO p VALUES (6)");
    let child = "INSERT INTO c SELECT last_insert_rowid()";
    tenant.script(&format!("INSERT INTO p DEFAULT VALUES; {child}"));
    let statements =
        json!({ "statements": [{ "sql": "INSERT INTO p DEFAULT VALUES" }, { "sql": child }, { "sql": format!("{child} WHERE 0") }] });
    let results = run(&tenant, statements).expect(200).json()["results"].clone();
    assert_eq!((&results[1]["last_insert_rowid"], &results[2]["last_insert_rowid"]), (&json!(2), &Value::Null));
    assert_eq!(tenant.rows("SELECT p FROM c", json!([])), json!([[7], [8]]));
}

#[test]
fn parameters_by_place_and_by_name() {
    let server = Server::shared();
    let tenant = server.tenant("params");
    assert_eq!(tenant.rows("SELECT ?, ?", json!(["a", 2])), json!([["a", 2]]));
    assert_eq!(tenant.rows("SELECT ?2, ?1", json!([1, 2])), json!([[2, 1]]));
    assert_eq!(tenant.rows("SELECT :a, @b, $c", json!({ ":a": 1, "@b": "two", "$c": null })), json!([[1, "two", null]]));
    assert_eq!(tenant.rows("SELECT :a, :b", json!({ "a": 1, "b": 2 })), json!([[1, 2]]));
    tenant.sql("SELECT ?1", json!([])).refused(400, "sql_error");
    tenant.sql("SELECT ?1", json!([1, 2])).refused(400, "sql_error");
    tenant.sql("SELECT :a", json!({ "b": 1 })).refused(400, "sql_error");
    tenant.sql("SELECT ?1", json!([[1]])).refused(400, "bad_request");
    tenant.sql("SELECT ?1", json!([{ "nonsense": 1 }])).refused(400, "bad_request");
    assert_eq!(tenant.rows("SELECT typeof(?1), ?1", json!(["'; DROP TABLE t; --"])), json!([["text", "'; DROP TABLE t; --"]]));
}

#[test]
fn values_come_back_as_they_went() {
    let server = Server::shared();
    let tenant = server.tenant("values");
    for (value, kind) in [
        (json!(0), "integer"),
        (json!(-1), "integer"),
        (json!(9007199254740993i64), "integer"),
        (json!(i64::MAX), "integer"),
        (json!(i64::MIN), "integer"),
        (json!(0.1), "real"),
        (json!(-1.5e300), "real"),
        (json!(5e-324), "real"),
        (json!(""), "text"),
        (json!("zażółć 🦀 \u{1}\u{7f}\"\\"), "text"),
        (json!(null), "null"),
    ] {
        let row = tenant.rows("SELECT typeof(?1), ?1", json!([value]));
        assert_eq!(row, json!([[kind, value]]));
    }
    assert_eq!(tenant.rows("SELECT typeof(?1), ?1", json!([true])), json!([["integer", 1]]));
    // The bytes of an integer are exact, not only what a parser makes of them.
    let text = tenant.sql("SELECT 9223372036854775807, -9223372036854775808, 9007199254740993", json!([])).expect(200).text();
    assert!(text.contains("[9223372036854775807,-9223372036854775808,9007199254740993]"), "{text}");
    // An integer that SQLite cannot hold is not rounded quietly.
    let answer =
        tenant.call("POST", "/v1/sql").bytes("application/json", r#"{"statements":[{"sql":"SELECT ?1","params":[9223372036854775808]}]}"#);
    answer.send().refused(400, "bad_request");
}

#[test]
fn integers_are_strings_for_clients_whose_numbers_are_not_exact() {
    let server = Server::shared();
    let tenant = server.tenant("integers");
    let body = json!({ "integers": "string", "statements": [
        { "sql": "SELECT ?1, typeof(?1), 1.5", "params": [{ "integer": "9007199254740993" }] },
        { "sql": "SELECT -9223372036854775808" },
    ] });
    let results = run(&tenant, body).expect(200).json()["results"].clone();
    assert_eq!(results[0]["rows"], json!([["9007199254740993", "integer", 1.5]]));
    assert_eq!(results[1]["rows"], json!([["-9223372036854775808"]]));
    tenant.sql("SELECT ?1", json!([{ "integer": "9223372036854775808" }])).refused(400, "bad_request");
    tenant.sql("SELECT ?1", json!([{ "integer": 5 }])).refused(400, "bad_request");
}

#[test]
fn a_real_is_told_from_an_integer() {
    let server = Server::shared();
    let tenant = server.tenant("values");
    let text = tenant.sql("SELECT 1.0, 1, -0.0, 1e15, 0.1 + 0.2", json!([])).expect(200).text();
    assert!(text.contains("[1.0,1,") && text.contains("0.30000000000000004"), "{text}");
    assert_eq!(tenant.rows("SELECT typeof(?1)", json!([2.0])), json!([["real"]]));
}

#[test]
fn infinities_and_nan_are_null() {
    let server = Server::shared();
    let tenant = server.tenant("values");
    assert_eq!(tenant.rows("SELECT 9e999, -9e999, 9e999 - 9e999", json!([])), json!([[null, null, null]]));
}

#[test]
fn blobs_are_base64_objects_both_ways() {
    let server = Server::shared();
    let tenant = server.tenant("blobs");
    assert_eq!(tenant.rows("SELECT x'00ff10', x''", json!([])), json!([[{ "base64": "AP8Q" }, { "base64": "" }]]));
    assert_eq!(tenant.rows("SELECT typeof(?1), hex(?1)", json!([{ "base64": "AP8Q" }])), json!([["blob", "00FF10"]]));
    tenant.sql("SELECT ?1", json!([{ "base64": "not base64!" }])).refused(400, "bad_request");
    // Text that is not UTF-8 is data too: it neither breaks the JSON nor the request.
    let answer = tenant.sql("SELECT CAST(x'ff41' AS TEXT)", json!([])).expect(200);
    serde_json::from_slice::<Value>(&answer.body).expect("valid JSON");
}

#[test]
fn one_request_is_one_transaction() {
    let server = Server::shared();
    let tenant = server.tenant("atomic");
    tenant.script("CREATE TABLE t (x UNIQUE); INSERT INTO t VALUES (1);");
    let statements =
        json!([{ "sql": "INSERT INTO t VALUES (2)" }, { "sql": "INSERT INTO t VALUES (3)" }, { "sql": "INSERT INTO t VALUES (1)" }]);
    let error = run(&tenant, json!({ "statements": statements })).refused(409, "constraint_violation");
    assert_eq!(error["details"]["statement"], 2, "which statement: {error}");
    assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[1]]));

    let error = run(&tenant, json!({ "transaction": "none", "statements": statements })).refused(409, "constraint_violation");
    assert_eq!(error["details"]["statement"], 2, "{error}");
    assert_eq!(tenant.rows("SELECT x FROM t ORDER BY x", json!([])), json!([[1], [2], [3]]), "each for itself");
}

#[test]
fn a_script_is_one_transaction() {
    let server = Server::shared();
    let tenant = server.tenant("script");
    run(&tenant, json!({ "script": "CREATE TABLE t (x); INSERT INTO t VALUES (1); INSERT INTO nowhere VALUES (1);" }))
        .refused(400, "sql_error");
    tenant.sql("SELECT * FROM t", json!([])).refused(400, "sql_error");
    let trigger = "CREATE TABLE t (x); CREATE TABLE log (x);
        CREATE TRIGGER copy AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.x); INSERT INTO log VALUES (';'); END;
        -- a comment; with a semicolon
        INSERT INTO t VALUES ('a;b');";
    tenant.script(trigger);
    assert_eq!(tenant.rows("SELECT x FROM log", json!([])), json!([["a;b"], [";"]]));
    for control in ["COMMIT", "ROLLBACK", "BEGIN", "END", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"] {
        let answer =
            run(&tenant, json!({ "script": format!("INSERT INTO t VALUES ('half'); {control}; INSERT INTO nowhere VALUES (1);") }));
        assert!([400, 403].contains(&answer.status), "{control}: {}", answer.text());
    }
    assert_eq!(tenant.rows("SELECT count(*) FROM t WHERE x = 'half'", json!([])), json!([[0]]), "a script cannot end our transaction");
}

#[test]
fn a_read_transaction_refuses_to_write() {
    let server = Server::shared();
    let tenant = server.tenant("reads");
    tenant.script("CREATE TABLE t (x)");
    let body = json!({ "transaction": "read", "statements": [{ "sql": "SELECT 1" }, { "sql": "INSERT INTO t VALUES (1)" }] });
    let answer = run(&tenant, body);
    answer.refused(403, "sql_denied");
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]));
    // By what SQLite says of it, not by its text.
    assert_eq!(tenant.rows("WITH x AS (SELECT 1 AS a) SELECT a FROM x", json!([])), json!([[1]]));
    tenant.sql("WITH x AS (SELECT 1 AS a) INSERT INTO t SELECT a FROM x", json!([])).expect(200);
    tenant.sql(" /* SELECT */ INSERT INTO t VALUES (2)", json!([])).expect(200);
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[2]]));
}

#[test]
fn scopes_are_held_by_what_the_statement_does() {
    let server = Server::shared();
    let tenant = server.tenant("scopes");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    let none = server.scoped(&tenant, &["cache"]);
    let reader = server.scoped(&tenant, &["sql:read"]);
    let writer = server.scoped(&tenant, &["sql:read", "sql:write"]);
    let schema = server.scoped(&tenant, &["sql:read", "sql:schema"]);
    let blind = server.scoped(&tenant, &["sql:write"]);

    none.sql("SELECT 1", json!([])).refused(403, "forbidden");
    reader.sql("SELECT x FROM t", json!([])).expect(200);
    let error = reader.sql("INSERT INTO t VALUES (2)", json!([])).refused(403, "forbidden");
    assert!(error.to_string().contains("sql:write"), "names the scope: {error}");
    reader.sql("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", json!([])).refused(403, "forbidden");
    reader.sql("DELETE FROM t RETURNING x", json!([])).refused(403, "forbidden");
    run(&reader, json!({ "script": "SELECT 1; DELETE FROM t;" })).refused(403, "forbidden");
    reader.sql("CREATE TABLE u (x)", json!([])).refused(403, "forbidden");

    writer.sql("INSERT INTO t VALUES (2)", json!([])).expect(200);
    for ddl in [
        "CREATE TABLE u (x)",
        "DROP TABLE t",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE t ADD COLUMN y",
        "CREATE INDEX i ON t (x)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
    ] {
        let error = writer.sql(ddl, json!([])).refused(403, "forbidden");
        assert!(error.to_string().contains("sql:schema"), "{ddl}: {error}");
    }
    schema.sql("CREATE TABLE u (x)", json!([])).expect(200);
    schema.sql("INSERT INTO u VALUES (1)", json!([])).refused(403, "forbidden");
    let answer = blind.sql("INSERT INTO t SELECT x FROM t", json!([]));
    assert!([200, 403].contains(&answer.status), "{}", answer.text());
    blind.sql("SELECT x FROM t", json!([])).refused(403, "forbidden");
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([]))[0][0].as_i64().unwrap() % 2, 0, "1, 2 and perhaps their copies");
    // A statement one token prepared is judged again for another's.
    for _ in 0..8 {
        writer.sql("UPDATE t SET x = x", json!([])).expect(200);
        reader.sql("UPDATE t SET x = x", json!([])).refused(403, "forbidden");
    }
}

#[test]
fn an_error_says_what_sqlite_knows() {
    let server = Server::shared();
    let tenant = server.tenant("errors");
    tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, y NOT NULL, z CHECK (z > 0)); CREATE TABLE c (t REFERENCES t (x));");
    let error = tenant.sql("SELECT x FRM t", json!([])).refused(400, "sql_error");
    assert!(error["message"].as_str().unwrap().contains("FRM") || error["message"].as_str().unwrap().contains("syntax"), "{error}");
    assert!(error["details"]["offset"].is_u64(), "{error}");
    assert_eq!(error["details"]["statement"], 0, "{error}");
    let error = tenant.sql("SELECT nope FROM t", json!([])).refused(400, "sql_error");
    assert!(error["message"].as_str().unwrap().contains("no such column: nope"), "{error}");
    assert_eq!(error["details"]["offset"], 7, "{error}");
    tenant.sql("INSERT INTO t VALUES (1, 1, 1)", json!([])).expect(200);
    for (sql, code, name) in [
        ("INSERT INTO t VALUES (1, 1, 1)", 1555, "PRIMARYKEY"),
        ("INSERT INTO t VALUES (2, NULL, 1)", 1299, "NOTNULL"),
        ("INSERT INTO t VALUES (2, 1, 0)", 275, "CHECK"),
        ("INSERT INTO c VALUES (99)", 787, "FOREIGNKEY"),
    ] {
        let error = tenant.sql(sql, json!([])).refused(409, "constraint_violation");
        let details = error["details"].to_string();
        assert!(details.contains(&code.to_string()) || details.contains(name), "{sql}: {error}");
    }
    tenant.sql("", json!([])).refused(400, "sql_error");
    tenant.sql("SELECT 1; SELECT 2", json!([])).refused(400, "sql_error");
    tenant.sql("SELECT \"not a column\"", json!([])).refused(400, "sql_error");
    tenant.sql("SELECT 'a\u{0}b'", json!([])).refused(400, "sql_error");
}

#[test]
fn a_body_must_say_one_thing() {
    let server = Server::shared();
    let tenant = server.tenant("bodies");
    for body in [
        json!({}),
        json!({ "statements": [] }),
        json!({ "statements": [{ "sql": "SELECT 1" }], "script": "SELECT 1" }),
        json!({ "statements": [{ "params": [] }] }),
        json!({ "statements": "SELECT 1" }),
        json!({ "statements": [{ "sql": "SELECT 1", "parms": [] }] }),
        json!({ "statements": [{ "sql": "SELECT 1" }], "transaction": "exclusive" }),
        json!({ "sql": "SELECT 1" }),
        json!([]),
        json!(null),
    ] {
        run(&tenant, body).refused(400, "bad_request");
    }
}

#[test]
fn an_idempotency_key_runs_a_write_once() {
    let mut server = Server::start();
    let tenant = server.tenant("once");
    tenant.script("CREATE TABLE t (x)");
    let post = |key: &str, sql: &str| {
        let body = json!({ "statements": [{ "sql": sql }] });
        tenant.call("POST", "/v1/sql").idempotency_key(key).json(&body).send()
    };
    let insert = "INSERT INTO t VALUES (random()) RETURNING x";
    let first = post("k1", insert).expect(200).json();
    let again = post("k1", insert).expect(200).json();
    assert_eq!(first["results"], again["results"]);
    post("k1", "INSERT INTO t VALUES (2)").refused(409, "conflict");
    post("k2", insert).expect(200);
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[2]]));
    let statuses = at_once(20, |_| post("k3", insert).status);
    assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[3]]));
    // A failed write leaves the key free, and a restart does not forget it.
    post("k4", "INSERT INTO nowhere VALUES (1)").refused(400, "sql_error");
    post("k4", insert).expect(200);
    server.restart();
    assert_eq!(post("k1", insert).expect(200).json()["results"], first["results"]);
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[4]]));
    for bad in ["", &"k".repeat(10_000)] {
        post(bad, insert).refused(400, "bad_request");
    }
}

/// The statement is in the cache of the connection, compiled for the table as it was.
#[test]
fn a_changed_table_shows_its_columns_as_they_are() {
    let server = Server::shared();
    let tenant = server.tenant("changed");
    let all = || tenant.result("SELECT * FROM t", json!([]));
    tenant.script("CREATE TABLE t (a); INSERT INTO t VALUES (1);");
    assert_eq!(all()["rows"], json!([[1]]));
    tenant.script("ALTER TABLE t ADD COLUMN b DEFAULT 2");
    let changed = all();
    assert_eq!((&changed["columns"], &changed["rows"]), (&json!(["a", "b"]), &json!([[1, 2]])));
    tenant.script("DELETE FROM t; ALTER TABLE t DROP COLUMN a;");
    let empty = all();
    assert_eq!((&empty["columns"], &empty["rows"]), (&json!(["b"]), &json!([])));
}

#[test]
fn concurrent_writers_are_all_there() {
    let server = Server::shared();
    let tenant = server.tenant("group");
    tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY); CREATE TABLE n (count INTEGER); INSERT INTO n VALUES (0);");
    at_once(24, |thread| {
        for i in 0..20 {
            let statements =
                json!([{ "sql": "INSERT INTO t VALUES (?1)", "params": [thread * 1000 + i] }, { "sql": "UPDATE n SET count = count + 1" }]);
            run(&tenant, json!({ "statements": statements })).expect(200);
            if i % 5 == 0 {
                // A neighbour in the group that fails takes nobody with it.
                tenant.sql("INSERT INTO t VALUES (?1)", json!([thread * 1000])).refused(409, "constraint_violation");
            }
        }
    });
    assert_eq!(tenant.rows("SELECT (SELECT count(*) FROM t), (SELECT count FROM n)", json!([])), json!([[480, 480]]));
}

#[test]
fn a_write_is_seen_by_the_next_read() {
    let server = Server::shared();
    let tenant = server.tenant("fresh");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (0);");
    for i in 1..50 {
        tenant.sql("UPDATE t SET x = ?1", json!([i])).expect(200);
        assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[i]]));
    }
}

#[test]
fn json_full_text_and_maths_are_there() {
    let server = Server::shared();
    let tenant = server.tenant("features");
    assert_eq!(tenant.rows("SELECT '{\"a\":[1,2]}' ->> '$.a[1]'", json!([])), json!([[2]]));
    tenant.script("CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES ('the quick brown fox');");
    assert_eq!(tenant.rows("SELECT count(*) FROM docs WHERE docs MATCH 'quick'", json!([])), json!([[1]]));
    let version = tenant.rows("SELECT sqlite_version()", json!([]))[0][0].as_str().unwrap().to_owned();
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts >= vec![3, 53, 0], "{version}");
}

#[test]
fn application_migrations_reach_new_and_old_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("0001_notes.up.sql", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;");
    write("0001_notes.down.sql", "DROP TABLE notes;");
    let mut server = Server::with(|c| {
        c.set("tenants.migrations_dir", folder.path().display());
    });
    let old = server.tenant("old");
    old.sql("INSERT INTO notes (body) VALUES ('first')", json!([])).expect(200);
    server.stop();
    write("0002_tags.up.sql", "ALTER TABLE notes ADD COLUMN tag TEXT;");
    write("0002_tags.down.sql", "ALTER TABLE notes DROP COLUMN tag;");
    server.start_again();
    assert_eq!(old.rows("SELECT body, tag FROM notes", json!([])), json!([["first", null]]), "brought up to date when opened");
    assert_eq!(server.tenant("new").rows("SELECT count(tag) FROM notes", json!([])), json!([[0]]));
    // A step that was changed after it ran is refused, with both checksums; the tenant is not touched.
    server.stop();
    write("0001_notes.up.sql", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL, more TEXT) STRICT;");
    server.start_again();
    let told = old.sql("SELECT 1", json!([])).refused(503, "tenant_unavailable");
    assert!(!told.to_string().contains("notes") && !told.to_string().contains("checksum"), "{told}");
    assert!(server.log().contains("0001_notes"), "the log names the step");
}

#[test]
fn what_is_wrong_with_a_migration_is_for_operators() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::with(|c| {
        c.set("tenants.migrations_dir", folder.path().display());
    });
    let tenant = server.tenant("migrated");
    tenant.script("CREATE TABLE ledger (x)");
    server.stop();
    std::fs::write(folder.path().join("0001_ledger.up.sql"), "CREATE TABLE ledger (secret_column)").unwrap();
    server.start_again();
    let told = tenant.sql("SELECT 1", json!([])).refused(503, "tenant_unavailable").to_string();
    assert!(!told.contains("ledger") && !told.contains("migration"), "{told}");
    let path = format!("/admin/v1/tenants/{}", tenant.id);
    let details = server.admin().get(&path).expect(200).json()["tenant"]["files"]["database"]["error"].to_string();
    assert!(details.contains("0001_ledger") && details.contains("already exists"), "{details}");
    let refused = server.admin().post(&format!("{path}/migrate"), json!({})).refused(503, "tenant_unavailable").to_string();
    assert!(refused.contains("0001_ledger") && refused.contains("already exists"), "{refused}");
}

#[test]
fn a_statement_is_of_the_schema_as_it_is_now() {
    let server = Server::shared();
    let tenant = server.tenant("schema-now");
    run(&tenant, json!({ "script": "CREATE TABLE t (a); INSERT INTO t VALUES (1);" })).succeeds();
    let all = || tenant.result("SELECT * FROM t", json!([]));
    // Twice, so that it is remembered compiled.
    (0..2).for_each(|_| assert_eq!((&all()["columns"], &all()["rows"]), (&json!(["a"]), &json!([[1]]))));
    tenant.sql("ALTER TABLE t ADD COLUMN b DEFAULT 2", json!([])).succeeds();
    assert_eq!((&all()["columns"], &all()["rows"]), (&json!(["a", "b"]), &json!([[1, 2]])));
    run(&tenant, json!({ "script": "DROP TABLE t; CREATE TABLE t (c);" })).succeeds();
    assert_eq!((&all()["columns"], &all()["rows"]), (&json!(["c"]), &json!([])));
}

#[test]
fn dropping_what_is_not_there_is_nothing_but_needs_the_scope() {
    let server = Server::shared();
    let tenant = server.tenant("drop-nothing");
    for sql in ["DROP TABLE IF EXISTS absent", "DROP INDEX IF EXISTS absent", "DROP VIEW IF EXISTS absent", "DROP TRIGGER IF EXISTS absent"]
    {
        tenant.sql(sql, json!([])).succeeds();
        tenant.sql(sql, json!([])).succeeds();
    }
    let reader = server.scoped(&tenant, &["sql:read"]);
    reader.sql("DROP TABLE IF EXISTS absent", json!([])).refused(403, "forbidden");
    tenant.sql(" -- nothing", json!([])).refused(400, "sql_error");
}

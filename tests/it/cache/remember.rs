//! Remembered queries: answered from the cache exactly as long as nothing has written what they read.

mod truth;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::support::{Answer, Server, TenantClient, Value, at_once, json};

const SCHEMA: &str = "CREATE TABLE items(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, tag TEXT);
    CREATE TABLE parts(id INTEGER PRIMARY KEY, item INTEGER REFERENCES items ON DELETE CASCADE);
    CREATE TABLE apart(x); CREATE TABLE audit(n);
    CREATE VIEW heavy AS SELECT i.id, count(p.id) AS parts FROM items i LEFT JOIN parts p ON p.item = i.id GROUP BY i.id;
    CREATE TRIGGER noted AFTER UPDATE ON items BEGIN INSERT INTO audit VALUES (new.n); END;
    INSERT INTO items(id, n) VALUES (1, 10), (2, 20); INSERT INTO parts(item) VALUES (1), (1), (2);";

fn ask(tenant: &TenantClient, key: &str, body: Value) -> Answer {
    tenant.post(&format!("/v1/cache/{key}/remember"), body)
}

/// The rows that a query answers, and whether they were remembered.
#[track_caller]
fn remembered(tenant: &TenantClient, sql: &str) -> (Value, bool) {
    let answer = ask(tenant, "q", json!({ "sql": sql })).expect(200);
    let status = answer.header("cache-status").unwrap().to_owned();
    let hit = status.starts_with("tenantry; hit");
    assert!(hit || status == "tenantry; fwd=miss; stored", "{status}");
    (answer.json()["results"][0]["rows"].clone(), hit)
}

fn tenant(server: &Server) -> TenantClient {
    let tenant = server.tenant("remember");
    tenant.script(SCHEMA);
    tenant
}

pub(super) fn pipeline(tenant: &TenantClient, baton: &Value, sql: &[&str]) -> Value {
    let requests: Vec<_> = sql.iter().map(|sql| json!({ "type": "execute", "stmt": { "sql": sql } })).collect();
    let answer = tenant.post("/v3/pipeline", json!({ "baton": baton, "requests": requests })).expect(200).json();
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["type"] == "ok"), "{answer}");
    answer["baton"].clone()
}

#[test]
fn an_answer_is_that_of_sql_and_comes_from_the_cache_the_second_time() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let body = json!({ "sql": "SELECT id, n FROM items WHERE n > ?1 ORDER BY id", "params": [5], "ttl": 60, "integers": "string" });
    let made = ask(&tenant, "k", body.clone()).expect(200);
    assert_eq!(
        made.json()["results"],
        json!([{ "columns": ["id", "n"], "rows": [["1", "10"], ["2", "20"]], "rows_affected": 0, "last_insert_rowid": null }])
    );
    let etag = made.header("etag").unwrap().to_owned();
    let again = ask(&tenant, "k", body.clone()).expect(200);
    assert_eq!(again.body, made.body);
    assert_eq!(again.header("etag"), Some(&*etag));
    assert!(again.header("cache-status").unwrap().starts_with("tenantry; hit; ttl="), "{:?}", again.header("cache-status"));
    let path = "/v1/cache/k/remember";
    tenant.call("POST", path).header("If-None-Match", &etag).json(&body).send().expect(304);
    tenant.delete(path).expect(204);
    let anew = ask(&tenant, "k", body).expect(200);
    assert_eq!(anew.header("cache-status"), Some("tenantry; fwd=miss; stored"));
}

#[test]
fn every_way_of_writing_a_table_makes_its_answers_anew_and_leaves_the_others() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let items = "SELECT (SELECT sum(n) FROM items), (SELECT group_concat(parts) FROM heavy)";
    let ways: [(&str, &dyn Fn()); 12] = [
        ("one statement", &|| drop(tenant.result("UPDATE items SET n = n + 1 WHERE id = 1", json!([])))),
        ("a script", &|| drop(tenant.script("INSERT INTO items(id, n) VALUES (3, 1); SELECT 1"))),
        ("each by itself", &|| {
            let each = json!({ "statements": [{ "sql": "UPDATE items SET n = 7 WHERE id = 3" }], "transaction": "none" });
            tenant.post("/v1/sql", each).expect(200);
        }),
        ("rows: insert", &|| drop(tenant.post("/rest/v1/items", json!({ "id": 4, "n": 5 })).expect(201))),
        ("rows: update", &|| drop(tenant.patch("/rest/v1/items?id=eq.4", json!({ "n": 6 })).succeeds())),
        ("rows: delete, and what refers to them", &|| drop(tenant.delete("/rest/v1/items?id=eq.1").succeeds())),
        ("Hrana", &|| drop(pipeline(&tenant, &Value::Null, &["UPDATE items SET n = n + 1"]))),
        ("a Hrana transaction", &|| {
            let baton = pipeline(&tenant, &Value::Null, &["BEGIN IMMEDIATE", "UPDATE items SET n = n + 100"]);
            assert!(remembered(&tenant, items).1, "nothing is committed yet");
            pipeline(&tenant, &baton, &["COMMIT"]);
        }),
        ("a Hrana transaction with a savepoint", &|| {
            let texts = ["BEGIN", "SAVEPOINT s", "UPDATE items SET n = 0", "ROLLBACK TO s", "UPDATE items SET n = n + 1", "COMMIT"];
            pipeline(&tenant, &Value::Null, &texts);
        }),
        ("a table that only the view reads", &|| drop(tenant.result("INSERT INTO parts(item) VALUES (2)", json!([])))),
        ("a trigger", &|| {
            tenant.script("CREATE TRIGGER more AFTER INSERT ON apart BEGIN UPDATE items SET n = n + 1; END");
            remembered(&tenant, items);
            tenant.result("INSERT INTO apart VALUES (1)", json!([]));
        }),
        ("another schema", &|| drop(tenant.script("ALTER TABLE items RENAME COLUMN n TO m; ALTER TABLE items RENAME COLUMN m TO n"))),
    ];
    for (way, write) in ways {
        remembered(&tenant, items);
        assert!(remembered(&tenant, items).1, "before {way}");
        write();
        let (rows, hit) = remembered(&tenant, items);
        assert!(!hit, "{way}");
        assert_eq!(rows, tenant.rows(items, json!([])), "{way}");
    }
    let apart = json!({ "sql": "SELECT count(*) FROM apart" });
    ask(&tenant, "apart", apart.clone()).expect(200);
    tenant.result("UPDATE items SET n = 3", json!([]));
    tenant.sql("INSERT INTO apart SELECT 1 FROM nowhere", json!([])).expect(400);
    assert!(ask(&tenant, "apart", apart).header("cache-status").unwrap().contains("hit"), "nobody wrote it");
}

#[test]
fn what_was_remembered_outlives_a_restart_and_a_kill_if_nothing_was_written_since() {
    let mut server = Server::start();
    let tenant = tenant(&server);
    let sql = "SELECT sum(n) FROM items";
    remembered(&tenant, sql);
    server.restart();
    assert!(remembered(&tenant, sql).1);
    tenant.result("UPDATE items SET n = n + 1", json!([]));
    server.kill9();
    server.start_again();
    assert_eq!(remembered(&tenant, sql), (json!([[32]]), false));
    remembered(&tenant, sql);
    server.kill9();
    server.start_again();
    // Its cache commits without waiting for the disk, but the machine did not fall.
    assert_eq!(remembered(&tenant, sql), (json!([[32]]), true));
}

#[test]
fn a_migration_that_changes_rows_only_counts_also_on_a_closed_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("0001_items.up.sql", "CREATE TABLE items(n); INSERT INTO items VALUES (1);");
    let mut server = Server::with(|c| {
        c.set("tenants.migrations_dir", folder.path().display());
    });
    let tenant = server.tenant("migrated");
    let sql = "SELECT sum(n) FROM items";
    remembered(&tenant, sql);
    server.stop();
    write("0002_more.up.sql", "UPDATE items SET n = 5;");
    server.start_again();
    assert_eq!(remembered(&tenant, sql), (json!([[5]]), false));
}

#[test]
fn many_who_ask_at_once_have_it_made_once() {
    let server = Server::shared();
    let tenant = tenant(&server);
    // Long enough that all come while it runs.
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) SELECT count(*) + (SELECT min(n) FROM items) FROM n";
    let misses = AtomicU64::new(0);
    at_once(12, |_| {
        let (rows, hit) = remembered(&tenant, sql);
        assert_eq!(rows, json!([[400_010]]));
        misses.fetch_add(u64::from(!hit), Relaxed);
    });
    assert_eq!(misses.load(Relaxed), 1);
}

#[test]
fn another_query_under_the_same_key_is_not_answered_with_it() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let of = |id: i64| json!({ "sql": "SELECT n FROM items WHERE id = ?1", "params": [id] });
    for _ in 0..2 {
        for (id, n) in [(1, 10), (2, 20)] {
            assert_eq!(ask(&tenant, "k", of(id)).expect(200).json()["results"][0]["rows"], json!([[n]]));
        }
    }
}

#[test]
fn what_cannot_be_remembered_is_refused_or_only_answered() {
    let server = Server::shared();
    let tenant = tenant(&server);
    let refused = |sql: &str, status: u16, code: &str| ask(&tenant, "k", json!({ "sql": sql })).refused(status, code);
    refused("UPDATE items SET n = 0", 403, "sql_denied");
    refused("SELECT random(), n FROM items", 403, "sql_denied");
    refused("SELECT n FROM items WHERE id > abs(random())", 403, "sql_denied");
    refused("SELECT * FROM pragma_table_info('items')", 403, "sql_denied");
    refused("SELECT * FROM _tenantry_versions", 403, "sql_denied");
    refused("SELECT nope FROM items", 400, "sql_error");
    refused("SELECT 1; SELECT 2", 400, "sql_error");
    refused("SELECT datetime('now'), n FROM items", 400, "bad_request");
    ask(&tenant, "k", json!({ "sql": "SELECT datetime('now'), n FROM items", "ttl": 1 })).expect(200);
    ask(&tenant, "k", json!({ "sql": "SELECT 1", "ttl": 0 })).refused(400, "bad_request");
    ask(&tenant, "k", json!({ "sql": "SELECT 1", "swr": 5 })).refused(400, "bad_request");

    // Larger than a value may be: answered each time.
    let large = json!({ "sql": "SELECT hex(zeroblob(600000)), n FROM items WHERE id = 1" });
    for _ in 0..2 {
        assert_eq!(ask(&tenant, "large", large.clone()).expect(200).header("cache-status"), Some("tenantry; fwd=miss"));
    }
}

#[test]
fn remembered_rows_are_for_tokens_that_may_read_them() {
    let server = Server::shared();
    let tenant = tenant(&server);
    remembered(&tenant, "SELECT n FROM items");
    let sql = json!({ "sql": "SELECT n FROM items" });
    ask(&server.scoped(&tenant, &["cache"]), "q", sql.clone()).refused(403, "forbidden");
    ask(&server.scoped(&tenant, &["sql:read"]), "q", sql.clone()).refused(403, "forbidden");
    ask(&server.scoped(&tenant, &["cache", "sql:read"]), "q", sql.clone()).expect(200);
    // Entries have names of their own.
    tenant.get("/v1/cache/q").refused(404, "not_found");
    tenant.call("PUT", "/v1/cache/q").bytes("text/plain", "mine").send().expect(204);
    assert!(ask(&tenant, "q", sql.clone()).header("cache-status").unwrap().contains("hit"));
    assert_eq!(tenant.get("/v1/cache/q").expect(200).text(), "mine");

    let tagged = json!({ "sql": "SELECT n FROM items", "tags": ["list"] });
    let hit = |key: &str, body: &Value| ask(&tenant, key, body.clone()).expect(200).header("cache-status").unwrap().contains("hit");
    hit("tagged", &tagged);
    assert!(hit("tagged", &tagged));
    tenant.delete("/v1/cache?tag=list").expect(204);
    assert!(!hit("tagged", &tagged));
    tenant.delete("/v1/cache?all=true").expect(204);
    assert!(!hit("tagged", &tagged) && !hit("q", &sql));
}

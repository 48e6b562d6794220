//! What tenants' SQL may not do, and what it must be able to: each case through every way in which SQL comes. A new
//! way is one line in [`TRANSPORTS`].

use crate::support::*;

/// Runs statements one after the other, in one go; the rows of the last, or the code of the error.
type Transport = fn(&TenantClient, &[&str]) -> Result<Value, Refused>;

const TRANSPORTS: &[(&str, Transport)] = &[("statements of /v1/sql", statements), ("a script of /v1/sql", script), (HRANA, transaction)];

const HRANA: &str = "a transaction over Hrana";

/// What Hrana's own streams understand, being connections; see `hrana.rs`.
const OF_STREAMS: &[&str] = &["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "VACUUM", "PRAGMA foreign_keys = OFF"];

#[derive(Debug)]
struct Refused {
    code: String,
    said: String,
}

fn refused(answer: &Answer) -> Refused {
    let error = answer.json();
    assert!((400..500).contains(&answer.status), "{} {error}", answer.status);
    Refused { code: error["code"].as_str().unwrap().to_owned(), said: error.to_string() }
}

fn statements(tenant: &TenantClient, sql: &[&str]) -> Result<Value, Refused> {
    let statements: Vec<_> = sql.iter().map(|sql| json!({ "sql": sql })).collect();
    let answer = tenant.post("/v1/sql", json!({ "statements": statements }));
    if answer.status != 200 {
        return Err(refused(&answer));
    }
    let results = answer.json()["results"].clone();
    Ok(results.as_array().unwrap().last().unwrap()["rows"].clone())
}

/// A script answers no rows: what it selects goes into a table, which is read afterwards.
fn script(tenant: &TenantClient, sql: &[&str]) -> Result<Value, Refused> {
    let (last, before) = sql.split_last().unwrap();
    let selects = last.starts_with("SELECT") || last.starts_with("WITH");
    let kept = if selects { format!("CREATE TABLE script_kept AS {last}") } else { (*last).to_owned() };
    let text = [before, &[kept.as_str()]].concat().join(";\n");
    let answer = tenant.post("/v1/sql", json!({ "script": text }));
    if answer.status != 200 {
        return Err(refused(&answer));
    }
    if !selects {
        return Ok(json!([]));
    }
    let rows = statements(tenant, &["SELECT * FROM script_kept"]);
    statements(tenant, &["DROP TABLE script_kept"])?;
    rows
}

/// One batch, as clients send it: each statement if the one before went well, and COMMIT or ROLLBACK.
fn transaction(tenant: &TenantClient, sql: &[&str]) -> Result<Value, Refused> {
    let step = |sql: &str, condition: Value| json!({ "condition": condition, "stmt": { "sql": sql } });
    let after = |step: usize| json!({ "type": "ok", "step": step });
    let mut steps = vec![json!({ "stmt": { "sql": "BEGIN IMMEDIATE" } })];
    steps.extend(sql.iter().enumerate().map(|(at, sql)| step(sql, after(at))));
    steps.push(step("COMMIT", after(sql.len())));
    steps.push(step("ROLLBACK", json!({ "type": "not", "cond": after(sql.len() + 1) })));
    let request = json!({ "type": "batch", "batch": { "steps": steps } });
    let answer = tenant.post("/v3/pipeline", json!({ "baton": null, "requests": [request, { "type": "close" }] })).expect(200).json();
    let batch = &answer["results"][0]["response"]["result"];
    if let Some(error) = batch["step_errors"].as_array().unwrap().iter().find(|error| !error.is_null()) {
        let code = error["code"].as_str().unwrap();
        let code = if code == "SQLITE_ERROR" { "sql_error".to_owned() } else { code.to_lowercase() };
        return Err(Refused { code, said: error.to_string() });
    }
    let plain = |value: &Value| match value["type"].as_str().unwrap() {
        "integer" => json!(value["value"].as_str().unwrap().parse::<i64>().unwrap()),
        _ => value["value"].clone(),
    };
    let rows = batch["step_results"][sql.len()]["rows"].as_array().unwrap();
    Ok(rows.iter().map(|row| row.as_array().unwrap().iter().map(plain).collect::<Value>()).collect())
}

/// Denied, whatever the token's scopes: 403 `sql_denied`.
const DENIED: &[&str] = &[
    "ATTACH DATABASE '{other}' AS other",
    "ATTACH ':memory:' AS m",
    "ATTACH '' AS m",
    "ATTACH 'file:x?mode=memory&cache=shared' AS m",
    "EXPLAIN ATTACH 'x' AS x",
    "DETACH DATABASE main",
    "VACUUM INTO '{folder}/copy.sqlite'",
    "VACUUM main INTO '{folder}/copy.sqlite'",
    "/* a comment */ VACUUM INTO '{folder}/copy.sqlite'",
    "-- a comment\nVACUUM INTO '{folder}/copy.sqlite'",
    "; VACUUM INTO '{folder}/copy.sqlite'",
    "VACUUM",
    "SELECT load_extension('x')",
    "SELECT LOAD_EXTENSION('x', 'y')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT fts3_tokenizer('simple', x'0000000000000000')",
    "SELECT sqlite_log(1, 'into the operator''s log')",
    "PRAGMA writable_schema = 1",
    "PRAGMA writable_schema = RESET",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA main.journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA synchronous",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA mmap_size = 1000000000",
    "PRAGMA cache_size = -1000000",
    "PRAGMA cache_spill = OFF",
    "PRAGMA max_page_count = 1000000000",
    "PRAGMA page_size = 65536",
    "PRAGMA auto_vacuum = FULL",
    "PRAGMA temp_store = FILE",
    "PRAGMA temp_store_directory = '/'",
    "PRAGMA data_store_directory = '/'",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 1",
    "PRAGMA journal_size_limit = 0",
    "PRAGMA database_list",
    "SELECT * FROM pragma_database_list",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA trusted_schema = ON",
    "PRAGMA query_only = ON",
    "PRAGMA read_uncommitted = ON",
    "PRAGMA busy_timeout = 1",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA soft_heap_limit = 1",
    "PRAGMA threads = 8",
    "PRAGMA secure_delete = ON",
    "PRAGMA shrink_memory",
    "PRAGMA optimize",
    "PRAGMA schema_version = 7",
    "PRAGMA application_id = 7",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA stats",
    "PRAGMA nonsense",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "SELECT * FROM _tenantry_migrations",
    "SELECT count(*) FROM _TENANTRY_migrations",
    "DELETE FROM _tenantry_migrations",
    "INSERT INTO _tenantry_idempotency DEFAULT VALUES",
    "DROP TABLE _tenantry_idempotency",
    "ALTER TABLE _tenantry_migrations RENAME TO mine",
    "ALTER TABLE t RENAME TO _tenantry_mine",
    "CREATE TABLE _tenantry_mine (x)",
    "CREATE TEMP TABLE _tenantry_migrations (x)",
    "CREATE VIEW _tenantry_mine AS SELECT 1",
    "CREATE INDEX _tenantry_mine ON t (x)",
    "CREATE TRIGGER spy AFTER INSERT ON _tenantry_migrations BEGIN SELECT 1; END",
    "UPDATE sqlite_stat1 SET stat = '1'",
    "DELETE FROM sqlite_stat1",
];

/// Not there, or refused by SQLite itself: 400 `sql_error`.
const REFUSED: &[&str] = &[
    "UPDATE sqlite_schema SET sql = ''",
    "DELETE FROM sqlite_schema",
    "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x (y)')",
    "UPDATE sqlite_master SET rootpage = 1",
    "INSERT INTO sqlite_temp_schema VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x (y)')",
    "DROP TABLE sqlite_sequence",
    "ALTER TABLE sqlite_schema ADD COLUMN x",
    "CREATE TABLE sqlite_mine (x)",
    "CREATE TRIGGER spy AFTER INSERT ON sqlite_schema BEGIN SELECT 1; END",
    "UPDATE docs_data SET block = x'00'",
    "DELETE FROM docs_content",
    "INSERT INTO docs_config VALUES ('version', 9)",
    "DROP TABLE docs_idx",
    "ALTER TABLE docs_docsize RENAME TO mine",
    "CREATE TRIGGER spy AFTER INSERT ON docs_content BEGIN SELECT 1; END",
    "UPDATE boxes_node SET data = x'00'",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('x', 'y')",
    "SELECT edit('x')",
    "SELECT * FROM fsdir('/')",
    "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM sqlite_stmt",
    "SELECT * FROM bytecode('SELECT 1')",
    "SELECT * FROM generate_series(1, 3)",
    "CREATE VIRTUAL TABLE v USING csv(filename = '/etc/passwd')",
    "CREATE VIRTUAL TABLE v USING zipfile('/etc/passwd')",
    "SELECT \"a string in double quotes\"",
];

fn tenant_with_tables(server: &Server) -> TenantClient {
    let tenant = server.tenant("caged");
    tenant.script(
        "CREATE TABLE t (x INTEGER PRIMARY KEY, y); INSERT INTO t VALUES (1, 'one'); CREATE INDEX by_y ON t (y); ANALYZE;
         CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES ('the quick brown fox');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 0.0, 2.0);
         CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT);",
    );
    tenant
}

#[test]
fn what_reaches_outside_is_denied_with_a_clear_code() {
    let server = Server::shared();
    let (tenant, other) = (tenant_with_tables(&server), server.tenant("other"));
    other.script("CREATE TABLE secret (x)");
    let folder = server.folder(&tenant.id).display().to_string();
    let file = server.file(&other.id, "database").display().to_string();
    let before = files_of(&server, &tenant);
    let mut wrong = Vec::new();
    for (transport, run) in TRANSPORTS {
        for (cases, code) in [(DENIED, "sql_denied"), (REFUSED, "sql_error")] {
            for case in cases.iter().filter(|case| *transport != HRANA || !OF_STREAMS.contains(case)) {
                let sql = case.replace("{other}", &file).replace("{folder}", &folder);
                match run(&tenant, &["SELECT 1", &sql]) {
                    Err(refused) if refused.code == code => assert!(!refused.said.contains(&folder), "{}", refused.said),
                    other => wrong.push(format!("{case} as {transport}: {other:?}, not {code}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(files_of(&server, &tenant), before);
    // Nothing of it all has changed how the file is served.
    let kept = [("journal_mode", json!("wal")), ("foreign_keys", json!(1)), ("integrity_check", json!("ok")), ("quick_check", json!("ok"))];
    for (pragma, value) in kept {
        assert_eq!(tenant.rows(&format!("PRAGMA {pragma}"), json!([])), json!([[value]]), "{pragma}");
    }
    assert_eq!(tenant.rows("SELECT x, y FROM t", json!([])), json!([[1, "one"]]));
}

fn files_of(server: &Server, tenant: &TenantClient) -> Vec<String> {
    server.files().into_iter().filter(|file| file.contains(&tenant.id) && !file.ends_with("-wal") && !file.ends_with("-shm")).collect()
}

/// What the schema says is run by whoever uses it: it is confined then as well.
#[test]
fn what_a_schema_hides_is_denied_when_it_runs() {
    let server = Server::shared();
    for (transport, run) in TRANSPORTS {
        for (hidden, used) in [
            ("CREATE VIEW v AS SELECT load_extension('x') AS x", "SELECT x FROM v"),
            ("CREATE VIEW v AS SELECT version FROM _tenantry_migrations", "SELECT version FROM v"),
            ("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT load_extension('x'); END", "INSERT INTO t VALUES (2, 2)"),
            ("CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM _tenantry_migrations; END", "INSERT INTO t VALUES (2, 2)"),
            ("CREATE TABLE d (x DEFAULT (load_extension('x')), y)", "INSERT INTO d (y) VALUES (1)"),
            // FTS5 compiles the arguments of its ranking function by itself.
            (
                "INSERT INTO docs (docs, rank) VALUES ('rank', 'bm25(load_extension(1))')",
                "SELECT * FROM docs WHERE docs MATCH 'fox' ORDER BY rank",
            ),
            ("CREATE VIRTUAL TABLE e USING fts5(body, content='_tenantry_migrations')", "SELECT * FROM e"),
        ] {
            let tenant = tenant_with_tables(&server);
            if run(&tenant, &[hidden]).is_ok() {
                let outcome = run(&tenant, &[used]);
                assert!(
                    outcome.as_ref().is_err_and(|refused| ["sql_denied", "sql_error"].contains(&refused.code.as_str())),
                    "{hidden}; {used} as {transport}: {outcome:?}"
                );
            }
            assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[1]]), "{hidden}");
        }
    }
}

#[test]
fn what_is_temporary_ends_with_its_request() {
    let server = Server::shared();
    let tenant = tenant_with_tables(&server);
    for (transport, run) in TRANSPORTS {
        let made = [
            "CREATE TEMP TABLE scratch (x)",
            "INSERT INTO scratch VALUES (1), (2)",
            "CREATE TEMP VIEW seen AS SELECT x FROM scratch",
            "CREATE TEMP TRIGGER spy AFTER INSERT ON t BEGIN INSERT INTO scratch VALUES (new.x); END",
            "INSERT INTO t (y) VALUES (3)",
            "SELECT count(*) FROM seen",
        ];
        assert_eq!(run(&tenant, &made).unwrap(), json!([[3]]), "{transport}");
        for gone in ["SELECT * FROM scratch", "SELECT * FROM seen", "DROP TRIGGER spy"] {
            assert_eq!(run(&tenant, &[gone]).unwrap_err().code, "sql_error", "{gone} as {transport}");
        }
        // A name that was shadowed is the table's again.
        run(&tenant, &["CREATE TEMP TABLE t (x)"]).unwrap();
        assert_eq!(run(&tenant, &["SELECT y FROM t WHERE x = 1"]).unwrap(), json!([["one"]]), "{transport}");
        assert_eq!(run(&tenant, &["SELECT count(*) FROM sqlite_temp_schema"]).unwrap(), json!([[0]]), "{transport}");
    }
}

/// Statements, and the rows of the last.
const WORKS: &[(&[&str], &str)] = &[
    (&["ANALYZE", "SELECT count(*) > 0 FROM sqlite_stat1"], "[[1]]"),
    (&["REINDEX", "SELECT 1"], "[[1]]"),
    (
        &["CREATE TABLE IF NOT EXISTS t (x)", "CREATE INDEX IF NOT EXISTS by_y ON t (y)", "DROP TABLE IF EXISTS nowhere", "SELECT 1"],
        "[[1]]",
    ),
    (&["PRAGMA user_version = 42", "SELECT user_version FROM pragma_user_version"], "[[42]]"),
    (&["SELECT name FROM pragma_table_info('t')"], r#"[["x"],["y"]]"#),
    (&["SELECT name FROM pragma_index_list('t')"], r#"[["by_y"]]"#),
    (
        &[
            "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
            "CREATE TABLE child (p REFERENCES parent)",
            "SELECT count(*) FROM pragma_foreign_key_check",
        ],
        "[[0]]",
    ),
    (&["PRAGMA defer_foreign_keys = ON", "INSERT INTO child VALUES (9)", "INSERT INTO parent VALUES (9)", "SELECT p FROM child"], "[[9]]"),
    (&["SELECT count(*) FROM docs WHERE docs MATCH 'quick AND fox'"], "[[1]]"),
    (&["SELECT highlight(docs, 0, '[', ']') FROM docs WHERE docs MATCH 'brown' ORDER BY rank"], r#"[["the quick [brown] fox"]]"#),
    (&["INSERT INTO docs (docs) VALUES ('optimize')", "INSERT INTO docs (docs) VALUES ('integrity-check')", "SELECT 1"], "[[1]]"),
    (&["SELECT id FROM boxes WHERE x0 <= 1 AND x1 >= 1"], "[[1]]"),
    (&["SELECT json_extract('{\"a\":[1,{\"b\":2}]}', '$.a[1].b'), '[1,2]' -> 1"], r#"[[2,"2"]]"#),
    (&["SELECT value FROM json_each('[3,4]')"], "[[3],[4]]"),
    (&["SELECT json_group_array(x) FROM (SELECT 1 AS x UNION ALL SELECT 2)"], r#"[["[1,2]"]]"#),
    (
        &[
            "CREATE TABLE g (a INT, b INT GENERATED ALWAYS AS (a * 2) STORED, c INT AS (a + 1)) STRICT",
            "INSERT INTO g (a) VALUES (4)",
            "SELECT a, b, c FROM g",
        ],
        "[[4,8,5]]",
    ),
    (
        &["SELECT x, sum(x) OVER (ORDER BY x ROWS 1 PRECEDING), row_number() OVER () FROM (SELECT 1 AS x UNION SELECT 2 UNION SELECT 3)"],
        "[[1,1,1],[2,3,2],[3,5,3]]",
    ),
    (
        &[
            "CREATE TABLE u (k TEXT PRIMARY KEY, n INT) WITHOUT ROWID",
            "INSERT INTO u VALUES ('a', 1)",
            "INSERT INTO u VALUES ('a', 5) ON CONFLICT (k) DO UPDATE SET n = n + excluded.n",
            "SELECT n FROM u",
        ],
        "[[6]]",
    ),
    (&["SELECT x FROM t WHERE y IN ('one', 'two') LIMIT 1"], "[[1]]"),
    (&["WITH RECURSIVE f(a, b) AS (SELECT 0, 1 UNION ALL SELECT b, a + b FROM f LIMIT 10) SELECT max(a) FROM f"], "[[34]]"),
    (&["INSERT INTO counted DEFAULT VALUES", "SELECT seq FROM sqlite_sequence WHERE name = 'counted'"], "[[1]]"),
    (
        &[
            "CREATE TABLE r (x)",
            "ALTER TABLE r ADD COLUMN y DEFAULT 7",
            "ALTER TABLE r RENAME COLUMN x TO z",
            "ALTER TABLE r DROP COLUMN z",
            "SELECT count(*) FROM r",
        ],
        "[[0]]",
    ),
    (&["SELECT date('2026-11-21', '+1 month'), unixepoch('1970-01-02')"], r#"[["2026-12-21",86400]]"#),
    (&["SELECT 'ABC' LIKE 'a_c', 'abc' GLOB 'a*', 'x' COLLATE NOCASE = 'X'"], "[[1,1,1]]"),
];

#[test]
fn what_sqlite_offers_inside_one_database_works() {
    let server = Server::shared();
    for (transport, run) in TRANSPORTS {
        let tenant = tenant_with_tables(&server);
        for (sql, rows) in WORKS {
            let outcome = run(&tenant, sql).unwrap_or_else(|refused| panic!("{sql:?} as {transport}: {}", refused.said));
            assert_eq!(outcome, serde_json::from_str::<Value>(rows).unwrap(), "{sql:?} as {transport}");
        }
    }
    let tenant = tenant_with_tables(&server);
    assert_eq!(tenant.rows("INSERT INTO t (y) VALUES ('r') RETURNING x, y", json!([])), json!([[2, "r"]]));
    assert!(tenant.rows("EXPLAIN SELECT * FROM t", json!([])).as_array().unwrap().len() > 3);
    let plan = tenant.rows("EXPLAIN QUERY PLAN SELECT * FROM t INDEXED BY by_y WHERE y = 'one'", json!([])).to_string();
    assert!(plan.contains("by_y"), "{plan}");
    assert_eq!(tenant.rows("PRAGMA table_info(t)", json!([]))[0][1], "x");
    assert_eq!(tenant.rows("PRAGMA foreign_key_check", json!([])), json!([]));
    tenant.sql("DELETE FROM t", json!([])).expect(200);
    tenant.post("/v1/sql", json!({ "transaction": "none", "statements": [{ "sql": "VACUUM" }] })).expect(200);
    assert_eq!(tenant.rows("PRAGMA freelist_count", json!([])), json!([[0]]), "VACUUM rebuilt the file");
}

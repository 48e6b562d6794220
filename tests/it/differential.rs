//! The same statements to a tenant and to plain SQLite give the same rows, the same counts and the same errors.
//! Schemas, rows and statements are random; a failure shrinks to the shortest story that still differs.
//! `TENANTRY_CASES=500` tells more stories.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;

use crate::support::*;

/// What came of one statement.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done {
        columns: Vec<String>,
        rows: Value,
        affected: u64,
    },
    /// SQLite's extended code and its words.
    Failed(i64, String),
}

#[test]
fn a_tenant_is_sqlite() {
    let cases = std::env::var("TENANTRY_CASES").map_or(24, |cases| cases.parse().expect("TENANTRY_CASES is a number"));
    let server = Server::shared();
    let (mut told, mut failed) = (0_u64, 0_u64);
    let counts = std::cell::RefCell::new((&mut told, &mut failed));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() });
    let outcome = runner.run(&story(), |story| {
        let mut counts = counts.borrow_mut();
        *counts.0 += story.len() as u64;
        compare(&server, &story, counts.1)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{cases} stories of {told} statements: the same rows, counts and errors ({failed} of them errors)");
    assert!(failed > 0 && failed < told / 2, "stories in which everything or nothing fails say little: {failed} of {told}");
}

fn compare(server: &Server, story: &[String], failed: &mut u64) -> TestCaseResult {
    let tenant = server.tenant("story");
    let plain = plain();
    for (at, sql) in story.iter().enumerate() {
        let (ours, theirs) = (through_tenantry(&tenant, sql), through_rusqlite(&plain, sql));
        *failed += u64::from(matches!(theirs, Outcome::Failed(..)));
        prop_assert_eq!(ours, theirs, "statement {}: {}", at, sql);
    }
    Ok(())
}

/// SQLite as a tenant has it: what is set for every connection, and nothing of Tenantry.
fn plain() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    for off in [DbConfig::SQLITE_DBCONFIG_DQS_DDL, DbConfig::SQLITE_DBCONFIG_DQS_DML, DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA] {
        conn.set_db_config(off, false).unwrap();
    }
    conn
}

fn through_tenantry(tenant: &TenantClient, sql: &str) -> Outcome {
    let answer = tenant.sql(sql, json!([]));
    if answer.status == 200 {
        let result = answer.json()["results"][0].clone();
        let columns = result["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        return Outcome::Done { columns, rows: result["rows"].clone(), affected: result["rows_affected"].as_u64().unwrap() };
    }
    let error = answer.json();
    Outcome::Failed(error["details"]["sqlite_extended_code"].as_i64().unwrap_or(-1), error["message"].as_str().unwrap().to_owned())
}

fn through_rusqlite(conn: &Connection, sql: &str) -> Outcome {
    let run = || -> rusqlite::Result<Outcome> {
        let mut statement = conn.prepare(sql)?;
        let columns: Vec<_> = statement.column_names().into_iter().map(str::to_owned).collect();
        let changes = !statement.readonly() && ["INSERT", "UPDATE", "DELETE", "REPLACE"].iter().any(|verb| sql.starts_with(verb));
        let mut rows = statement.raw_query();
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push((0..columns.len()).map(|at| as_json(row.get_ref_unwrap(at))).collect::<Vec<_>>());
        }
        drop(rows);
        Ok(Outcome::Done { columns, rows: json!(all), affected: if changes { conn.changes() } else { 0 } })
    };
    run().unwrap_or_else(|error| match error {
        rusqlite::Error::SqliteFailure(error, Some(message)) => Outcome::Failed(error.extended_code.into(), message),
        rusqlite::Error::SqlInputError { error, msg, .. } => Outcome::Failed(error.extended_code.into(), msg),
        other => panic!("{sql}: {other}"),
    })
}

fn as_json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => json!(value),
        ValueRef::Real(value) => json!(value),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => json!({ "base64": BASE64.encode(bytes) }),
    }
}

/// Tables, then rows, then anything.
fn story() -> impl Strategy<Value = Vec<String>> {
    let tables = (table("t"), table("u"));
    (tables, proptest::collection::vec(insert(), 4..12), proptest::collection::vec(statement(), 8..30))
        .prop_map(|((first, second), inserts, statements)| [vec![first, second], inserts, statements].concat())
}

/// Columns are `a`, `b`, `c` and `id`, so that most statements fit; what they may hold is random.
fn table(name: &'static str) -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec!["", "INT", "INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC"]);
    let rule = prop::sample::select(vec!["", "", "", "NOT NULL", "UNIQUE", "DEFAULT 7", "CHECK (b <> 3)", "COLLATE NOCASE"]);
    let column = (kind.clone(), rule);
    let third = prop::sample::select(vec!["c AS (a)", "c AS (a || b) STORED", "c", "c REFERENCES t (id)", "c DEFAULT (abs(-5))"]);
    let strict = prop::sample::select(vec!["", "", " WITHOUT ROWID"]);
    (column.clone(), column, third, strict).prop_map(move |((ta, ra), (tb, rb), c, end)| {
        format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY, a {ta} {ra}, b {tb} {rb}, {c}){end}")
    })
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (-3..6_i64).prop_map(|value| value.to_string()),
        1 => prop::sample::select(vec!["9223372036854775807", "-9223372036854775808", "9007199254740993", "1e3", "0.1", "-0.0", "2.5e-8"]).prop_map(str::to_owned),
        2 => "[a-cA-C]{0,3}".prop_map(|text| format!("'{text}'")),
        1 => prop::sample::select(vec!["NULL", "NULL", "x'00ff'", "x''", "'é€'", "' 1'", "'0x10'", "'1e2'", "CURRENT_TABLE"]).prop_map(str::to_owned),
    ]
}

fn insert() -> impl Strategy<Value = String> {
    let verb = prop::sample::select(vec!["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "REPLACE"]);
    let table = prop::sample::select(vec!["t", "u"]);
    let more = prop::sample::select(vec!["", "", "", " RETURNING *", " RETURNING id + 1 AS next, typeof(a)"]);
    (verb, table, 1..9_i64, literal(), literal(), more)
        .prop_map(|(verb, table, id, a, b, more)| format!("{verb} INTO {table} (id, a, b) VALUES ({id}, {a}, {b}){more}"))
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![3 => prop::sample::select(vec!["id", "a", "b", "c"]).prop_map(str::to_owned), 2 => literal()];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let infix = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "||", "=", "<>", "<", ">=", "AND", "OR", "IS", "IS NOT", "LIKE", "GLOB", "&", "<<", "->>",
        ]);
        let function = prop::sample::select(vec![
            "abs",
            "length",
            "lower",
            "upper",
            "typeof",
            "hex",
            "quote",
            "unicode",
            "trim",
            "round",
            "sign",
            "json",
            "json_quote",
            "date",
            "char",
            "nullif",
        ]);
        prop_oneof![
            (inner.clone(), infix, inner.clone()).prop_map(|(l, op, r)| format!("({l} {op} {r})")),
            (function, inner.clone()).prop_map(|(f, x)| format!("{f}({x})")),
            (prop::sample::select(vec!["instr", "coalesce", "max", "min", "ifnull", "printf"]), inner.clone(), inner.clone())
                .prop_map(|(f, x, y)| format!("{f}({x}, {y})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(x, y, z)| format!("replace({x}, {y}, {z})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(x, y, z)| format!("CASE WHEN {x} THEN {y} ELSE {z} END")),
            (inner.clone(), prop::sample::select(vec!["INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC"]))
                .prop_map(|(x, kind)| format!("CAST({x} AS {kind})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(x, y, z)| format!("({x} BETWEEN {y} AND {z})")),
        ]
    })
}

fn statement() -> impl Strategy<Value = String> {
    let x = expression;
    let name = || prop::sample::select(vec!["t", "u"]);
    prop_oneof![
        3 => insert(),
        6 => (x(), x(), name()).prop_map(|(value, when, table)| format!("SELECT id, a, b, c, {value} AS value FROM {table} WHERE {when} ORDER BY id")),
        2 => (x(), name()).prop_map(|(value, table)| format!("SELECT {value} AS k, count(*), sum(id), group_concat(id) FROM {table} GROUP BY 1 ORDER BY 1, 2, 3")),
        2 => (x(), name()).prop_map(|(value, table)| format!("SELECT id, row_number() OVER (ORDER BY {value}, id), sum(id) OVER (ORDER BY id ROWS 1 PRECEDING) FROM {table} ORDER BY id")),
        2 => literal().prop_map(|a| format!("SELECT t.id, u.id FROM t LEFT JOIN u ON t.id = u.id AND u.a IS NOT {a} ORDER BY 1, 2")),
        2 => (x(), x(), name()).prop_map(|(value, when, table)| format!("UPDATE {table} SET a = {value} WHERE {when}")),
        1 => (x(), name()).prop_map(|(when, table)| format!("DELETE FROM {table} WHERE {when} RETURNING id")),
        1 => (literal(), name()).prop_map(|(a, table)| format!("INSERT INTO {table} (id, a, b) VALUES (1, {a}, 2) ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = b + 1 RETURNING *")),
        1 => name().prop_map(|table| format!("INSERT INTO {table} (a, b) SELECT b, a FROM t WHERE id < 3")),
        1 => prop::sample::select(vec![
            "CREATE INDEX by_a ON t (a, b)", "CREATE UNIQUE INDEX by_b ON u (b)", "CREATE INDEX part ON t (b) WHERE a > 1", "DROP INDEX by_a",
            "CREATE VIEW v AS SELECT id, a FROM t WHERE a IS NOT NULL", "SELECT * FROM v ORDER BY id", "DROP VIEW v",
            "ALTER TABLE t ADD COLUMN d DEFAULT 'new'", "SELECT * FROM t ORDER BY id", "SELECT d FROM t ORDER BY id", "ALTER TABLE t DROP COLUMN d",
            "CREATE TRIGGER copy AFTER INSERT ON t BEGIN UPDATE u SET a = new.a WHERE id = new.id; END", "DROP TRIGGER copy",
            "CREATE TRIGGER veto BEFORE DELETE ON u BEGIN SELECT raise(ABORT, 'not this one') WHERE old.id = 2; END",
            "PRAGMA table_info(t)", "PRAGMA foreign_key_check", "PRAGMA user_version = 5", "PRAGMA user_version", "ANALYZE", "REINDEX",
            "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE '!_tenantry!_%' ESCAPE '!' AND name <> '_outbox' AND name NOT LIKE 'sqlite_%' ORDER BY name",
            "SELECT * FROM nowhere", "SELECT nothing FROM t", "SELECT count(*) FORM t", "SELECT max()", "INSERT INTO t (zz) VALUES (1)", "DROP TABLE nowhere",
        ]).prop_map(str::to_owned),
        1 => (x(), x()).prop_map(|(one, other)| format!("SELECT id, {one} FROM t UNION SELECT id, {other} FROM u ORDER BY 1, 2")),
        1 => x().prop_map(|value| format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT i, (SELECT {value} FROM t WHERE id = i) FROM n")),
    ]
}

//! Batches do what they would on one plain SQLite connection, however they are run: as one job, or the long way.

use proptest::prelude::*;

use super::*;

const STATEMENTS: [&str; 26] = [
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "SAVEPOINT b",
    "RELEASE a",
    "RELEASE b",
    "ROLLBACK TO a",
    "ROLLBACK TO b",
    "INSERT INTO t(v) VALUES ('x')",
    "INSERT INTO t(v) VALUES ('y'), ('z')",
    "INSERT OR ROLLBACK INTO t(v) VALUES ('x')",
    "INSERT OR IGNORE INTO t(v) VALUES ('x')",
    "INSERT OR REPLACE INTO t(v) VALUES ('x')",
    "INSERT INTO child VALUES (99)",
    "INSERT INTO child SELECT id FROM t",
    "DELETE FROM t WHERE v = 'x'",
    "DELETE FROM child",
    "UPDATE t SET v = v || '!' WHERE v = 'y' RETURNING id, v",
    "SELECT count(*), max(v) FROM t",
    "SELECT nope",
    "CREATE TABLE made(a)",
    "DROP TABLE made",
    "INSERT INTO made VALUES (1)",
    "SELECT count(*) FROM child",
];

fn condition(steps: usize) -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        (0..steps).prop_map(|step| json!({"type": "ok", "step": step})),
        (0..steps).prop_map(|step| json!({"type": "error", "step": step})),
        Just(json!({"type": "is_autocommit"})),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|cond| json!({"type": "not", "cond": cond})),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|conds| json!({"type": "and", "conds": conds})),
            prop::collection::vec(inner, 0..3).prop_map(|conds| json!({"type": "or", "conds": conds})),
        ]
    })
}

/// Most begin and end as one transaction does, so that both ways are taken.
fn batch() -> impl Strategy<Value = Vec<(Option<Json>, &'static str)>> {
    let middle = prop::collection::vec(prop::sample::select(&STATEMENTS[..]), 0..8);
    (middle, prop::bool::weighted(0.6)).prop_flat_map(|(mut statements, whole)| {
        if whole {
            statements.insert(0, "BEGIN");
            statements.extend(["COMMIT", "ROLLBACK"]);
        }
        let step = |(at, sql)| {
            let condition = match at {
                0 => Just(None).boxed(),
                _ => prop_oneof![2 => Just(None), 3 => Just(ok(at - 1)), 2 => condition(at).prop_map(Some)].boxed(),
            };
            (condition, Just(sql))
        };
        statements.into_iter().enumerate().map(step).collect::<Vec<_>>()
    })
}

/// What the specification says, on one connection.
fn plainly(conn: &rusqlite::Connection, steps: &[(Option<Json>, &str)]) -> Vec<Json> {
    let mut ran: Vec<Json> = Vec::new();
    for (condition, sql) in steps {
        let holds = condition.as_ref().is_none_or(|condition| holds(condition, &ran, conn.is_autocommit()));
        ran.push(if holds { one(conn, sql) } else { Json::Null });
    }
    ran
}

fn holds(condition: &Json, ran: &[Json], autocommit: bool) -> bool {
    let step = || &ran[condition["step"].as_u64().unwrap() as usize];
    let mut each = condition["conds"].as_array().into_iter().flatten().map(|condition| holds(condition, ran, autocommit));
    match condition["type"].as_str().unwrap() {
        "ok" => step().is_array(),
        "error" => step().is_string(),
        "not" => !holds(&condition["cond"], ran, autocommit),
        "and" => each.all(|holds| holds),
        "or" => each.any(|holds| holds),
        _ => autocommit,
    }
}

/// Rows, or the code of the error: by the table that clients are told from.
fn one(conn: &rusqlite::Connection, sql: &str) -> Json {
    let run = || -> rusqlite::Result<Json> {
        let mut statement = conn.prepare(sql)?;
        let width = statement.column_count();
        let value = |row: &rusqlite::Row<'_>, at| {
            Ok(match row.get(at)? {
                rusqlite::types::Value::Integer(value) => json!(value.to_string()),
                rusqlite::types::Value::Text(text) => json!(text),
                _ => Json::Null,
            })
        };
        let rows = statement.query_map([], |row| (0..width).map(|at| value(row, at)).collect::<rusqlite::Result<Json>>())?;
        rows.collect()
    };
    run().unwrap_or_else(|error| json!(proto::Error::from(&Error::from(error)).code))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_does_what_it_would_on_one_connection(batches in prop::collection::vec(batch(), 1..4)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let bench = Bench::new();
            let conn = rusqlite::Connection::open_in_memory().unwrap();
            conn.execute_batch(SCHEMA).unwrap();
            let stream = &mut Stream::new();
            for steps in &batches {
                prop_assert_eq!(bench.batch(stream, steps).await, plainly(&conn, steps), "{:?}", steps);
                prop_assert_eq!(stream.in_transaction(), !conn.is_autocommit());
                for table in ["SELECT * FROM t ORDER BY id", "SELECT * FROM child ORDER BY t", "SELECT * FROM made"] {
                    prop_assert_eq!(bench.execute(stream, table).await, one(&conn, table), "{}", table);
                }
            }
            bench.engine.stop();
            Ok(())
        })?;
    }
}

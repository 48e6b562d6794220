use std::time::Duration;

use serde_json::{Value as Json, json};

use super::*;
use crate::config;
use crate::sqlite::{Engine, Gate, Migrations, Options, Party};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE);
                      CREATE TABLE child(t INTEGER REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED);";

/// A tenant's database, and streams on it.
struct Bench {
    _dir: tempfile::TempDir,
    engine: Arc<Engine>,
    cx: Context,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut config::Hrana)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&config::Sqlite::default(), &config::Executor::default());
        let options = Options {
            level: config::Level::Full,
            max_bytes: 0,
            party: Party { id: 7, running_max: 4 },
            migrations: Migrations::from_files("test", [("0001_t.up.sql", SCHEMA)]).unwrap().into(),
            keep_before: None,
            sandboxed: true,
            create: true,
            held: Arc::default(),
            answers: crate::sqlite::Allowance::unbounded(),
        };
        let database = Database::new(&engine, &Gate::new(), dir.path().canonicalize().unwrap().join("t.sqlite"), options);
        let mut hrana = config::Hrana { turn_wait_ms: 100, ..config::Hrana::default() };
        change(&mut hrana);
        let cx = Context::new(database, Arc::default(), Scopes::ALL, Bounds::from(&hrana));
        Bench { _dir: dir, engine, cx }
    }

    /// The answer as a client reads it: the response, or the error under `error`.
    async fn ask(&self, stream: &mut Stream, request: Json) -> Json {
        let cx = Context { answered: Arc::default(), ..self.cx.clone() };
        // One that would wait for ever fails the test instead.
        let answered = tokio::time::timeout(Duration::from_secs(60), stream.run(&cx, serde_json::from_value(request).unwrap()));
        match answered.await.expect("an answer") {
            Ok(response) => {
                let mut out = Vec::new();
                response.write(&mut out);
                serde_json::from_slice(&out).unwrap()
            }
            Err(error) => {
                let mut out = Vec::new();
                proto::Error::from(&error).write(&mut out);
                json!({"error": serde_json::from_slice::<Json>(&out).unwrap()})
            }
        }
    }

    /// Rows, plainly; or the code of the error.
    async fn execute(&self, stream: &mut Stream, sql: &str) -> Json {
        let answer = self.ask(stream, json!({"type": "execute", "stmt": {"sql": sql}})).await;
        plain(&answer["result"]).unwrap_or_else(|| answer["error"]["code"].clone())
    }

    /// What became of each step: its rows, the code of its error, or null where it was skipped.
    async fn batch(&self, stream: &mut Stream, steps: &[(Option<Json>, &str)]) -> Vec<Json> {
        let steps: Vec<_> = steps.iter().map(|(condition, sql)| json!({"condition": condition, "stmt": {"sql": sql}})).collect();
        let answer = self.ask(stream, json!({"type": "batch", "batch": {"steps": steps}})).await;
        let result = &answer["result"];
        let Some(results) = result["step_results"].as_array() else { panic!("{answer}") };
        let errors = result["step_errors"].as_array().unwrap();
        results.iter().zip(errors).map(|(done, failed)| plain(done).unwrap_or_else(|| failed["code"].clone())).collect()
    }

    /// A whole transaction as `@libsql/client` sends it.
    async fn transaction(&self, stream: &mut Stream, begin: &str, statements: &[&str]) -> Vec<Json> {
        let mut steps = vec![(None, begin)];
        for sql in statements {
            let before = json!({"type": "ok", "step": steps.len() - 1});
            let open = json!({"type": "not", "cond": {"type": "is_autocommit"}});
            steps.push((Some(json!({"type": "and", "conds": [before, open]})), sql));
        }
        steps.push((Some(json!({"type": "ok", "step": steps.len() - 1})), "COMMIT"));
        steps.push((Some(json!({"type": "not", "cond": {"type": "ok", "step": steps.len() - 1}})), "ROLLBACK"));
        self.batch(stream, &steps).await
    }

    async fn values(&self) -> Json {
        self.execute(&mut Stream::new(), "SELECT v FROM t ORDER BY id").await
    }

    fn commits(&self) -> u64 {
        self.engine.counters().commits.load(Relaxed)
    }
}

fn plain(result: &Json) -> Option<Json> {
    let rows = result["rows"].as_array()?;
    let value = |value: &Json| value.get("value").or(value.get("base64")).cloned().unwrap_or(Json::Null);
    Some(rows.iter().map(|row| Json::Array(row.as_array().unwrap().iter().map(value).collect())).collect())
}

fn ok(step: usize) -> Option<Json> {
    Some(json!({"type": "ok", "step": step}))
}

#[tokio::test]
async fn a_statement_outside_a_transaction_needs_no_connection_of_its_own() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    assert_eq!(bench.execute(stream, "INSERT INTO t(v) VALUES ('a'), ('b')").await, json!([]));
    assert_eq!(bench.execute(stream, "SELECT id, v FROM t WHERE id = 2").await, json!([["2", "b"]]));
    assert_eq!(bench.execute(stream, "WITH x AS (SELECT 'c' AS c) INSERT INTO t(v) SELECT c FROM x RETURNING v").await, json!([["c"]]));
    let inserted = bench.ask(stream, json!({"type": "execute", "stmt": {"sql": "INSERT INTO t(v) VALUES ('d'), ('e')"}})).await;
    assert_eq!((&inserted["result"]["affected_row_count"], &inserted["result"]["last_insert_rowid"]), (&json!(2), &json!("5")));
    let read = bench.ask(stream, json!({"type": "execute", "stmt": {"sql": "SELECT v, 1 AS one FROM t", "want_rows": false}})).await;
    assert_eq!(read["result"]["cols"], json!([{"name": "v", "decltype": "TEXT"}, {"name": "one", "decltype": null}]));
    assert_eq!((&read["result"]["rows"], &read["result"]["last_insert_rowid"]), (&json!([]), &Json::Null));
    assert!(!stream.in_transaction());
}

#[tokio::test]
async fn arguments_are_bound_by_position_and_by_name() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    let bound = async |stream: &mut Stream, stmt: Json| {
        let answer = bench.ask(stream, json!({"type": "execute", "stmt": stmt})).await;
        plain(&answer["result"]).unwrap_or_else(|| answer["error"]["message"].clone())
    };
    let int = |value: i64| json!({"type": "integer", "value": value.to_string()});
    let named = |name: &str, value| json!({"name": name, "value": int(value)});
    assert_eq!(bound(stream, json!({"sql": "SELECT ?2, ?1", "args": [int(1), int(2)]})).await, json!([["2", "1"]]));
    assert_eq!(
        bound(stream, json!({"sql": "SELECT :a, @b, $c", "named_args": [named("a", 1), named("@b", 2), named("c", 3)]})).await,
        json!([["1", "2", "3"]])
    );
    // Where both name a parameter, the name wins.
    assert_eq!(
        bound(stream, json!({"sql": "SELECT ?, :a", "args": [int(1), int(2)], "named_args": [named("a", 3)]})).await,
        json!([["1", "3"]])
    );
    for wrong in [
        json!({"sql": "SELECT ?", "args": []}),
        json!({"sql": "SELECT ?", "args": [int(1), int(2)]}),
        json!({"sql": "SELECT :a", "named_args": [named("b", 1)]}),
        json!({"sql": "SELECT :a, :b", "named_args": [named("a", 1)]}),
    ] {
        assert!(bound(stream, wrong.clone()).await.is_string(), "{wrong}");
    }
}

#[tokio::test]
async fn a_step_runs_when_its_condition_holds() {
    let bench = Bench::new();
    let is = |kind: &str, step: usize| json!({"type": kind, "step": step});
    let all = |kind: &str, conds: Vec<Json>| Some(json!({"type": kind, "conds": conds}));
    let not = |cond: Json| json!({"type": "not", "cond": cond});
    let autocommit = || json!({"type": "is_autocommit"});
    let ran = bench
        .batch(
            &mut Stream::new(),
            &[
                (None, "SELECT 1"),
                (None, "SELECT nope"),
                (ok(0), "SELECT 2"),
                (ok(1), "SELECT 3"),
                (Some(is("error", 1)), "SELECT 4"),
                // Skipped is neither.
                (Some(is("error", 3)), "SELECT 5"),
                (Some(not(is("ok", 3))), "SELECT 6"),
                (all("and", vec![is("ok", 0), is("error", 1)]), "SELECT 7"),
                (all("and", vec![is("ok", 0), is("ok", 1)]), "SELECT 8"),
                (all("or", vec![is("ok", 1), is("ok", 0)]), "SELECT 9"),
                (all("or", vec![]), "SELECT 10"),
                (all("and", vec![]), "SELECT 11"),
                (Some(autocommit()), "BEGIN"),
                (Some(autocommit()), "SELECT 12"),
                (Some(not(autocommit())), "SELECT 13"),
            ],
        )
        .await;
    let rows = |value: &str| json!([[value]]);
    let skipped = Json::Null;
    let wanted = [
        rows("1"),
        json!("SQLITE_ERROR"),
        rows("2"),
        skipped.clone(),
        rows("4"),
        skipped.clone(),
        rows("6"),
        rows("7"),
        skipped.clone(),
        rows("9"),
        skipped.clone(),
        rows("11"),
        json!([]),
        skipped,
        rows("13"),
    ];
    assert_eq!(ran, wanted);
}

#[tokio::test]
async fn a_whole_transaction_in_one_batch_is_one_job_and_all_or_nothing() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    bench.cx.database.ensure_open().await.unwrap();
    for (n, begin) in ["BEGIN", "BEGIN IMMEDIATE", "BEGIN DEFERRED"].into_iter().enumerate() {
        let insert = format!("INSERT INTO t(v) VALUES ('{begin}')");
        let before = bench.commits();
        let ran = bench.transaction(stream, begin, &["SELECT 1", &insert, "SELECT count(*) FROM t"]).await;
        assert_eq!(ran, [json!([]), json!([["1"]]), json!([]), json!([[(n + 1).to_string()]]), json!([]), Json::Null]);
        assert_eq!((bench.commits() - before, stream.in_transaction()), (1, false));
    }
    let clash =
        bench.transaction(stream, "BEGIN", &["INSERT INTO t(v) VALUES ('x')", "INSERT INTO t(v) VALUES ('BEGIN')", "SELECT 1"]).await;
    assert_eq!(clash, [json!([]), json!([]), json!("SQLITE_CONSTRAINT"), Json::Null, Json::Null, json!([])]);
    assert_eq!(bench.values().await, json!([["BEGIN"], ["BEGIN IMMEDIATE"], ["BEGIN DEFERRED"]]));
}

#[tokio::test]
async fn a_foreign_key_unmet_fails_the_commit_and_not_its_neighbours() {
    let bench = Bench::new();
    let orphan = async {
        let ran = bench.transaction(&mut Stream::new(), "BEGIN", &["INSERT INTO child VALUES (99)"]).await;
        assert_eq!(ran, [json!([]), json!([]), json!("SQLITE_CONSTRAINT"), json!([])]);
    };
    let good = async {
        let ran = bench.transaction(&mut Stream::new(), "BEGIN", &["INSERT INTO t(v) VALUES ('good')"]).await;
        assert_eq!(ran[2], json!([]));
    };
    tokio::join!(orphan, good);
    assert_eq!(bench.values().await, json!([["good"]]));
    assert_eq!(bench.execute(&mut Stream::new(), "SELECT count(*) FROM child").await, json!([["0"]]));
}

#[tokio::test]
async fn a_batch_that_is_not_one_transaction_does_what_sqlite_does() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    // A ROLLBACK in the middle: what follows is skipped by its condition, or stands alone.
    let ran = bench
        .batch(
            stream,
            &[
                (None, "BEGIN"),
                (ok(0), "INSERT INTO t(v) VALUES ('gone')"),
                (ok(1), "ROLLBACK"),
                (Some(json!({"type": "not", "cond": {"type": "is_autocommit"}})), "INSERT INTO t(v) VALUES ('skipped')"),
                (ok(2), "INSERT INTO t(v) VALUES ('alone')"),
                (None, "COMMIT"),
            ],
        )
        .await;
    assert_eq!(ran, [json!([]), json!([]), json!([]), Json::Null, json!([]), json!("SQLITE_ERROR")]);
    // A conflict that rolls the whole transaction back.
    let ran = bench
        .transaction(stream, "BEGIN IMMEDIATE", &["INSERT INTO t(v) VALUES ('x')", "INSERT OR ROLLBACK INTO t(v) VALUES ('alone')"])
        .await;
    assert_eq!(ran, [json!([]), json!([]), json!("SQLITE_CONSTRAINT"), Json::Null, json!("SQLITE_ERROR")]);
    assert_eq!((bench.values().await, stream.in_transaction()), (json!([["alone"]]), false));
}

#[tokio::test]
async fn a_transaction_goes_on_over_requests_and_nobody_sees_it_before_its_commit() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    for begin in ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT s"] {
        let end = if begin == "SAVEPOINT s" { "RELEASE s" } else { "COMMIT" };
        bench.execute(stream, begin).await;
        assert!(stream.in_transaction());
        assert_eq!(bench.execute(stream, &format!("INSERT INTO t(v) VALUES ('{begin}') RETURNING v")).await, json!([[begin]]));
        assert_eq!(bench.execute(stream, "SELECT nope").await, json!("SQLITE_ERROR"));
        assert_eq!(bench.execute(stream, "BEGIN").await, json!("SQLITE_ERROR"));
        assert_eq!(bench.execute(&mut Stream::new(), &format!("SELECT v FROM t WHERE v = '{begin}'")).await, json!([]));
        assert_eq!(bench.execute(stream, end).await, json!([]));
        assert!(!stream.in_transaction());
    }
    assert_eq!(bench.values().await, json!([["BEGIN"], ["BEGIN IMMEDIATE"], ["SAVEPOINT s"]]));
    for ends in ["COMMIT", "ROLLBACK", "RELEASE s", "ROLLBACK TO s"] {
        assert_eq!(bench.execute(stream, ends).await, json!("SQLITE_ERROR"), "{ends}");
    }
}

#[tokio::test]
async fn savepoints_are_rolled_back_and_released_inside_a_transaction() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    let script = "BEGIN; INSERT INTO t(v) VALUES ('a'); SAVEPOINT \"x y\"; INSERT INTO t(v) VALUES ('b'); SAVEPOINT z; INSERT INTO t(v) VALUES ('c');
                  ROLLBACK TO \"X Y\"; INSERT INTO t(v) VALUES ('d'); RELEASE \"x y\";";
    assert_eq!(bench.ask(stream, json!({"type": "sequence", "sql": script})).await, json!({"type": "sequence"}));
    assert_eq!(bench.execute(stream, "RELEASE z").await, json!("SQLITE_ERROR"));
    assert_eq!(bench.execute(stream, "COMMIT").await, json!([]));
    assert_eq!(bench.values().await, json!([["a"], ["d"]]));
}

#[tokio::test]
async fn a_deferred_transaction_waits_for_the_turn_at_its_first_write() {
    let bench = Bench::new();
    let (first, second) = (&mut Stream::new(), &mut Stream::new());
    bench.execute(first, "BEGIN").await;
    bench.execute(second, "BEGIN").await;
    assert_eq!(bench.execute(first, "INSERT INTO t(v) VALUES ('first')").await, json!([]));
    assert_eq!(bench.execute(second, "INSERT INTO t(v) VALUES ('second')").await, json!("SQLITE_BUSY"));
    assert!(second.in_transaction());
    bench.execute(first, "COMMIT").await;
    assert_eq!(bench.execute(second, "INSERT INTO t(v) VALUES ('second')").await, json!([]));
    bench.execute(second, "COMMIT").await;
    assert_eq!(bench.values().await, json!([["first"], ["second"]]));
}

#[tokio::test]
async fn a_stale_snapshot_cannot_write_and_does_not_keep_the_turn() {
    let bench = Bench::new();
    let (stale, other) = (&mut Stream::new(), &mut Stream::new());
    bench.execute(stale, "BEGIN").await;
    bench.execute(stale, "SELECT count(*) FROM t").await;
    bench.execute(other, "INSERT INTO t(v) VALUES ('newer')").await;
    let refused = bench.ask(stale, json!({"type": "execute", "stmt": {"sql": "INSERT INTO t(v) VALUES ('stale')"}})).await;
    assert_eq!(refused["error"]["code"], json!("SQLITE_BUSY"), "{refused}");
    assert_eq!(bench.execute(other, "INSERT INTO t(v) VALUES ('still')").await, json!([]));
    assert_eq!(bench.execute(stale, "SELECT count(*) FROM t").await, json!([["0"]]));
    bench.execute(stale, "ROLLBACK").await;
    assert_eq!(bench.values().await, json!([["newer"], ["still"]]));
}

#[tokio::test]
async fn a_transaction_that_only_reads_does_not_write() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    let ran = bench.transaction(stream, "BEGIN TRANSACTION READONLY", &["SELECT 1", "INSERT INTO t(v) VALUES ('x')"]).await;
    assert_eq!(ran, [json!([]), json!([["1"]]), json!("SQLITE_READONLY"), Json::Null, json!([])]);
    bench.execute(stream, "BEGIN READONLY").await;
    assert_eq!(bench.execute(stream, "INSERT INTO t(v) VALUES ('x')").await, json!("SQLITE_READONLY"));
    assert_eq!(bench.execute(stream, "SELECT count(*) FROM t").await, json!([["0"]]));
    assert_eq!(bench.execute(stream, "COMMIT").await, json!([]));
}

#[tokio::test]
async fn a_sequence_stops_at_the_first_failure_and_keeps_what_was_committed() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    let script =
        "INSERT INTO t(v) VALUES ('a'); -- ;\n CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END; INSERT INTO t(v) VALUES ('b');
                  SELECT nope; INSERT INTO t(v) VALUES ('c')";
    let answer = bench.ask(stream, json!({"type": "sequence", "sql": script})).await;
    assert_eq!(answer["error"]["code"], json!("SQLITE_ERROR"));
    assert_eq!(bench.values().await, json!([["a"], ["b"]]));
}

#[tokio::test]
async fn foreign_keys_can_be_left_out_by_whoever_may_change_the_schema() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    let orphan = "INSERT INTO child VALUES (99)";
    let migrate = bench
        .batch(
            stream,
            &[(None, "PRAGMA foreign_keys=off"), (None, "BEGIN"), (ok(1), orphan), (ok(2), "COMMIT"), (None, "PRAGMA foreign_keys=on")],
        )
        .await;
    assert_eq!(migrate, vec![json!([]); 5]);
    assert_eq!(bench.execute(stream, orphan).await, json!("SQLITE_CONSTRAINT"));
    bench.execute(stream, "PRAGMA foreign_keys=off").await;
    assert_eq!(bench.execute(stream, orphan).await, json!([]));
    let writer = Bench { cx: Context { scopes: Scopes::of(Scope::SqlWrite), ..bench.cx.clone() }, ..bench };
    assert_eq!(writer.execute(&mut Stream::new(), "PRAGMA foreign_keys=off").await, json!("FORBIDDEN"));
}

#[tokio::test]
async fn scopes_and_the_sandbox_hold_inside_a_transaction_too() {
    let bench = Bench::new();
    let reader = Bench { cx: Context { scopes: Scopes::of(Scope::SqlRead), ..bench.cx.clone() }, ..bench };
    let stream = &mut Stream::new();
    assert_eq!(reader.execute(stream, "BEGIN IMMEDIATE").await, json!("FORBIDDEN"));
    for begin in ["SELECT 1", "BEGIN"] {
        reader.execute(stream, begin).await;
        assert_eq!(reader.execute(stream, "SELECT count(*) FROM t").await, json!([["0"]]));
        assert_eq!(reader.execute(stream, "INSERT INTO t(v) VALUES ('x')").await, json!("FORBIDDEN"));
        for sql in [
            "ATTACH 'x' AS y",
            "PRAGMA journal_mode=DELETE",
            "SELECT load_extension('x')",
            "VACUUM INTO 'x'",
            "SELECT * FROM _tenantry_migrations",
        ] {
            assert_eq!(reader.execute(stream, sql).await, json!("SQL_DENIED"), "{sql}");
        }
    }
}

#[tokio::test]
async fn a_statement_is_described_with_what_its_transaction_has_made() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    let describe = |sql: &str| json!({"type": "describe", "sql": sql});
    let answer = bench.ask(stream, describe("SELECT v, :a, ? FROM t")).await;
    let wanted = json!({
        "params": [{"name": ":a"}, {"name": null}],
        "cols": [{"name": "v", "decltype": "TEXT"}, {"name": ":a", "decltype": null}, {"name": "?", "decltype": null}],
        "is_explain": false, "is_readonly": true,
    });
    assert_eq!(answer["result"], wanted);
    assert_eq!(bench.ask(stream, describe("EXPLAIN DELETE FROM t")).await["result"]["is_explain"], json!(true));
    assert_eq!(bench.ask(stream, describe("DELETE FROM t")).await["result"]["is_readonly"], json!(false));
    assert_eq!(bench.ask(stream, describe("SELECT a FROM new")).await["error"]["code"], json!("SQLITE_ERROR"));
    bench.execute(stream, "BEGIN").await;
    bench.execute(stream, "CREATE TABLE new(a INT)").await;
    assert_eq!(bench.ask(stream, describe("SELECT a FROM new")).await["result"]["cols"], json!([{"name": "a", "decltype": "INT"}]));
}

#[tokio::test]
async fn an_answer_is_bounded_by_the_plan_over_all_requests_of_a_pipeline() {
    let bench = Bench::new();
    let plan = Plan { result_rows: 10, ..Plan::default() };
    let cx = Context::new(bench.cx.database.clone(), Arc::new(plan), Scopes::ALL, bench.cx.bounds);
    let six = || {
        serde_json::from_value(json!({"type": "execute", "stmt": {"sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 6"}})).unwrap()
    };
    let stream = &mut Stream::new();
    stream.run(&cx, six()).await.unwrap();
    assert_eq!(stream.run(&cx, six()).await.unwrap_err().code(), Code::ResultTooLarge);
}

#[tokio::test]
async fn a_stored_text_serves_until_it_is_closed_and_a_closed_stream_no_more() {
    let bench = Bench::new();
    let stream = &mut Stream::new();
    bench.ask(stream, json!({"type": "store_sql", "sql_id": 3, "sql": "SELECT 'stored'"})).await;
    let ask = || json!({"type": "execute", "stmt": {"sql_id": 3}});
    assert_eq!(plain(&bench.ask(stream, ask()).await["result"]), Some(json!([["stored"]])));
    bench.ask(stream, json!({"type": "close_sql", "sql_id": 3})).await;
    assert_eq!(bench.ask(stream, ask()).await["error"]["code"], json!("BAD_REQUEST"));
    bench.execute(stream, "BEGIN").await;
    bench.ask(stream, json!({"type": "close"})).await;
    assert!(!stream.in_transaction());
    assert_eq!(bench.execute(stream, "SELECT 1").await, json!("BAD_REQUEST"));
}

#[tokio::test]
async fn a_transaction_ended_from_outside_says_so_once_and_the_stream_goes_on() {
    let bench = Bench::with(|hrana| hrana.transaction_idle_ms = 1);
    let stream = &mut Stream::new();
    bench.execute(stream, "BEGIN IMMEDIATE").await;
    bench.execute(stream, "INSERT INTO t(v) VALUES ('idle')").await;
    while stream.in_transaction() {
        bench.engine.tick();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(bench.execute(&mut Stream::new(), "INSERT INTO t(v) VALUES ('other')").await, json!([]));
    assert_eq!(bench.execute(stream, "INSERT INTO t(v) VALUES ('late')").await, json!("STATEMENT_TIMEOUT"));
    assert_eq!(bench.execute(stream, "SELECT v FROM t").await, json!([["other"]]));
}

#[tokio::test]
async fn what_is_refused_after_it_was_done_takes_its_transaction_with_it() {
    let bench = Bench::new();
    let plan = Plan { result_rows: 1, ..Plan::default() };
    let bench = Bench { cx: Context { plan: Arc::new(plan), ..bench.cx.clone() }, ..bench };
    bench.execute(&mut Stream::new(), "CREATE TABLE plain(a)").await;
    let (rename, many) = ("ALTER TABLE plain RENAME TO _tenantry_plain", "INSERT INTO t(v) VALUES ('a'), ('b') RETURNING v");
    for (sql, code) in [(rename, "SQL_DENIED"), (many, "RESULT_TOO_LARGE")] {
        let stream = &mut Stream::new();
        // Whoever ignores the error commits nothing: in one batch, and over several requests.
        let ran = bench.batch(stream, &[(None, "BEGIN"), (None, sql), (None, "COMMIT")]).await;
        assert_eq!(ran, [json!([]), json!(code), json!("SQLITE_ERROR")]);
        bench.execute(stream, "BEGIN IMMEDIATE").await;
        assert_eq!(bench.execute(stream, sql).await, json!(code));
        assert!(!stream.in_transaction());
        assert_eq!(bench.execute(stream, "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM plain)").await, json!([["0", "0"]]));
    }
}

mod differential;

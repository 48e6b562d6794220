use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::error::{Code, Result};
use crate::sqlite::database::tests::Bench;
use crate::sqlite::{Begin, Bounds, Gate, Limits, WriteTx};

const LONG: Duration = Duration::from_secs(3_600);

/// Tables that write each other in every way SQLite has.
const SCHEMA: &str = "
    CREATE TABLE a(id INTEGER PRIMARY KEY, v UNIQUE); CREATE TABLE seen(v); CREATE TABLE log(v); CREATE TABLE other(v);
    CREATE TABLE part(a INTEGER REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE bit(a INTEGER REFERENCES a ON DELETE SET NULL ON UPDATE CASCADE);
    CREATE TABLE keyed(k PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TRIGGER a_seen AFTER INSERT ON a BEGIN INSERT INTO seen VALUES (new.v); END;
    CREATE TRIGGER seen_log AFTER INSERT ON seen BEGIN INSERT INTO log VALUES (new.v); END;
    CREATE TRIGGER part_log AFTER DELETE ON part BEGIN INSERT INTO log VALUES (old.a); END;
    CREATE VIEW both AS SELECT a.v FROM a JOIN other USING (v);
    CREATE TRIGGER both_in INSTEAD OF INSERT ON both BEGIN INSERT INTO other VALUES (new.v); END;
    CREATE VIRTUAL TABLE words USING fts5(text);";

struct Told {
    _bench: Bench,
    database: Arc<Database>,
    commits: Arc<Mutex<Vec<Written>>>,
}

impl Told {
    async fn new() -> Told {
        let bench = Bench::new();
        let database = bench.database(&Gate::new());
        let commits: Arc<Mutex<Vec<Written>>> = Arc::default();
        let told = commits.clone();
        database.on_commit(move |written| told.lock().unwrap().push(written.clone()));
        let told = Told { _bench: bench, database, commits };
        told.script(SCHEMA).await.unwrap();
        told.take();
        told
    }

    async fn script(&self, sql: &'static str) -> Result<()> {
        let run = move |tx: &WriteTx<'_>| {
            let mut script = tx.script(sql);
            while let Some(mut prepared) = script.advance()? {
                prepared.run(|_| Ok(()))?;
            }
            Ok(())
        };
        self.database.write(Limits::default(), run).await
    }

    /// As one cached statement.
    async fn statement(&self, sql: &'static str) -> Result<()> {
        self.database.write(Limits::default(), move |tx| tx.prepare(sql)?.run(|_| Ok(())).map(drop)).await
    }

    async fn ours(&self, sql: &'static str) -> Result<()> {
        self.database.write(Limits::default(), move |tx| tx.execute(sql, []).map(drop)).await
    }

    fn take(&self) -> Vec<Written> {
        std::mem::take(&mut *self.commits.lock().unwrap())
    }

    /// The tables that one commit wrote; `*` for everything.
    fn one(&self, of: &str) -> Vec<String> {
        match &self.take()[..] {
            [one] if one.is_everything() => vec!["*".to_owned()],
            [one] => one.tables.iter().map(|table| table.to_string()).collect(),
            commits => panic!("{of}: {commits:?}"),
        }
    }
}

#[tokio::test]
async fn a_commit_tells_every_table_it_wrote_however_it_came_to() {
    let told = Told::new().await;
    for (sql, tables) in [
        ("INSERT INTO other VALUES (1)", &["other"][..]),
        ("INSERT OR IGNORE INTO A(id, v) VALUES (1, 'x')", &["a", "log", "seen"]),
        ("INSERT INTO part VALUES (1)", &["part"]),
        ("INSERT INTO bit VALUES (1)", &["bit"]),
        ("UPDATE a SET id = 2 WHERE id = 1", &["a", "bit", "part"]),
        ("DELETE FROM a WHERE id = 2", &["a", "bit", "log", "part"]),
        ("REPLACE INTO a(id, v) VALUES (1, 'x')", &["a", "bit", "log", "part", "seen"]),
        ("INSERT INTO a(id, v) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'y'", &["a", "log", "seen"]),
        ("INSERT INTO both VALUES (5)", &["both", "other"]),
        ("UPDATE other SET v = a.v FROM a", &["other"]),
        ("WITH n(v) AS (SELECT v FROM a) INSERT INTO log SELECT v FROM n", &["log"]),
        ("REPLACE INTO keyed VALUES ('k', 1)", &["keyed"]),
        ("DELETE FROM log", &["log"]),
        ("REPLACE INTO keyed SELECT 'n', max(v) FROM other RETURNING v", &["keyed"]),
        ("UPDATE a SET v = 'z' WHERE 0", &["a"]),
    ] {
        for _ in 0..2 {
            told.statement(sql).await.expect(sql);
            assert_eq!(told.one(sql), tables, "{sql}");
        }
    }
    for sql in ["CREATE TABLE more(x)", "ALTER TABLE more RENAME TO most", "CREATE INDEX i ON most(x)", "DROP TABLE most"] {
        told.statement(sql).await.unwrap();
        assert_eq!(told.one(sql), ["*"], "{sql}");
    }
    told.statement("INSERT INTO words VALUES ('x')").await.unwrap();
    assert!(told.one("a virtual table").contains(&"words".to_owned()));
    // Makes the tables of its statistics the first time.
    told.statement("ANALYZE").await.unwrap();
    told.take();
    for sql in ["CREATE TABLE IF NOT EXISTS a(x)", "SELECT count(*) FROM a", "ANALYZE"] {
        told.statement(sql).await.unwrap();
        assert!(told.take().iter().all(|written| !written.has("a")), "{sql} leaves the table as it was");
    }
}

#[tokio::test]
async fn a_statement_that_was_remembered_before_a_trigger_was_made_tells_what_the_trigger_writes() {
    let told = Told::new().await;
    const DELETE: &str = "DELETE FROM other";
    for run in [true, false] {
        let run = async || if run { told.statement(DELETE).await } else { told.ours(DELETE).await };
        told.script("DROP TRIGGER IF EXISTS g").await.unwrap();
        run().await.unwrap();
        run().await.unwrap();
        told.script("CREATE TRIGGER g AFTER DELETE ON other BEGIN INSERT INTO log VALUES (1); END").await.unwrap();
        told.take();
        for _ in 0..3 {
            run().await.unwrap();
            assert_eq!(told.one(DELETE), ["log", "other"]);
        }
    }
}

#[tokio::test]
async fn our_own_statements_and_scripts_tell_as_tenants_do() {
    let told = Told::new().await;
    for _ in 0..2 {
        told.ours("INSERT INTO seen VALUES (1)").await.unwrap();
        assert_eq!(told.one("ours"), ["log", "seen"]);
    }
    told.statement("INSERT INTO seen VALUES (1)").await.unwrap();
    assert_eq!(told.one("the same text as a tenant's"), ["log", "seen"]);
    told.script("INSERT INTO other VALUES (1); SELECT 1; INSERT INTO keyed VALUES ('s', 1)").await.unwrap();
    assert_eq!(told.one("a script"), ["keyed", "other"]);
    let batch = told.database.write(Limits::default(), |tx| tx.batch("INSERT INTO other VALUES (1); DELETE FROM keyed"));
    batch.await.unwrap();
    assert_eq!(told.one("a batch"), ["keyed", "other"]);
    let returning = told.database.write(Limits::default(), |tx| tx.row("DELETE FROM other RETURNING v", [], |row| row.get::<_, i64>(0)));
    returning.await.unwrap();
    assert_eq!(told.one("returning"), ["other"]);
}

#[tokio::test]
async fn what_shares_a_commit_is_told_together_and_a_job_that_failed_alone_is_not() {
    let told = Told::new().await;
    told.script("INSERT INTO a(id, v) VALUES (1, 1)").await.unwrap();
    told.take();
    let (failed, kept) = tokio::join!(
        told.script("INSERT INTO keyed VALUES (1, 1); INSERT INTO a(v) VALUES (1)"),
        told.statement("INSERT INTO other VALUES (1)")
    );
    assert_eq!(failed.unwrap_err().code(), Code::ConstraintViolation);
    kept.unwrap();
    assert_eq!(told.one("a group"), ["other"]);
    told.statement("SELECT count(*) FROM a").await.unwrap();
    assert_eq!(told.take(), [], "nothing was written");
}

#[tokio::test]
async fn a_transaction_over_several_requests_tells_at_its_commit() {
    let told = Told::new().await;
    let bounds = Bounds { wait: LONG, idle: LONG, idle_contended: LONG, whole: LONG, open: 3 };
    let begin = || told.database.begin(Begin::Immediate, true, bounds);
    let run = async |transaction: &crate::sqlite::Interactive, sql: &'static str| {
        let ran = transaction.run(LONG, move |t| t.statements(|reader| reader.prepare(sql)?.run(|_| Ok(()))).map(drop));
        ran.await.unwrap()
    };
    let transaction = begin().await.unwrap();
    run(&transaction, "INSERT INTO other VALUES (1)").await.unwrap();
    transaction.run(LONG, |t| t.savepoint("s", false)).await.unwrap().unwrap();
    run(&transaction, "INSERT INTO keyed VALUES (1, 1)").await.unwrap();
    transaction.run(LONG, |t| t.roll_back_to("s")).await.unwrap().unwrap();
    run(&transaction, "INSERT OR FAIL INTO a(id, v) VALUES (1, 1), (1, 2)").await.unwrap_err();
    assert_eq!(told.take(), [], "nothing is committed");
    transaction.run(LONG, |t| t.commit()).await.unwrap().unwrap();
    let tables = told.one("a transaction");
    assert!(["a", "seen", "log", "other"].iter().all(|table| tables.iter().any(|one| one == table)), "{tables:?}");

    let transaction = begin().await.unwrap();
    run(&transaction, "INSERT INTO other VALUES (1)").await.unwrap();
    transaction.run(LONG, |t| t.roll_back()).await.unwrap();
    drop(transaction);
    told.statement("INSERT INTO seen VALUES (1)").await.unwrap();
    assert_eq!(told.one("after a rollback"), ["log", "seen"]);
}

#[tokio::test]
async fn temporary_tables_are_nobodys_and_a_migration_is_everything() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let commits: Arc<Mutex<Vec<Written>>> = Arc::default();
    let told = commits.clone();
    database.on_commit(move |written| told.lock().unwrap().push(written.clone()));
    database.ensure_open().await.unwrap();
    assert_eq!(*commits.lock().unwrap(), [Written::everything()], "it was brought up to date");
    let told = Told { _bench: bench, database, commits };
    told.take();
    told.script("CREATE TEMP TABLE x AS SELECT 1 AS v; INSERT INTO x VALUES (2); INSERT INTO t(v) SELECT v FROM x").await.unwrap();
    assert_eq!(told.one("a temporary table"), ["t"]);
}

use std::path::Path;

use super::*;
use crate::config;
use crate::sqlite::{Leave, Migrations};

pub(in crate::sqlite) struct Bench {
    dir: tempfile::TempDir,
    pub engine: Arc<Engine>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(config::Sqlite::default())
    }

    pub fn with(sqlite: config::Sqlite) -> Bench {
        Bench { dir: tempfile::tempdir().unwrap(), engine: Engine::start(&sqlite, &config::Executor::default()) }
    }

    pub fn file(&self) -> std::path::PathBuf {
        self.dir.path().canonicalize().unwrap().join("t.sqlite")
    }

    pub fn database(&self, gate: &Arc<Gate>) -> Arc<Database> {
        let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE);
                      CREATE TABLE child(t INTEGER REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED);";
        self.database_with(gate, schema)
    }

    pub fn database_with(&self, gate: &Arc<Gate>, schema: &str) -> Arc<Database> {
        self.database_of(gate, Migrations::from_files("test", [("0001_t.up.sql", schema)]).unwrap(), Level::Full)
    }

    pub fn database_at(&self, gate: &Arc<Gate>, level: Level) -> Arc<Database> {
        let set = [("0001_t.up.sql", "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE)")];
        self.database_of(gate, Migrations::from_files("test", set).unwrap(), level)
    }

    pub fn database_with_more(&self, gate: &Arc<Gate>, schema: &str, more: &str) -> Arc<Database> {
        self.database_of(
            gate,
            Migrations::from_files("test", [("0001_t.up.sql", schema), ("0002_more.up.sql", more)]).unwrap(),
            Level::Full,
        )
    }

    fn database_of(&self, gate: &Arc<Gate>, set: Migrations, level: Level) -> Arc<Database> {
        let options = Options {
            level,
            max_bytes: 0,
            party: Party { id: 7, running_max: 4 },
            migrations: set.into(),
            keep_before: None,
            sandboxed: true,
            create: true,
            held: Arc::default(),
            answers: Allowance::unbounded(),
        };
        Database::new(&self.engine, gate, self.file(), options)
    }
}

const BRIEF: Limits = Limits { time: Duration::from_millis(50) };

/// Writes a row, then goes on for ever.
fn bomb(tx: &WriteTx<'_>) -> Result<()> {
    tx.execute("INSERT INTO t(v) VALUES ('bomb')", [])?;
    tx.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t(v) SELECT 'n' || i FROM n", []).map(drop)
}

pub(in crate::sqlite) fn insert(v: String) -> impl FnMut(&WriteTx<'_>) -> Result<()> {
    move |tx| tx.execute("INSERT INTO t(v) VALUES (?1)", [&v]).map(drop)
}

pub(in crate::sqlite) async fn count(database: &Arc<Database>) -> i64 {
    database.read(Limits::default(), |reader| reader.row("SELECT count(*) FROM t", [], |row| row.get(0))).await.unwrap().unwrap()
}

#[tokio::test]
async fn writes_that_wait_share_commits_and_a_failing_one_fails_alone() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    database.ensure_open().await.unwrap();
    let writes = (0..200).map(|n| database.write(Limits::default(), insert(format!("v{}", n % 150))));
    let outcomes = futures_util::future::join_all(writes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 150);
    let errors = outcomes.into_iter().filter_map(Result::err);
    assert!(errors.map(|error| error.code()).all(|code| code == Code::ConstraintViolation));
    assert_eq!(count(&database).await, 150);
    let commits = bench.engine.counters().commits.load(Relaxed);
    assert!(commits < 100, "200 writes took {commits} commits");
}

#[tokio::test]
async fn a_write_that_fails_halfway_leaves_nothing_of_itself() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    database.ensure_open().await.unwrap();
    // Failing ones among the first, which have no savepoints, and among those after, which have.
    let halfway = |n: i32| {
        move |tx: &WriteTx<'_>| {
            tx.execute("INSERT INTO t(v) VALUES (?1)", [format!("{n} first")])?;
            if n % 7 == 3 {
                return Err(Error::bad_request("changed its mind"));
            }
            tx.execute("INSERT INTO t(v) VALUES (?1)", [format!("{n} second")]).map(drop)
        }
    };
    let outcomes = futures_util::future::join_all((0..100).map(|n| database.write(Limits::default(), halfway(n)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 14);
    assert_eq!(count(&database).await, 2 * 86);
}

#[tokio::test]
async fn what_turns_out_to_write_only_as_it_runs_is_undone_with_its_job() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let run = async |texts: &'static [&'static str]| {
        let job = move |tx: &WriteTx<'_>| texts.iter().try_for_each(|sql| tx.prepare(sql)?.run(|_| Ok(())).map(drop));
        database.write(Limits::default(), job).await
    };
    // Compiled to nothing while there is such a trigger, and kept so in the cache.
    const MAKE: &str = "CREATE TRIGGER IF NOT EXISTS g AFTER INSERT ON t BEGIN SELECT 1; END";
    run(&[MAKE]).await.unwrap();
    run(&[MAKE]).await.unwrap();
    run(&["DROP TRIGGER g"]).await.unwrap();
    run(&[MAKE, "SELECT * FROM nowhere"]).await.unwrap_err();
    let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
    let triggers = database.read(Limits::default(), move |r| r.row(triggers, [], |row| row.get::<_, i64>(0))).await.unwrap();
    assert_eq!(triggers, Some(0));
}

#[tokio::test]
async fn a_write_that_takes_the_transaction_down_does_not_take_its_neighbours() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    database.ensure_open().await.unwrap();
    let before = (0..20).map(|n| database.write(Limits::default(), insert(format!("before {n}"))));
    let after = (0..20).map(|n| database.write(Limits::default(), insert(format!("after {n}"))));
    let (before, bomb, after) =
        tokio::join!(futures_util::future::join_all(before), database.write(BRIEF, bomb), futures_util::future::join_all(after));
    assert_eq!(bomb.unwrap_err().code(), Code::StatementTimeout);
    assert!(before.into_iter().chain(after).all(|outcome| outcome.is_ok()));
    assert_eq!(count(&database).await, 40);
}

#[tokio::test]
async fn a_foreign_key_left_unmet_fails_the_job_that_left_it() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    database.ensure_open().await.unwrap();
    let orphan = database.write(Limits::default(), |tx| tx.execute("INSERT INTO child VALUES (99)", []));
    let (orphan, good) = tokio::join!(orphan, database.write(Limits::default(), insert("good".to_owned())));
    assert_eq!(orphan.unwrap_err().code(), Code::ConstraintViolation);
    good.unwrap();
}

#[tokio::test]
async fn a_temp_table_ends_with_its_request() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    let run = |sql: &'static str| {
        database.write(Limits::default(), move |tx| {
            let mut script = tx.script(sql);
            while let Some(mut prepared) = script.advance()? {
                prepared.run(|_| Ok(()))?;
            }
            Ok(())
        })
    };
    run("CREATE TEMP TABLE x(a); CREATE TEMP VIEW y AS SELECT a FROM x; INSERT INTO x VALUES (1)").await.unwrap();
    assert_eq!(run("SELECT * FROM x").await.unwrap_err().code(), Code::SqlError);
    assert_eq!(run("SELECT * FROM y").await.unwrap_err().code(), Code::SqlError);
}

/// Runs a tenant's script in one transaction.
async fn script(database: &Arc<Database>, sql: &'static str) -> Result<()> {
    let run = move |tx: &WriteTx<'_>| {
        let mut script = tx.script(sql);
        while let Some(mut prepared) = script.advance()? {
            prepared.run(|_| Ok(()))?;
        }
        Ok(())
    };
    database.write(Limits::default(), run).await
}

#[tokio::test]
async fn nothing_of_a_tenants_comes_to_stand_under_one_of_our_names() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    for sql in [
        "CREATE TABLE x(a); ALTER TABLE x RENAME TO _tenantry_changes",
        "CREATE TEMP TABLE x(a); ALTER TABLE x RENAME TO _tenantry_migrations",
        "CREATE INDEX _tenantry_i ON t(v)",
        "CREATE TRIGGER _tenantry_g AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TEMP VIEW _tenantry_v AS SELECT 1",
    ] {
        assert_eq!(script(&database, sql).await.expect_err(sql).code(), Code::SqlDenied, "{sql}");
    }
}

#[tokio::test]
async fn temp_objects_end_with_their_request_whatever_they_are_called() {
    let bench = Bench::new();
    let database = bench.database(&Gate::new());
    script(
        &database,
        "CREATE TEMP TABLE sqlitex(a); CREATE TEMP TRIGGER sqlitey AFTER INSERT ON main.t BEGIN SELECT RAISE(FAIL, 'left'); END",
    )
    .await
    .unwrap();
    script(&database, "CREATE VIRTUAL TABLE temp.f USING fts5(a)").await.unwrap();
    script(&database, "INSERT INTO t(v) VALUES ('no trigger is left')").await.unwrap();
    let left = "SELECT count(*) FROM temp.sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let left: i64 = database.write(Limits::default(), move |tx| tx.row(left, [], |row| row.get(0))).await.unwrap().unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn closing_leaves_one_plain_file() {
    let bench = Bench::new();
    let gate = Gate::new();
    let database = bench.database(&gate);
    database.write(Limits::default(), insert("kept".to_owned())).await.unwrap();
    assert_eq!(count(&database).await, 1);
    assert!(gate.emptied(Duration::from_secs(5)).await && gate.try_close());
    database.close(Leave::Nothing).await;
    let names: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["t.sqlite"]);
    let plain = rusqlite::Connection::open(bench.file()).unwrap();
    assert_eq!(plain.query_row("SELECT v FROM t", [], |row| row.get::<_, String>(0)).unwrap(), "kept");
    assert_eq!(database.read(Limits::default(), |_| Ok(())).await.unwrap_err().code(), Code::ShuttingDown);
}

#[tokio::test(flavor = "current_thread")]
async fn a_long_reader_does_not_let_the_log_grow_without_bound() {
    let bench = Bench::with(config::Sqlite { checkpoint_bytes: 64 << 10, wal_max_bytes: 512 << 10, ..Default::default() });
    let database = bench.database(&Gate::new());
    database.write(Limits::default(), insert("first".to_owned())).await.unwrap();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i), (SELECT count(*) FROM t) FROM n";
    let long = Limits { time: Duration::from_secs(120) };
    let reader = database.read(long, move |reader| {
        reader.row("SELECT count(*) FROM t", [], |_| Ok(())).and_then(|_| {
            reader.snapshot()?;
            reader.row("SELECT count(*) FROM t", [], |_| Ok(()))?;
            reader.row(endless, [], |_| Ok(()))
        })
    });
    let longest = async {
        let mut longest = 0;
        for n in 0..64 {
            let big = format!("{n}{}", "x".repeat(32 << 10));
            database.write(Limits::default(), insert(big)).await.unwrap();
            longest = longest.max(wal_bytes(&bench.file()));
        }
        longest
    };
    let (stopped, longest) = tokio::join!(reader, longest);
    assert_eq!(stopped.unwrap_err().code(), Code::Overloaded);
    assert!(longest < 1 << 20, "the log grew to {longest} bytes");
}

fn wal_bytes(file: &Path) -> u64 {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).map_or(0, |found| found.len())
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused_and_so_is_a_link() {
    let bench = Bench::new();
    std::fs::write(bench.file(), "not a database, though long enough to be looked at as one".repeat(40)).unwrap();
    assert_eq!(bench.database(&Gate::new()).ensure_open().await.unwrap_err().code(), Code::TenantUnavailable);
    std::fs::remove_file(bench.file()).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", bench.file()).unwrap();
    assert_eq!(bench.database(&Gate::new()).ensure_open().await.unwrap_err().code(), Code::TenantUnavailable);
}

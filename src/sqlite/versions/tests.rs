use std::time::Duration;

use super::*;
use crate::error::{Code, Result};
use crate::sqlite::database::tests::Bench;
use crate::sqlite::{Begin, Bounds, Gate, Leave, Reader, WriteTx};

const LONG: Duration = Duration::from_secs(3_600);

const BOUNDS: Bounds = Bounds { wait: LONG, idle: LONG, idle_contended: LONG, whole: LONG, open: 3 };

const SCHEMA: &str = "
    CREATE TABLE _tenantry_versions (name TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(v); CREATE TABLE w(v);
    CREATE TABLE part(t INTEGER REFERENCES t ON DELETE CASCADE);
    CREATE TRIGGER t_u AFTER UPDATE ON t BEGIN INSERT INTO u VALUES (new.v); END;
    CREATE VIEW tu AS SELECT t.v FROM t WHERE v IN (SELECT v FROM u);
    CREATE VIRTUAL TABLE words USING fts5(text);";

fn file(bench: &Bench) -> Arc<Database> {
    bench.database_with(&Gate::new(), SCHEMA)
}

/// What a query's answer hangs on, as somebody would who makes it to keep it; without `watch`, of a table nobody watches.
async fn try_see(file: &Arc<Database>, sql: &'static str, watch: bool) -> Result<Option<Seen>> {
    let made = move |reader: &Reader<'_>| {
        reader.snapshot()?;
        let mut query = reader.prepare(sql)?;
        reader.sources(&query)?;
        query.run(|_| Ok(()))?;
        reader.sources(&query)
    };
    for _ in 0..3 {
        match file.read(Limits::default(), made).await? {
            Sources::Seen(seen) => return Ok(Some(seen)),
            Sources::Unwatched(tables) if watch => file.watch(tables).await?,
            Sources::Unwatched(_) => return Ok(None),
        }
    }
    Ok(None)
}

async fn see(file: &Arc<Database>, sql: &'static str) -> Seen {
    try_see(file, sql, true).await.unwrap().expect("it is watched")
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.0.iter().map(|(name, _)| &**name).collect()
}

async fn run(file: &Arc<Database>, sql: &'static str) {
    file.write(Limits::default(), move |tx| tx.prepare(sql)?.run(|_| Ok(())).map(drop)).await.expect(sql);
}

#[tokio::test]
async fn an_answer_hangs_on_every_table_its_query_reads() {
    let bench = Bench::new();
    let file = file(&bench);
    for (sql, tables) in [
        ("SELECT v FROM T", &["t"][..]),
        ("SELECT count(*) FROM t", &["t"]),
        ("SELECT * FROM tu", &["t", "u"]),
        ("SELECT (SELECT max(v) FROM u) FROM t WHERE EXISTS (SELECT 1 FROM part)", &["part", "t", "u"]),
        ("WITH n AS (SELECT v FROM w) SELECT count(*) FROM n, t AS other", &["t", "w"]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n", &[]),
        ("SELECT value FROM t, json_each(t.v)", &["t"]),
        ("SELECT datetime('now'), strftime('%Y', v) FROM t", &["t"]),
        ("SELECT text FROM words WHERE words MATCH 'x' ORDER BY bm25(words)", &["*"]),
        ("SELECT * FROM words_data, t", &["*"]),
        ("SELECT name FROM sqlite_schema", &["*"]),
        ("SELECT 1", &[]),
    ] {
        assert_eq!(names(&see(&file, sql).await), tables, "{sql}");
        assert!(file.is_current(&see(&file, sql).await).await.unwrap(), "{sql}");
    }
    for sql in [
        "SELECT random() FROM t",
        "SELECT hex(randomblob(4))",
        "SELECT total_changes()",
        "SELECT * FROM pragma_table_info('t')",
        "PRAGMA user_version",
        "SELECT name FROM dbstat",
        "SELECT name FROM pragma_function_list",
    ] {
        let refused = try_see(&file, sql, true).await.map(|seen| panic!("{sql}: {seen:?}"));
        assert_eq!(refused.unwrap_err().code(), Code::SqlDenied, "{sql}");
    }
}

#[tokio::test]
async fn an_answer_is_current_until_a_commit_writes_one_of_its_tables() {
    let bench = Bench::new();
    let file = file(&bench);
    run(&file, "INSERT INTO t(v) VALUES (1), (2)").await;
    let writes: [(&str, &[&str]); 12] = [
        ("INSERT INTO t(v) VALUES (3)", &["t", "tu"]),
        ("UPDATE t SET v = 5 WHERE id = 1", &["t", "u", "tu"]),
        ("DELETE FROM t WHERE id = 2", &["t", "part", "tu"]),
        ("INSERT INTO part VALUES (1)", &["part"]),
        ("INSERT INTO w VALUES (1)", &["w"]),
        ("INSERT INTO words VALUES ('hello')", &["words"]),
        ("DELETE FROM u WHERE 0", &["u", "tu"]),
        ("SELECT count(*) FROM t", &[]),
        ("CREATE TABLE IF NOT EXISTS t(x)", &[]),
        ("CREATE TABLE more(x)", &["t", "u", "w", "part", "tu", "words"]),
        ("ALTER TABLE w ADD COLUMN more", &["t", "u", "w", "part", "tu", "words"]),
        ("DROP TABLE more", &["t", "u", "w", "part", "tu", "words"]),
    ];
    let queries = [
        ("t", "SELECT * FROM t"),
        ("u", "SELECT * FROM u"),
        ("w", "SELECT * FROM w"),
        ("part", "SELECT * FROM part"),
        ("tu", "SELECT * FROM tu"),
        ("words", "SELECT * FROM words"),
    ];
    for (sql, old) in writes {
        let mut before = Vec::new();
        for (name, query) in queries {
            before.push((name, see(&file, query).await));
        }
        run(&file, sql).await;
        for (name, seen) in &before {
            // What hangs on the whole file is old with any write.
            let expected = !old.contains(name) && (*name != "words" || old.is_empty());
            assert_eq!(file.is_current(seen).await.unwrap(), expected, "{name} after {sql}");
        }
    }
}

#[tokio::test]
async fn the_writer_heeds_what_was_watched_in_its_own_group() {
    let bench = Bench::new();
    let file = file(&bench);
    for _ in 0..20 {
        run(&file, "CREATE TABLE IF NOT EXISTS x(y)").await;
        run(&file, "DROP TABLE x").await;
        let (watched, ()) = tokio::join!(file.watch(["t".into()].into()), run(&file, "INSERT INTO t(v) VALUES (1)"));
        watched.unwrap();
        let seen = try_see(&file, "SELECT * FROM t", false).await.unwrap().expect("it is watched");
        assert!(file.is_current(&seen).await.unwrap());
        run(&file, "INSERT INTO t(v) VALUES (1)").await;
        assert!(!file.is_current(&seen).await.unwrap());
        // Watched and forgotten in one group: what stays in the file, the process knows.
        let (watched, ()) = tokio::join!(file.watch(["w".into()].into()), run(&file, "CREATE TABLE IF NOT EXISTS x(y)"));
        watched.unwrap();
        if let Some(seen) = try_see(&file, "SELECT * FROM w", false).await.unwrap() {
            run(&file, "INSERT INTO w VALUES (1)").await;
            assert!(!file.is_current(&seen).await.unwrap());
        }
    }
}

#[tokio::test]
async fn transactions_over_several_requests_count_at_their_commit_and_not_before() {
    let bench = Bench::new();
    let file = file(&bench);
    let seen = see(&file, "SELECT * FROM t").await;
    for commits in [false, true] {
        let transaction = file.begin(Begin::Immediate, true, BOUNDS).await.unwrap();
        let write = |t: &mut crate::sqlite::Interaction<'_>| t.statements(|r| r.prepare("INSERT INTO t(v) VALUES (9)")?.run(|_| Ok(())));
        transaction.run(LONG, write).await.unwrap().unwrap();
        assert!(file.is_current(&seen).await.unwrap());
        transaction.run(LONG, move |t| if commits { t.commit() } else { Ok(t.roll_back()) }).await.unwrap().unwrap();
        assert_eq!(file.is_current(&seen).await.unwrap(), !commits);
    }
}

#[tokio::test]
async fn versions_outlive_the_process_and_are_the_files_own() {
    let bench = Bench::new();
    let first = file(&bench);
    run(&first, "INSERT INTO t(v) VALUES (1)").await;
    let (old, w) = (see(&first, "SELECT * FROM t").await, see(&first, "SELECT * FROM w").await);
    first.close(Leave::Nothing).await;
    let kept = bench.file().with_extension("kept");
    std::fs::copy(bench.file(), &kept).unwrap();

    let again = file(&bench);
    assert!(again.is_current(&old).await.unwrap() && again.is_current(&w).await.unwrap());
    run(&again, "INSERT INTO t(v) VALUES (2)").await;
    let new = see(&again, "SELECT * FROM t").await;
    assert!(!again.is_current(&old).await.unwrap() && again.is_current(&new).await.unwrap() && again.is_current(&w).await.unwrap());
    again.close(Leave::Nothing).await;

    // An earlier state of the file: what was made from it is as good as then, what came after never was.
    std::fs::copy(&kept, bench.file()).unwrap();
    let restored = file(&bench);
    assert!(restored.is_current(&old).await.unwrap() && !restored.is_current(&new).await.unwrap());
    run(&restored, "INSERT INTO t(v) VALUES (2)").await;
    assert!(
        !restored.is_current(&old).await.unwrap() && !restored.is_current(&new).await.unwrap(),
        "the same write is not the same version"
    );
    restored.close(Leave::Nothing).await;

    // A migration is everything, also one that changes rows only.
    let migrated = bench.database_with_more(&Gate::new(), SCHEMA, "UPDATE t SET v = 7");
    assert!(!migrated.is_current(&w).await.unwrap());
    assert!(!migrated.is_current(&see(&migrated, "SELECT * FROM w").await).await.is_err());
}

#[tokio::test]
async fn a_vacuum_is_everything_and_what_nobody_asks_for_is_forgotten() {
    let bench = Bench::new();
    let file = file(&bench);
    let seen = see(&file, "SELECT rowid, v FROM w").await;
    file.write_alone(Limits::default(), |writer| writer.vacuum()).await.unwrap();
    assert!(!file.is_current(&seen).await.unwrap());

    let asked = see(&file, "SELECT * FROM t").await;
    see(&file, "SELECT * FROM w").await;
    let both = |tx: &WriteTx<'_>| {
        tx.execute("INSERT INTO t(v) VALUES (1)", [])?;
        tx.execute("INSERT INTO w VALUES (1)", []).map(drop)
    };
    for n in 0..=UNASKED {
        if n % 100 == 0 {
            file.is_current(&asked).await.unwrap();
        }
        file.write(Limits::default(), both).await.unwrap();
    }
    assert!(try_see(&file, "SELECT * FROM t", false).await.unwrap().is_some());
    assert!(try_see(&file, "SELECT * FROM w", false).await.unwrap().is_none());
}

#[tokio::test]
async fn a_version_in_doubt_is_asked_of_the_file() {
    let bench = Bench::new();
    let file = file(&bench);
    let seen = see(&file, "SELECT * FROM t").await;
    let open = file.opened().await.unwrap();
    let doubt = || open.versions.change(|known| known.values_mut().for_each(|watched| watched.version = None));
    doubt();
    assert!(file.is_current(&seen).await.unwrap());
    run(&file, "INSERT INTO w VALUES (1)").await;
    assert_eq!(open.versions.are(&seen), Some(true), "the next commit settles it");
    doubt();
    run(&file, "INSERT INTO t(v) VALUES (1)").await;
    assert_eq!(open.versions.are(&seen), Some(false));
}

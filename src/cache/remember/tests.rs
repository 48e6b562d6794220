use std::path::Path;

use super::*;
use crate::cache::Memory;
use crate::config::{Executor, Level, Sqlite};
use crate::sqlite::{Engine, Gate, Migrations, Options, Party, Reader, Sources, WriteTx};

const DATABASE: &str = include_str!("../../../migrations/tenant/database/0001_idempotency.up.sql");
const CACHE: &str = include_str!("../../../migrations/tenant/cache/0001_entries.up.sql");

struct Tiers {
    _dir: tempfile::TempDir,
    database: Arc<Database>,
    file: Arc<Database>,
    memory: Arc<Memory>,
    key: Key,
    query: QueryId,
}

fn open(engine: &Arc<Engine>, path: &Path, schema: &[&str], sandboxed: bool) -> Arc<Database> {
    let files = schema.iter().enumerate().map(|(at, text)| (format!("{:04}_it.up.sql", at + 1), text));
    let options = Options {
        level: Level::Off,
        max_bytes: 0,
        party: Party::SYSTEM,
        migrations: Migrations::from_files("test", files).unwrap().into(),
        keep_before: None,
        sandboxed,
        create: true,
        held: Arc::default(),
        answers: crate::sqlite::Allowance::unbounded(),
    };
    Database::new(engine, &Gate::new(), path.to_owned(), options)
}

impl Tiers {
    fn new() -> Tiers {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&Sqlite::default(), &Executor::default());
        let tables = "CREATE TABLE t(n); INSERT INTO t VALUES (0)";
        Tiers {
            database: open(&engine, &dir.path().join("database"), &[DATABASE, tables], true),
            file: open(&engine, &dir.path().join("cache"), &[CACHE], false),
            memory: Memory::new(1 << 20),
            key: Key::parse(b"k").unwrap(),
            query: QueryId::of(b"SELECT n FROM t"),
            _dir: dir,
        }
    }

    fn cache(&self) -> Cache<'_> {
        Cache::new(&self.file, &self.memory)
    }

    async fn recall(&self) -> Recalled {
        self.cache().recall(&self.key, self.query, &self.database, Limits::default()).await.unwrap()
    }

    async fn mine(&self) -> Making {
        match self.recall().await {
            Recalled::Mine(making) => making,
            Recalled::Found(found) => panic!("found {:?}", found.value),
            Recalled::Theirs(_) => panic!("somebody else makes it"),
        }
    }

    async fn found(&self) -> Option<Bytes> {
        match self.recall().await {
            Recalled::Found(found) => found.value.clone(),
            _ => None,
        }
    }

    /// The answer in a snapshot, and what it hangs on.
    async fn read(&self) -> (Bytes, Seen) {
        let read = |reader: &Reader<'_>| {
            reader.snapshot()?;
            let mut query = reader.prepare("SELECT n FROM t")?;
            let mut answer = String::new();
            query.run(|cells| {
                cells.iter().for_each(|value| answer.push_str(&value.as_i64().unwrap_or(-1).to_string()));
                Ok(())
            })?;
            Ok((Bytes::from(answer), reader.sources(&query)?))
        };
        loop {
            match self.database.read(Limits::default(), read).await.unwrap() {
                (answer, Sources::Seen(seen)) => return (answer, seen),
                (_, Sources::Unwatched(tables)) => self.database.watch(tables).await.unwrap(),
            }
        }
    }

    async fn keep(&self, making: Making, (answer, seen): (Bytes, Seen)) -> Option<Etag> {
        self.cache().keep(making, self.key.clone(), self.query, seen, answer, Terms::default()).await
    }

    async fn write(&self, n: i64) {
        self.database.write(Limits::default(), move |tx: &WriteTx<'_>| tx.execute("UPDATE t SET n = ?1", [n]).map(drop)).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_read_before_a_commit_and_kept_after_it_is_nobodys_answer() {
    let tiers = Tiers::new();
    let making = tiers.mine().await;
    let read = tiers.read().await;
    tiers.write(1).await;
    assert!(tiers.keep(making, read).await.is_some(), "it is kept, as nobody wrote its key");
    assert_eq!(tiers.found().await, None);

    let making = tiers.mine().await;
    let read = tiers.read().await;
    tiers.keep(making, read).await.unwrap();
    assert_eq!(tiers.found().await.unwrap(), "1");
    assert_eq!(tiers.found().await.unwrap(), "1", "from memory");
    tiers.write(2).await;
    assert_eq!(tiers.found().await, None);
}

#[tokio::test]
async fn one_makes_it_and_who_gives_up_lets_the_next() {
    let tiers = Tiers::new();
    let making = tiers.mine().await;
    assert!(matches!(tiers.recall().await, Recalled::Theirs(_)));
    drop(making);
    let making = tiers.mine().await;
    tiers.cache().delete(tiers.key.clone(), crate::cache::Conditions::default()).await.unwrap();
    let read = tiers.read().await;
    assert!(tiers.keep(making, read).await.is_none(), "it was forgotten meanwhile");
    let making = tiers.mine().await;
    let read = tiers.read().await;
    tiers.keep(making, read).await.unwrap();
    assert_eq!(tiers.found().await.unwrap(), "0");
}

//! What a request's path is made of, piece by piece, and next to each piece its limit: the same work done with
//! rusqlite alone, on a file opened with the same settings. The ratio of the two is what counts; it survives a
//! noisy machine. `benches/README.md` says how to read it.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use rusqlite::{Connection, params};
use serde_json::value::RawValue;
use tempfile::TempDir;
use tenantry::auth::scope::Scopes;
use tenantry::auth::{KeyRing, Mint, Signer, Verifier};
use tenantry::cache::{Cache, Key, Memory, Put, Terms};
use tenantry::config::{self, Level};
use tenantry::queue::{Batch, Claim, JobRequest, Queue, QueueName, Waiters};
use tenantry::sql::{self, Answering, Caller, Integers, Params, Request};
use tenantry::sqlite::{Allowance, Database, Draft, Engine, Gate, Limits, Migrations, Options, Party, Prepared};
use tokio::runtime::Runtime;
use uuid::Uuid;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT;
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
     INSERT INTO t SELECT i, 'value ' || i FROM n;";
const QUEUE: &str = include_str!("../migrations/tenant/queue/0001_jobs.up.sql");
const CACHE: &str = include_str!("../migrations/tenant/cache/0001_entries.up.sql");

const POINT: &str = "SELECT v FROM t WHERE id = ?1";
const ROWS: &str = "SELECT id, v FROM t LIMIT 1000";
const INSERT: &str = "INSERT INTO t (v) VALUES (?1)";

/// Writers at once in the group commit benchmarks.
const WRITERS: usize = 32;

/// What every file of a run shares.
struct Bench {
    runtime: Runtime,
    engine: Arc<Engine>,
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            engine: Engine::start(&config::Sqlite::default(), &config::Executor::default()),
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    fn file(&self, name: &str, level: Level, schema: &str) -> Arc<Database> {
        self.database(name, level, schema, false)
    }

    fn database(&self, name: &str, level: Level, schema: &str, sandboxed: bool) -> Arc<Database> {
        let migrations = Migrations::from_files("bench", [("0001_bench.up.sql", schema)]).expect("a migration");
        let options = Options {
            level,
            max_bytes: 0,
            party: Party::SYSTEM,
            migrations: migrations.into(),
            keep_before: None,
            sandboxed,
            create: true,
            held: Arc::default(),
            answers: Allowance::unbounded(),
        };
        Database::new(&self.engine, &Gate::new(), self.dir.path().join(name), options)
    }
}

/// The same file without us.
fn alone(path: &Path, level: &str) -> Connection {
    // SQLite's own VFS, which is not the default any more.
    let conn = Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), c"unix").expect("a file");
    conn.execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA synchronous={level}; {TABLE}")).expect("a table");
    conn
}

fn gate(c: &mut Criterion) {
    let gate = Gate::new();
    c.bench_function("gate/enter and leave", |b| b.iter(|| black_box(gate.enter())));
}

/// A token that was verified before, and one that was not: the signature is most of the difference.
fn token(c: &mut Criterion) {
    let bench = Bench::new();
    let config = config::Auth::default();
    let ring = KeyRing::open(bench.dir.path().join("keys"), &config).expect("keys");
    let (verifier, signer) = (Verifier::new(&config, ring.clone()).expect("a verifier"), Signer::new(&config, ring).expect("a signer"));
    let mint = Mint { tenant: Uuid::now_v7(), sub: "bench".to_owned(), role: "service".to_owned(), scopes: Scopes::ALL, ttl_s: 3_600 };
    let token = signer.sign(mint).expect("a token").token;
    let mut group = c.benchmark_group("token");
    let verified = async |times: u64, forgets: bool| {
        let began = Instant::now();
        for _ in 0..times {
            if forgets {
                verifier.forget_all();
            }
            black_box(verifier.verify(&token).await.expect("claims"));
        }
        began.elapsed()
    };
    group.bench_function("remembered", |b| b.iter_custom(|times| bench.runtime.block_on(verified(times, false))));
    group.bench_function("seen for the first time", |b| b.iter_custom(|times| bench.runtime.block_on(verified(times, true))));
    group.finish();
}

/// A tenant's statements, from the request's JSON to the answer's.
fn sql(c: &mut Criterion) {
    let bench = Bench::new();
    let file = bench.database("sql.sqlite", Level::Full, TABLE, true);
    let conn = alone(&bench.dir.path().join("sql-alone.sqlite"), "FULL");
    let plan = Arc::new(config::Plan::default());
    let run = |body: &str| {
        let request: Request = serde_json::from_str(body).expect("a request");
        let caller = Caller { subject: "bench".to_owned(), scopes: Scopes::ALL };
        bench.runtime.block_on(sql::run(&file, &plan, caller, request, None)).expect("an answer").body
    };
    let mut group = c.benchmark_group("sql, JSON to JSON");
    group.bench_function("one row", |b| b.iter(|| run(r#"{"statements":[{"sql":"SELECT v FROM t WHERE id = ?1","params":[77]}]}"#)));
    group.bench_function("one row, rusqlite and serde_json", |b| {
        b.iter(|| {
            let mut statement = conn.prepare_cached(POINT).expect("a statement");
            serde_json::to_vec(&statement.query_row([77], |row| row.get::<_, String>(0)).expect("a row"))
        })
    });
    group.finish();
    row_encoding(c, &bench, &file, &plan, &conn);
}

/// Rows becoming an answer while SQLite steps. Timed where the connection is; what is not stepping is encoding.
fn row_encoding(c: &mut Criterion, bench: &Bench, file: &Arc<Database>, plan: &Arc<config::Plan>, conn: &Connection) {
    let on_the_file = |times: u64, work: fn(&config::Plan, &mut Prepared<'_>) -> tenantry::error::Result<()>| {
        let plan = plan.clone();
        let timed = file.read(Limits { time: Duration::from_secs(60) }, move |reader| {
            let began = Instant::now();
            for _ in 0..times {
                work(&plan, &mut reader.prepare(ROWS)?)?;
            }
            Ok(began.elapsed())
        });
        bench.runtime.block_on(timed).expect("rows")
    };
    let stepped = |_: &config::Plan, prepared: &mut Prepared<'_>| {
        let rows = prepared.run(|cells| {
            black_box(cells.iter().map(black_box).count());
            Ok(())
        });
        rows.map(drop)
    };
    let encoded = |plan: &config::Plan, prepared: &mut Prepared<'_>| {
        let room = Allowance::unbounded();
        let mut answering = Answering::new(Draft::new(&room), plan, Integers::Number);
        answering.result(prepared, &Params::default())?;
        black_box(answering.finish("", Duration::ZERO));
        Ok(())
    };
    let mut group = c.benchmark_group("row encoding, 1000 rows");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("stepped only", |b| b.iter_custom(|times| on_the_file(times, stepped)));
    group.bench_function("stepped and encoded", |b| b.iter_custom(|times| on_the_file(times, encoded)));
    group.bench_function("stepped and encoded, rusqlite and serde_json", |b| {
        b.iter(|| {
            let mut statement = conn.prepare_cached(ROWS).expect("a statement");
            let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).expect("rows");
            serde_json::to_vec(&rows.map(Result::unwrap_or_default).collect::<Vec<_>>())
        })
    });
    group.finish();
}

fn point_read(c: &mut Criterion) {
    let bench = Bench::new();
    let file = bench.file("read.sqlite", Level::Full, TABLE);
    let conn = alone(&bench.dir.path().join("read-alone.sqlite"), "FULL");
    let mut group = c.benchmark_group("point read");
    let mut id = 0;
    group.bench_function("rusqlite", |b| {
        b.iter(|| {
            id = id % 10_000 + 1;
            let mut statement = conn.prepare_cached(POINT).expect("a statement");
            statement.query_row([id], |row| row.get::<_, String>(0)).expect("a row")
        })
    });
    group.bench_function("where it is asked for", |b| {
        b.iter(|| {
            id = id % 10_000 + 1;
            let read = file.read_brief(Limits::default(), 0, move |r| r.row(POINT, [id], |row| row.get::<_, String>(0)));
            bench.runtime.block_on(read).expect("a row")
        })
    });
    group.bench_function("a reader on a lane", |b| {
        b.iter(|| {
            id = id % 10_000 + 1;
            let read = file.read(Limits::default(), move |r| r.row(POINT, [id], |row| row.get::<_, String>(0)));
            bench.runtime.block_on(read).expect("a row")
        })
    });
    group.finish();
}

fn insert(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("insert, each flushed");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    let conn = alone(&bench.dir.path().join("write-alone.sqlite"), "FULL");
    group.throughput(Throughput::Elements(1));
    group.bench_function("rusqlite, one after the other", |b| {
        b.iter(|| conn.prepare_cached(INSERT).expect("a statement").execute(["x"]).expect("a row"))
    });
    let file = bench.file("write.sqlite", Level::Full, TABLE);
    let write = || file.write(Limits::default(), |tx| tx.execute(INSERT, ["x"]));
    group.bench_function("the writer, one after the other", |b| b.iter(|| bench.runtime.block_on(write()).expect("a row")));
    group.throughput(Throughput::Elements(WRITERS as u64));
    group.bench_function(format!("the writer, {WRITERS} at once"), |b| {
        b.iter(|| bench.runtime.block_on(join_all((0..WRITERS).map(|_| write()))).into_iter().for_each(|made| assert!(made.is_ok())))
    });
    group.finish();
}

fn cache(c: &mut Criterion) {
    let bench = Bench::new();
    let file = bench.file("cache.sqlite", Level::Off, CACHE);
    let memory = Memory::new(64 << 20);
    let (cache, hit, miss) = (Cache::new(&file, &memory), Key::parse(b"hit").expect("a key"), Key::parse(b"miss").expect("a key"));
    let value = bytes::Bytes::from(vec![7; 1_000]);
    let put = || cache.put(Put::new(hit.clone(), Some(value.clone()), None, Terms::default()).expect("a put"), None);
    bench.runtime.block_on(put()).expect("room");
    let mut group = c.benchmark_group("cache, 1000 bytes");
    group.bench_function("get, hit", |b| b.iter(|| bench.runtime.block_on(cache.get(hit.clone())).expect("an answer")));
    group.bench_function("get, miss", |b| b.iter(|| bench.runtime.block_on(cache.get(miss.clone())).expect("an answer")));
    group.bench_function("put", |b| b.iter(|| bench.runtime.block_on(put()).expect("room")));
    group.finish();
}

/// One job through its life, with nothing else in the file and with a backlog that must not be noticed.
fn queue(c: &mut Criterion) {
    let bench = Bench::new();
    let mut group = c.benchmark_group("queue, claim and ack one job, unflushed");
    for (name, ready, scheduled, dead) in [("empty", 0, 0, 0), ("backlog", 100_000, 100_000, 100_000)] {
        let file = bench.file(&format!("queue-{name}.sqlite"), Level::Off, QUEUE);
        let backlog = move |tx: &tenantry::sqlite::WriteTx<'_>| {
            for (state, count) in [(2, ready), (1, scheduled), (11, dead)] {
                tx.execute(BACKLOG, params![state, count])?;
            }
            tx.execute("INSERT OR IGNORE INTO queues (queue, name, created_at) VALUES (1, 'q', 0)", [])?;
            tx.execute(BODIES, [])
        };
        let filled = bench.runtime.block_on(file.write(Limits { time: Duration::from_secs(120) }, backlog));
        filled.expect("a backlog");
        let waiters = Arc::<Waiters>::default();
        let (queue, name_of_it) = (Queue::new(&file, &waiters), QueueName::parse("q").expect("a name"));
        let claim = Claim::new(1, 60).expect("a claim");
        let one = async || {
            let payload = RawValue::from_string("{}".to_owned()).expect("JSON");
            queue.enqueue(&name_of_it, Batch::of_one(JobRequest::plain(payload).check()?), "bench", None).await?;
            let job = queue.claim(std::slice::from_ref(&name_of_it), claim).await?.jobs.remove(0);
            queue.ack(job.id, &job.lease_token.to_string(), None).await
        };
        group.bench_function(format!("enqueue, claim, ack: {name}"), |b| b.iter(|| bench.runtime.block_on(one()).expect("a job")));
    }
    group.finish();
}

const BACKLOG: &str = "WITH RECURSIVE n(i) AS (SELECT 1 WHERE ?2 > 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
     INSERT INTO jobs (salt, queue, state, due_at, keep_until, created_at, since)
     SELECT i, 1, ?1, iif(?1 = 1, 1 << 48, 0), iif(?1 = 11, 1 << 48, NULL), 0, 0 FROM n";

const BODIES: &str =
    "INSERT INTO job_bodies (seq, backoff, backoff_ms, backoff_max_ms, payload) SELECT seq, 2, 1000, 3600000, x'7b7d' FROM jobs";

criterion_group!(benches, gate, token, sql, point_read, insert, cache, queue);
criterion_main!(benches);

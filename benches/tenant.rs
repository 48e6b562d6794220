//! What a tenant costs beside its statements: to be looked up, to have its files open or not, to be made. Each piece
//! stands next to its limit, as in `request.rs`: rusqlite on the same file, or plain files.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tempfile::TempDir;
use tenantry::auth::{KeyRing, Signer, Verifier};
use tenantry::config::{Config, Level};
use tenantry::sqlite::{Engine, Limits, Readers, Settings};
use tenantry::system::Systems;
use tenantry::system::audit::By;
use tenantry::tenant::lifecycle::{Parts, Wish};
use tenantry::tenant::template::{Blueprint, Template};
use tenantry::tenant::{Layout, Lifecycle, Registry, Role, Target, Tenant, TenantId, Triples};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use uuid::Uuid;

/// The name of the file beside a tenant's.
const FILE: &str = "alone.sqlite";

const POINT: &str = "SELECT sql FROM sqlite_schema WHERE name = ?1";

/// A server's insides, without HTTP.
struct Site {
    runtime: Runtime,
    tasks: LocalSet,
    lifecycle: Lifecycle,
    registry: Arc<Registry>,
    triples: Arc<Triples>,
    made: u32,
    folder: TempDir,
}

impl Site {
    fn new() -> Site {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::of(folder.path()).expect("a data directory");
        std::fs::create_dir_all(layout.keys()).expect("a folder");
        let config = Config::default();
        let engine = Engine::start(&config.sqlite, &config.executor);
        let dir = layout.system();
        let systems = runtime.block_on(Systems::open(&engine, &dir, &config.durability, &config.telemetry)).expect("the system's files");
        let registry = Arc::new(Registry::new(systems.app.clone(), &config.plans, 1_000));
        let target = Arc::new(Target::load(None, None).expect("migrations"));
        let tasks = LocalSet::new();
        let within = (runtime.enter(), tasks.enter());
        let triples = Triples::new(engine.clone(), layout.clone(), config.durability.clone(), target.clone(), Duration::from_secs(60));
        let ring = KeyRing::open(layout.keys(), &config.auth).expect("keys");
        let parts = Parts {
            layout,
            engine,
            app: systems.app.clone(),
            audit: systems.audit.clone(),
            registry: registry.clone(),
            triples: triples.clone(),
            signer: Arc::new(Signer::new(&config.auth, ring.clone()).expect("a signer")),
            verifier: Arc::new(Verifier::new(&config.auth, ring).expect("a verifier")),
            target,
        };
        let lifecycle = Lifecycle::new(parts, &config.tenants, &config.auth);
        drop(within);
        Site { runtime, tasks, lifecycle, registry, triples, made: 0, folder }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.tasks.block_on(&self.runtime, work)
    }

    /// How long it takes to do that so many times; entering the runtime is not in it.
    fn timed(&self, times: u64, work: impl AsyncFn()) -> Duration {
        self.run(async {
            let began = Instant::now();
            for _ in 0..times {
                work().await;
            }
            began.elapsed()
        })
    }

    fn provision(&mut self) -> TenantId {
        self.made += 1;
        let slug = format!("t{}", self.made);
        let by = By { actor: "bench".to_owned(), request_id: Uuid::now_v7() };
        let answer = self.run(self.lifecycle.provision(by, Wish { name: slug.clone(), slug, plan: None }, None)).expect("an answer");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        TenantId::parse(body["tenant"]["id"].as_str().expect("an id")).expect("an id")
    }

    async fn read(&self, tenant: &Tenant) {
        let lease = self.triples.lease(tenant.id, &tenant.plan).await.expect("a lease");
        let read =
            lease.database().read(Limits::default(), |reader| reader.row(POINT, ["_tenantry_migrations"], |row| row.get::<_, String>(0)));
        black_box(read.await.expect("an answer"));
    }

    async fn close(&self, id: TenantId) {
        drop(self.triples.fence(id, Duration::from_secs(1)).await.expect("a fence"));
    }
}

fn lookup(c: &mut Criterion) {
    let mut site = Site::new();
    let id = site.provision();
    let tenant = site.run(site.registry.active(id)).expect("a tenant");
    let mut group = c.benchmark_group("tenant");
    let looked_up = async |forgets: bool| {
        if forgets {
            site.registry.changed(id);
        }
        drop(black_box(site.registry.active(id).await.expect("a tenant")));
    };
    let leased = async || drop(black_box(site.triples.lease(id, &tenant.plan).await.expect("a lease")));
    group.bench_function("registry: remembered", |b| b.iter_custom(|times| site.timed(times, async || looked_up(false).await)));
    group.bench_function("registry: looked up in app", |b| b.iter_custom(|times| site.timed(times, async || looked_up(true).await)));
    group.bench_function("triple: a lease of an open one", |b| b.iter_custom(|times| site.timed(times, leased)));
    group.finish();
}

/// A reader taken from a file's pool and given back, which looks whether it is clean, and the same of r2d2_sqlite's own pool.
fn checkout(c: &mut Criterion) {
    let (_conn, folder) = beside();
    let path = folder.path().join(FILE);
    let config = Config::default();
    let engine = Engine::start(&config.sqlite, &config.executor);
    let settings = Settings { level: Level::Full, sandboxed: true, max_bytes: 0, create: false, writer: false, shrinks: false };
    let readers = Readers::new(&engine, &path, settings);
    let plain = r2d2::Pool::builder().max_size(config.sqlite.readers_per_file).test_on_check_out(false);
    let plain = plain.build(SqliteConnectionManager::file(&path)).expect("a pool");
    let mut group = c.benchmark_group("pool, a reader taken and given back");
    group.bench_function("ours", |b| b.iter(|| black_box(readers.get().expect("a reader"))));
    group.bench_function("r2d2_sqlite", |b| b.iter(|| black_box(plain.get().expect("a connection"))));
    group.finish();
}

/// A connection's statement cache: the same text again, and one it has never seen. Timed where the connection is, so that a
/// lane's hop is not in it.
fn statements(c: &mut Criterion) {
    let mut site = Site::new();
    let id = site.provision();
    let tenant = site.run(site.registry.active(id)).expect("a tenant");
    let (conn, _folder) = beside();
    let lease = site.run(site.triples.lease(id, &tenant.plan)).expect("a lease");
    // Of each round of the clock; other rounds have other numbers.
    let mut rounds = 0;
    let mut read = |times: u64, text: fn(u64, u64) -> String| {
        rounds += 1;
        let (round, patience) = (rounds, Limits { time: Duration::from_secs(60) });
        let timed = lease.database().read(patience, move |reader| {
            let began = Instant::now();
            for number in 0..times {
                black_box(reader.row(&text(round, number), [1], |row| row.get::<_, i64>(0))?);
            }
            Ok(began.elapsed())
        });
        site.run(timed).expect("answers")
    };
    let anew = |round: u64, number: u64| format!("SELECT ?1 + {number} - {round}");
    let mut group = c.benchmark_group("statement");
    group.bench_function("seen before", |b| b.iter_custom(|times| read(times, |_, _| "SELECT ?1 + 0 - 0".to_owned())));
    group.bench_function("new each time", |b| b.iter_custom(|times| read(times, anew)));
    let mut number = 0;
    group.bench_function("new each time, rusqlite", |b| {
        b.iter(|| {
            number += 1;
            conn.query_row(&anew(0, number), [1], |row| row.get::<_, i64>(0)).expect("a row")
        })
    });
    group.finish();
}

fn cold(c: &mut Criterion) {
    let mut site = Site::new();
    let id = site.provision();
    let tenant = site.run(site.registry.active(id)).expect("a tenant");
    let (conn, folder) = beside();
    drop(conn);
    let mut group = c.benchmark_group("first read of a tenant");
    group.bench_function("files closed", |b| {
        b.iter_custom(|times| {
            site.run(async {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    site.close(id).await;
                    let began = Instant::now();
                    site.read(&tenant).await;
                    took += began.elapsed();
                }
                took
            })
        })
    });
    group.bench_function("files closed, rusqlite", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let began = Instant::now();
                let conn = open(&folder.path().join(FILE));
                black_box(conn.query_row(POINT, ["_tenantry_migrations"], |row| row.get::<_, String>(0)).expect("a row"));
                took += began.elapsed();
            }
            took
        })
    });
    group.bench_function("files open", |b| b.iter_custom(|times| site.timed(times, async || site.read(&tenant).await)));
    group.finish();
}

fn provision(c: &mut Criterion) {
    let mut site = Site::new();
    let template = Template::build(&Blueprint::load(None).expect("migrations")).expect("a template");
    let mut group = c.benchmark_group("provisioning one tenant");
    group.sample_size(20);
    group.bench_function("whole", |b| b.iter(|| site.provision()));
    let folder = site.folder.path().join("copies");
    group.bench_function("three files copied and flushed", |b| {
        b.iter(|| {
            let own = folder.join(Uuid::now_v7().to_string());
            std::fs::create_dir_all(&own).expect("a folder");
            for (role, bytes) in template.files() {
                let mut file = File::create_new(own.join(role.as_str())).expect("a new file");
                file.write_all(bytes).and_then(|()| file.sync_all()).expect("a flushed file");
            }
        })
    });
    group.finish();
}

/// A file like a new tenant's database, for rusqlite alone.
fn beside() -> (Connection, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(FILE);
    let template = Template::build(&Blueprint::load(None).expect("migrations")).expect("a template");
    let database = template.files().iter().find(|(role, _)| *role == Role::Database).expect("a database");
    std::fs::write(&file, &database.1).expect("a file");
    (open(&file), folder)
}

/// With the settings of a tenant's database.
fn open(path: &Path) -> Connection {
    // SQLite's own VFS, which is not the default any more.
    let conn = Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), c"unix").expect("a file");
    conn.execute_batch(
        "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON; PRAGMA journal_mode=WAL",
    )
    .expect("settings");
    conn
}

criterion_group!(benches, lookup, checkout, statements, cold, provision);
criterion_main!(benches);

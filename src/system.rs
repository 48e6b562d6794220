//! The system databases: what the server itself remembers, beside the tenants. `app` has the tenants and their
//! tokens, `mark` the operators and what they did, `analytics` what was measured; `cache` and `queue` are the
//! operator's own, run by the engines that run a tenant's. One place, [`Systems`], registers, opens, migrates,
//! checks and closes them.

pub mod analytics;
pub mod app;
pub mod audit;
mod column;
pub mod mark;
pub mod schema;
pub mod secret;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;

pub use analytics::{Analytics, Failure, Slow};
pub use app::App;
pub use audit::{Action, Audit};
pub use mark::{Mark, Operator};
pub use schema::{Sets, schema};

use crate::config::{Durability, Level, Telemetry};
use crate::error::{Error, Result};
use crate::sqlite::{Allowance, Database, Engine, Gate, Leave, Limits, Options, Party};

/// How long closing waits for what still runs.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// One system database, as it was registered.
#[derive(Clone)]
pub struct Registered {
    pub name: &'static str,
    /// Its file's name in the `system` folder.
    pub file: &'static str,
    pub description: &'static str,
    pub database: Arc<Database>,
}

/// How one system database is doing.
#[derive(Clone, Debug, Serialize)]
pub struct SystemHealth {
    pub name: &'static str,
    pub file: &'static str,
    pub description: &'static str,
    /// Whether it answered.
    pub connected: bool,
    pub size_bytes: u64,
    pub tables: u64,
    pub sqlite_version: String,
    /// What it said instead.
    pub error: Option<String>,
}

pub struct Systems {
    pub app: App,
    pub mark: Mark,
    pub analytics: Analytics,
    pub audit: Audit,
    pub cache: Arc<Database>,
    pub queue: Arc<Database>,
    /// What answers out of the operator's own files may take.
    pub answers: Arc<Allowance>,
    files: Files,
    /// Move the audit log and write measurements.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The open files, in the order they were registered.
struct Files {
    engine: Arc<Engine>,
    gate: Arc<Gate>,
    dir: PathBuf,
    answers: Arc<Allowance>,
    registered: RwLock<Vec<Registered>>,
}

impl Systems {
    /// Opens and migrates everything in `dir` (`<data-dir>/system`), makes what is missing, and starts the tasks
    /// behind the requests on the current runtime.
    pub async fn open(engine: &Arc<Engine>, dir: &Path, durability: &Durability, telemetry: &Telemetry) -> Result<Systems> {
        let answers = engine.answers().one();
        let files = Files {
            engine: engine.clone(),
            gate: Gate::new(),
            dir: dir.to_owned(),
            answers: answers.clone(),
            registered: RwLock::default(),
        };
        let schema = schema();
        let app = files.open(Database::new, "app", "app.db", "tenants, tokens, people", durability.system, &schema.app).await?;
        let mark =
            files.open(Database::new, "mark", "mark.db", "operators, the audit log, publishing", durability.system, &schema.mark).await?;
        let analytics =
            files.open(Database::new, "analytics", "analytics.db", "what was measured", durability.analytics, &schema.analytics).await?;
        let cache = files
            .open(Database::replaceable, "cache", "cache.db", "the operator's own cache", durability.cache, &schema.operator_cache)
            .await?;
        let queue =
            files.open(Database::new, "queue", "queue.db", "the operator's own jobs", durability.queue, &schema.operator_queue).await?;

        let app = App::open(app).await?;
        let mark = Mark::open(mark).await?;
        let audit = Audit::open(app.clone(), mark.clone(), &dir.join("keys")).await?;
        let keep = Duration::from_secs(u64::from(telemetry.keep_days) * 86_400);
        let (analytics, writing) = Analytics::new(analytics, telemetry.waiting, keep);
        let tasks = vec![tokio::spawn(audit.clone().run()), tokio::spawn(writing)];
        Ok(Systems { app, mark, analytics, audit, cache, queue, answers, files, tasks: Mutex::new(tasks) })
    }

    /// Opens one more system database, which is then listed, checked and closed with the others.
    pub async fn register(
        &self,
        name: &'static str,
        file: &'static str,
        description: &'static str,
        level: Level,
        migrations: &Sets,
    ) -> Result<Arc<Database>> {
        self.files.open(Database::new, name, file, description, level, migrations).await
    }

    pub fn list(&self) -> Vec<Registered> {
        self.files.list()
    }

    /// Asks each one.
    pub async fn health(&self) -> Vec<SystemHealth> {
        let asked = self.list().into_iter().map(health_of);
        futures_util::future::join_all(asked).await
    }

    /// Writes what waits behind the requests, then closes every file. No call comes after.
    pub async fn close(&self) {
        let last = async {
            self.analytics.flush().await;
            self.audit.drain().await
        };
        match tokio::time::timeout(CLOSE_WAIT, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the audit log could not be moved before the end; it is at the next start"),
            Err(_) => tracing::warn!("what waited behind the requests was not all written in time"),
        }
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.files.gate.fence();
        if !self.files.gate.emptied(CLOSE_WAIT).await {
            tracing::warn!("statements on the system databases still run at the end and are interrupted");
            self.list().iter().for_each(|file| file.database.refuse(true));
            self.files.gate.emptied(CLOSE_WAIT).await;
        }
        for file in self.list().iter().rev() {
            file.database.close(Leave::Nothing).await;
        }
    }
}

/// What makes the handle on a file: [`Database::new`], or [`Database::replaceable`].
type Handle = fn(&Arc<Engine>, &Arc<Gate>, PathBuf, Options) -> Arc<Database>;

impl Files {
    async fn open(
        &self,
        handle: Handle,
        name: &'static str,
        file: &'static str,
        description: &'static str,
        level: Level,
        sets: &Sets,
    ) -> Result<Arc<Database>> {
        if self.list().iter().any(|other| other.name == name || other.file == file) {
            return Err(Error::conflict(format!("a system database `{name}` ({file}) is registered already")));
        }
        let options = Options {
            level,
            max_bytes: 0,
            party: Party::SYSTEM,
            migrations: sets.clone().into(),
            keep_before: None,
            sandboxed: false,
            create: true,
            held: Arc::default(),
            answers: self.answers.clone(),
        };
        let database = handle(&self.engine, &self.gate, self.dir.join(file), options);
        database.ensure_open().await.map_err(|error| {
            let error = error.for_operators();
            Error::new(error.code(), format!("the system database {name} ({file}): {}", error.message()))
                .hint("The log has SQLite's reason. Put back a backup of the whole `system` folder, made while the server was stopped: its files belong together.")
        })?;
        let registered = Registered { name, file, description, database: database.clone() };
        self.registered.write().unwrap_or_else(PoisonError::into_inner).push(registered);
        Ok(database)
    }

    fn list(&self) -> Vec<Registered> {
        self.registered.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn health_of(file: Registered) -> SystemHealth {
    let found = file
        .database
        .read(Limits { time: Duration::from_secs(2) }, |r| {
            r.row(
                "SELECT sqlite_version(),
                        (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size()),
                        (SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\')",
                [],
                |row| Ok((row.get::<_, String>(0)?, column::count(row, 1)?, column::count(row, 2)?)),
            )
        })
        .await;
    let blank = SystemHealth {
        name: file.name,
        file: file.file,
        description: file.description,
        connected: false,
        size_bytes: 0,
        tables: 0,
        sqlite_version: String::new(),
        error: None,
    };
    match found {
        Ok(Some((sqlite_version, size_bytes, tables))) => SystemHealth { connected: true, size_bytes, tables, sqlite_version, ..blank },
        Ok(None) => blank,
        Err(error) => SystemHealth { error: Some(error.message().to_owned()), ..blank },
    }
}

#[cfg(test)]
mod tests;

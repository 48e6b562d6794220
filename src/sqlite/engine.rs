//! The [`Engine`] is what all databases of a process share: the lanes that read and the lanes that write, the
//! watchdog, the one thread that opens the readers' connections, and the budgets of descriptors and page cache.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use rusqlite::ffi;
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::oneshot;

use super::counters::Counters;
use super::executor::{Bounds, Executor, Load, Party};
use super::watch::Watchdog;
use crate::config;
use crate::error::{Error, Result};

/// Descriptors kept for sockets, logs and the like when the budget is derived.
const RESERVED_DESCRIPTORS: u64 = 512;

pub struct Engine {
    reads: Executor,
    writes: Executor,
    watchdog: Arc<Watchdog>,
    /// One for every pool: r2d2 would start three threads for each.
    scheduler: Arc<ScheduledThreadPool>,
    budget: Arc<Budget>,
    tuning: Tuning,
    counters: Counters,
    /// Files with a log to cut once they are quiet; each at most once.
    idle: Mutex<VecDeque<WhenIdle>>,
}

/// Asked whether to be asked again.
type WhenIdle = Box<dyn FnMut() -> bool + Send>;

/// Settings of every connection, worked out once.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    pub busy_timeout_ms: u64,
    pub cache_kib: u64,
    pub statement_cache: usize,
    pub readers_per_file: u32,
    pub reader_idle: Duration,
    pub checkpoint_bytes: u64,
    pub wal_max_bytes: u64,
    pub idle_checkpoint: Duration,
    pub group_max: usize,
    /// Writes of one file waiting, and of all files.
    pub writes_waiting: usize,
}

struct Budget {
    used: AtomicU64,
    max: u64,
}

/// Descriptors taken from the budget, given back when dropped.
pub struct Descriptors {
    budget: Arc<Budget>,
    taken: u64,
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.taken, Relaxed);
    }
}

impl Engine {
    /// Starts the lanes. Raises the process's soft descriptor limit to the hard one.
    pub fn start(sqlite: &config::Sqlite, executor: &config::Executor) -> Arc<Engine> {
        let cores = available_parallelism().map_or(2, |n| n.get());
        let or = |set: usize, derived: usize| if set == 0 { derived } else { set };
        let read_lanes = or(executor.read_lanes, (cores * 2).max(4));
        let write_lanes = or(executor.write_lanes, 16);
        let max = if sqlite.descriptors > 0 { sqlite.descriptors } else { derived_descriptors() };
        // Past the soft heap limit SQLite recycles pages of whatever connection before it takes more memory.
        // SAFETY: a plain setting; called before the first connection is opened, and valid at any time.
        unsafe { ffi::sqlite3_soft_heap_limit64(i64::try_from(sqlite.page_cache_bytes).unwrap_or(i64::MAX)) };
        Arc::new(Engine {
            reads: Executor::start(
                "read",
                Bounds { lanes: read_lanes, waiting: executor.waiting, waiting_per_party: executor.waiting_per_tenant },
            ),
            writes: Executor::start(
                "write",
                Bounds { lanes: write_lanes, waiting: executor.waiting, waiting_per_party: executor.waiting_per_tenant },
            ),
            watchdog: Watchdog::start(),
            scheduler: Arc::new(ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("pool-{}").build()),
            budget: Arc::new(Budget { used: AtomicU64::new(0), max }),
            tuning: Tuning {
                busy_timeout_ms: sqlite.busy_timeout_ms,
                // A connection may use a hundredth of the budget, within reason; the soft heap limit holds the sum.
                cache_kib: (sqlite.page_cache_bytes / 100 / 1024).clamp(64, 8 * 1024),
                statement_cache: sqlite.statement_cache,
                readers_per_file: sqlite.readers_per_file,
                reader_idle: Duration::from_secs(sqlite.reader_idle_s),
                checkpoint_bytes: sqlite.checkpoint_bytes,
                wal_max_bytes: sqlite.wal_max_bytes,
                idle_checkpoint: Duration::from_millis(sqlite.idle_checkpoint_ms),
                group_max: executor.group_max.max(1),
                writes_waiting: executor.waiting_per_tenant,
            },
            counters: Counters::default(),
            idle: Mutex::default(),
        })
    }

    /// Runs file work of the server's own on a write lane.
    pub async fn blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.writes.submit(Party::SYSTEM, Box::new(move || drop(answer.send(work()))))?;
        answered.await.unwrap_or_else(|_| Err(Error::internal("file work ended early", &"it panicked")))
    }

    /// Ends the lanes after what is queued has run. Databases are closed before.
    pub fn stop(&self) {
        self.reads.stop();
        self.writes.stop();
        self.watchdog.stop();
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Looks after files that have become quiet. Called a few times a second by the server.
    pub fn tick(&self) {
        let listed = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for mut when_idle in listed {
            if when_idle() {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(when_idle);
            }
        }
    }

    pub(super) fn when_idle(&self, ask: impl FnMut() -> bool + Send + 'static) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(Box::new(ask));
    }

    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// (reading lanes, writing lanes)
    pub fn load(&self) -> (Load, Load) {
        (self.reads.load(), self.writes.load())
    }

    /// (descriptors held by databases, the most they may hold)
    pub fn descriptor_use(&self) -> (u64, u64) {
        (self.budget.used.load(Relaxed), self.budget.max)
    }

    pub(super) fn reads(&self) -> &Executor {
        &self.reads
    }

    pub(super) fn writes(&self) -> &Executor {
        &self.writes
    }

    pub(super) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    pub(super) fn scheduler(&self) -> Arc<ScheduledThreadPool> {
        self.scheduler.clone()
    }

    /// Takes descriptors from the budget; SQLITE_CANTOPEN's cousin SQLITE_BUSY when it is spent, which callers see
    /// as 503 with `Retry-After`.
    pub(super) fn descriptors(&self, taken: u64) -> rusqlite::Result<Descriptors> {
        let fits = |used: u64| (used + taken <= self.budget.max).then_some(used + taken);
        match self.budget.used.fetch_update(Relaxed, Relaxed, fits) {
            Ok(_) => Ok(Descriptors { budget: self.budget.clone(), taken }),
            Err(_) => Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_BUSY),
                Some("all descriptors of sqlite.descriptors are in use".to_owned()),
            )),
        }
    }
}

/// What the process may have open, less a reserve; the soft limit is raised to the hard one first.
fn derived_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { now.maximum } else { now.current };
    // No limit at all is treated as a million: enough for 100,000 tenants.
    let limit = limit.unwrap_or(1 << 20);
    limit.saturating_sub(RESERVED_DESCRIPTORS).max(limit / 2)
}

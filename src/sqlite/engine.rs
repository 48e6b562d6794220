//! The [`Engine`] is what all databases of a process share: the lanes that read and the lanes that write, the
//! watchdog, the one thread that opens the readers' connections, and the budgets of descriptors and page cache.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};
use tokio::sync::oneshot;

use super::counters::Counters;
use super::descriptors::DescriptorBudget;
use super::draft::Allowances;
use super::executor::{Bounds, Executor, Job, Load, Party};
use super::memory;
use super::vfs;
use super::watch::Watchdog;
use crate::config;
use crate::error::{Error, Result};

/// Read lanes run what was not brief, which may be seconds of pure computing. They stand back for the async workers,
/// which answer everybody else, and for the lanes that write.
const READ_NICE: i32 = 10;

/// How often files are looked at that other processes want.
const GIVE_WAY: Duration = Duration::from_millis(500);

pub struct Engine {
    reads: Executor,
    writes: Executor,
    watchdog: Arc<Watchdog>,
    /// One for every pool: r2d2 would start three threads for each. It also gives way to other processes.
    scheduler: Arc<ScheduledThreadPool>,
    descriptors: Arc<DescriptorBudget>,
    /// The system's few files are outside the budget that tenants share.
    system_descriptors: Arc<DescriptorBudget>,
    tuning: Tuning,
    counters: Counters,
    answers: Arc<Allowances>,
    /// Lanes that flush just now.
    flushing: AtomicUsize,
    /// Files with a log to cut once they are quiet; each at most once.
    idle: Mutex<VecDeque<WhenIdle>>,
}

/// Asked whether to be asked again.
type WhenIdle = Box<dyn FnMut() -> bool + Send>;

/// The most page cache of one connection. The process's bound holds the sum; it has to come first: while all connections
/// together have as many pages as their own bounds add up to, SQLite drops a page as soon as it is not in use, and who has fewer
/// than its own bound then reads the same page again and again. From eight connections on, which a server with one
/// tenant has, the bounds add up to the process's. What a run reads counts as its memory, so it is a part of that too.
fn cache_kib(sqlite: &config::Sqlite) -> u64 {
    let of_a_run = if sqlite.statement_memory_bytes == 0 { u64::MAX } else { sqlite.statement_memory_bytes };
    ((sqlite.page_cache_bytes / 8).min(of_a_run / 4) / 1024).max(64)
}

/// Settings of every connection, worked out once.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    pub busy_timeout_ms: u64,
    pub cache_kib: u64,
    pub statement_memory_bytes: u64,
    pub statement_cache: usize,
    pub readers_per_file: u32,
    pub checkpoint_bytes: u64,
    pub wal_max_bytes: u64,
    pub idle_checkpoint: Duration,
    pub group_max: usize,
    /// Writes of one file waiting, and of all files.
    pub writes_waiting: usize,
}

impl Engine {
    /// Starts the lanes. Raises the process's soft descriptor limit to the hard one.
    pub fn start(sqlite: &config::Sqlite, executor: &config::Executor) -> Arc<Engine> {
        let cores = available_parallelism().map_or(2, |n| n.get());
        let or = |set: usize, derived: usize| if set == 0 { derived } else { set };
        let read_lanes = or(executor.read_lanes, (cores * 4).max(16));
        let write_lanes = or(executor.write_lanes, 16);
        // At the second one a statement gets no more: one that sorts gigabytes fails, the process does not.
        memory::limit(sqlite.page_cache_bytes, sqlite.heap_max_bytes);
        vfs::install();
        let bounds = Bounds {
            lanes: 1,
            waiting: executor.waiting,
            waiting_per_party: executor.waiting_per_tenant,
            waiting_time: Duration::from_millis(executor.waiting_ms),
            nice: 0,
        };
        let scheduler = ScheduledThreadPool::builder()
            .num_threads(1)
            .thread_name_pattern("pool-{}")
            .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
            .build();
        scheduler.execute_with_fixed_delay(GIVE_WAY, GIVE_WAY, vfs::give_way);
        Arc::new(Engine {
            reads: Executor::start("read", Bounds { lanes: read_lanes, nice: READ_NICE, ..bounds }),
            writes: Executor::start("write", Bounds { lanes: write_lanes, nice: 0, ..bounds }),
            watchdog: Watchdog::start(),
            scheduler: Arc::new(scheduler),
            descriptors: DescriptorBudget::new(sqlite.descriptors),
            system_descriptors: DescriptorBudget::new(u64::MAX),
            tuning: Tuning {
                busy_timeout_ms: sqlite.busy_timeout_ms,
                cache_kib: cache_kib(sqlite),
                statement_memory_bytes: sqlite.statement_memory_bytes,
                statement_cache: sqlite.statement_cache,
                readers_per_file: sqlite.readers_per_file,
                checkpoint_bytes: sqlite.checkpoint_bytes,
                wal_max_bytes: sqlite.wal_max_bytes,
                idle_checkpoint: Duration::from_millis(sqlite.idle_checkpoint_ms),
                group_max: executor.group_max.max(1),
                writes_waiting: executor.waiting_per_tenant,
            },
            counters: Counters::default(),
            answers: Allowances::new(u64::MAX),
            flushing: AtomicUsize::new(0),
            idle: Mutex::default(),
        })
    }

    /// What answers may take: without a bound until it is given one.
    pub fn answers(&self) -> &Arc<Allowances> {
        &self.answers
    }

    /// Runs file work of the server's own on a write lane.
    pub async fn blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let (job, answered) = answering(work);
        self.writes.submit(Party::SYSTEM, job)?;
        answered.await.unwrap_or_else(|_| ended_early())
    }

    /// The same for work that must not be refused, however much waits; its number is bounded elsewhere.
    pub async fn blocking_reserved<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let (job, answered) = answering(work);
        self.writes.submit_reserved(Party::SYSTEM, job);
        answered.await.unwrap_or_else(|_| ended_early())
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

    /// To be held while a file is flushed.
    pub(super) fn flushing(&self) -> Flushing<'_> {
        self.flushing.fetch_add(1, Relaxed);
        Flushing(self)
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.flushing.load(Relaxed) > 0
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
        self.descriptors.state()
    }

    pub(super) fn descriptors(&self, party: Party) -> &Arc<DescriptorBudget> {
        if party == Party::SYSTEM { &self.system_descriptors } else { &self.descriptors }
    }

    /// Jobs of one party that may read at once: as many as a file has readers, so that a lane never waits for
    /// one, and no more than a quarter of the lanes, so that no tenant has them all.
    pub(super) fn reading_max(&self) -> usize {
        (self.reads.lanes() / 4).clamp(1, (self.tuning.readers_per_file as usize).max(1))
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
}

/// Somebody flushes.
pub(super) struct Flushing<'a>(&'a Engine);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushing.fetch_sub(1, Relaxed);
    }
}

/// The work as a job, and where what comes of it arrives.
fn answering<T, F>(work: F) -> (Job, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    (Box::new(move || drop(answer.send(work()))), answered)
}

fn ended_early<T>() -> Result<T> {
    Err(Error::internal("file work ended early", &"it panicked"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::error::Code;

    #[tokio::test]
    async fn reserved_file_work_runs_where_other_work_is_refused() {
        let bounds = config::Executor { write_lanes: 1, waiting: 1, ..config::Executor::default() };
        let engine = Engine::start(&config::Sqlite::default(), &bounds);
        let (open, closed) = mpsc::channel::<()>();
        let (busy, is_busy) = mpsc::channel();
        let hold = move || {
            busy.send(()).unwrap();
            closed.recv().unwrap();
        };
        engine.writes.submit(Party::SYSTEM, Box::new(hold)).unwrap();
        is_busy.recv().unwrap();
        engine.writes.submit(Party::SYSTEM, Box::new(|| ())).unwrap();

        assert_eq!(engine.blocking(|| Ok(1)).await.unwrap_err().code(), Code::Overloaded);
        let opener = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            open.send(()).unwrap();
        });
        assert_eq!(engine.blocking_reserved(|| Ok(2)).await.unwrap(), 2);
        opener.join().unwrap();
        engine.stop();
    }
}

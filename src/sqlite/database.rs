//! A [`Database`] is a handle on one file. It costs nothing until its first use, which opens the file, once
//! however many ask. Jobs go in as closures and come out as values; each holds a [`Pass`] of the gate, so that
//! the file is only ever closed with nobody inside. While a failed file still has somebody reading it, it is
//! not opened again: a file has one writer alive.

mod brief;
mod closing;
mod limits;
mod opening;
mod replacing;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::checkpoint;
use super::draft::Allowance;
use super::engine::Engine;
use super::executor::Party;
use super::gate::{Gate, Pass};
use super::migrate::Wanted;
use super::reader::{Reader, WriteTx};
use super::session::Session;
use super::turn::Lent;
use super::watch::{Gone, Stop};
use super::writer::{self, Alone, End, Exclusive, Job, Step, Work};
use super::written::Told;
use crate::config::Level;
use crate::error::{Code, Error, Result};

use brief::Heavy;
pub use brief::{BRIEF, BRIEF_LENGTH};
pub use limits::Limits;
pub use opening::Open;

/// A file that could not be opened is not tried again for so long.
const RETRY: Duration = Duration::from_secs(1);

/// Writes of one file running at once are one; of a tenant, one for each of its files.
const WRITERS_OF_A_PARTY: usize = 4;

/// How a file is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub level: Level,
    /// The most bytes the file may have; 0 for no bound.
    pub max_bytes: u64,
    pub party: Party,
    /// What the file is brought up to date with when it is opened, in this order.
    pub migrations: Wanted,
    /// Where the file is kept as it was before a migration destroys something in it.
    pub keep_before: Option<PathBuf>,
    /// Whether tenants' own SQL runs here.
    pub sandboxed: bool,
    /// Whether a missing file is made. A tenant's files are made by provisioning only.
    pub create: bool,
    /// Descriptors that the connections of this file, and of others of the same owner, hold.
    pub held: Arc<AtomicU64>,
    /// What answers that are made of its rows may take.
    pub answers: Arc<Allowance>,
}

pub struct Database {
    serial: u64,
    engine: Arc<Engine>,
    gate: Arc<Gate>,
    path: PathBuf,
    options: Options,
    open: RwLock<Option<Arc<Open>>>,
    /// Single flight for opening.
    opening: tokio::sync::Mutex<()>,
    /// Held on the lane that opens it.
    opening_here: Mutex<()>,
    /// What was open last: gone before the file is opened again.
    last: Mutex<Weak<Open>>,
    failed: Mutex<Option<(Instant, Error)>>,
    /// A statement met damage. Not taken back by opening again: what is damaged stays so.
    damaged: AtomicBool,
    queue: Mutex<Queue>,
    /// Whether a checkpoint of the idle file is due.
    idle_listed: AtomicBool,
    heavy: Heavy,
    /// What waits is not begun any more.
    refused: AtomicBool,
    /// A commit failed undecided: what the log holds may not be on the disk.
    suspect: AtomicBool,
    pub(super) told: Arc<OnceLock<Told>>,
    pub(super) left: OnceLock<&'static str>,
    /// Everything in it can be made again.
    replaceable: bool,
    /// Of a replaceable file: it is to be made anew before it is opened again.
    spoiled: AtomicBool,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    /// A lane drains the queue, or is about to.
    drained: bool,
}

/// What shows of a file from outside.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct FileState {
    pub open: bool,
    pub readers: u32,
    pub readers_idle: u32,
    pub writes_waiting: usize,
    pub wal_bytes: u64,
    /// Its last opening failed, or a statement met damage.
    pub failed: bool,
}

/// Tells a job that its caller has gone, when the caller's future is dropped.
pub(super) struct Caller(pub(super) Gone);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Database {
    /// A handle; no I/O.
    pub fn new(engine: &Arc<Engine>, gate: &Arc<Gate>, path: PathBuf, options: Options) -> Arc<Database> {
        Arc::new(Database::closed(engine, gate, path, options))
    }

    fn closed(engine: &Arc<Engine>, gate: &Arc<Gate>, path: PathBuf, options: Options) -> Database {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        Database {
            serial: SERIAL.fetch_add(1, Relaxed),
            engine: engine.clone(),
            gate: gate.clone(),
            path,
            options,
            open: RwLock::default(),
            opening: tokio::sync::Mutex::default(),
            opening_here: Mutex::default(),
            last: Mutex::default(),
            failed: Mutex::default(),
            damaged: AtomicBool::default(),
            queue: Mutex::default(),
            idle_listed: AtomicBool::default(),
            heavy: Heavy::default(),
            refused: AtomicBool::default(),
            suspect: AtomicBool::default(),
            told: Arc::default(),
            left: OnceLock::new(),
            replaceable: false,
            spoiled: AtomicBool::default(),
        }
    }

    /// Of this handle; no other of the process has or had it.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the one whose file it is; `None` for the server's own.
    pub fn owner(&self) -> Option<u128> {
        (self.options.party != Party::SYSTEM).then_some(self.options.party.id)
    }

    /// Runs `f` on a reader. Each statement in it sees the newest commit, unless it takes a
    /// [`Reader::snapshot`].
    pub async fn read<T, F>(self: &Arc<Self>, limits: Limits, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let open = self.opened().await?;
        let on = Arc::downgrade(&open);
        let pass = self.hold()?;
        let gone = Gone::default();
        let _caller = Caller(gone.clone());
        let (answer, answered) = oneshot::channel();
        let (engine, database) = (self.engine.clone(), self.clone());
        let job = move || {
            // In this order: the pass goes last, so whoever finds nobody inside finds the file unused.
            let (_pass, open) = (pass, open);
            if gone.load(Relaxed) {
                return;
            }
            let run = |session: &Session| {
                session
                    .watched(&engine, limits.time, gone, || f(&Reader::new(session, &open.answers)))
                    .map_err(|error| writer::explain(session, error))
            };
            let outcome = database.not_refused().and_then(|()| run(&*open.readers.get()?));
            engine.counters().reads.fetch_add(1, Relaxed);
            let _ = answer.send(outcome);
        };
        self.engine.reads().submit(self.reading_party(), Box::new(job))?;
        self.noted(answered.await.unwrap_or_else(|_| Err(Error::internal("a read ended early", &"it panicked"))), &on)
    }

    /// Runs `f` on the writer, in a group's transaction, and returns after the commit. An `Err`
    /// undoes what `f` did, alone. `f` may run more than once, so it must have no effect beside the
    /// transaction; only what its last run returned counts.
    pub async fn write<T, F>(self: &Arc<Self>, limits: Limits, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        let open = self.opened().await?;
        let gone = Gone::default();
        let _caller = Caller(gone.clone());
        let (answer, answered) = oneshot::channel();
        let (mut answer, mut value, mut f) = (Some(answer), None, Some(f));
        let step = move |step: Step<'_>| match step {
            Step::Attempt(tx) => f.as_mut().map_or(Ok(()), |f| {
                // Of an attempt that was taken back: it has taken room for its answer.
                value = None;
                f(tx).map(|made| value = Some(made))
            }),
            Step::Settle(outcome) => {
                drop(f.take()); // What it holds goes before its caller goes on.
                if let Some(answer) = answer.take() {
                    let missing = || Error::internal("a write was settled that never ran", &"no value");
                    let _ = answer.send(outcome.and_then(|()| value.take().ok_or_else(missing)));
                }
                Ok(())
            }
        };
        self.write_here_or_queue(&open, Job { step: Box::new(step), limits, gone, _pass: self.hold()? })?;
        let on = Arc::downgrade(&open);
        // Whoever waits for room to close the file should not wait for this.
        drop(open);
        self.noted(answered.await.unwrap_or_else(|_| Err(Error::internal("a write ended early", &"it panicked"))), &on)
    }

    /// Runs `f` with the writer to itself, outside any group.
    pub async fn write_alone<T, F>(self: &Arc<Self>, limits: Limits, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Exclusive<'_>) -> Result<T> + Send + 'static,
    {
        let on = Arc::downgrade(&self.opened().await?);
        let gone = Gone::default();
        let _caller = Caller(gone.clone());
        let (answer, answered) = oneshot::channel();
        let run = move |writer: Result<&Exclusive<'_>>| drop(answer.send(writer.and_then(f)));
        self.enqueue(Work::Alone(Alone { run: Box::new(run), limits, gone, _pass: self.hold()? }))?;
        self.noted(answered.await.unwrap_or_else(|_| Err(Error::internal("a write ended early", &"it panicked"))), &on)
    }

    /// Opens the file if it is not, and with that brings it up to date.
    pub async fn ensure_open(self: &Arc<Self>) -> Result<()> {
        self.opened().await.map(drop)
    }

    pub fn state(&self) -> FileState {
        let writes_waiting = self.queue().work.len();
        let failed = self.damaged.load(Relaxed) || self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        match self.current() {
            None => FileState { writes_waiting, failed, ..FileState::default() },
            Some(open) => {
                let (readers, readers_idle) = open.readers.state();
                FileState { open: true, readers, readers_idle, writes_waiting, wal_bytes: open.log.bytes(), failed }
            }
        }
    }

    pub(super) fn enqueue(self: &Arc<Self>, work: Work) -> Result<()> {
        let mut queue = self.queue();
        if queue.work.len() >= self.engine.tuning().writes_waiting && self.options.party != Party::SYSTEM {
            return Err(Error::new(Code::TooManyRequests, "too many writes of this tenant are waiting")
                .hint("The bound is executor.waiting_per_tenant.")
                .retry_after(Duration::from_secs(1)));
        }
        queue.work.push_back(work);
        if !std::mem::replace(&mut queue.drained, true) {
            drop(queue);
            self.submit_drain();
        }
        Ok(())
    }

    pub(super) fn submit_drain(self: &Arc<Self>) {
        let database = self.clone();
        self.engine.writes().submit_reserved(self.writing_party(), Box::new(move || database.drain()));
    }

    /// Serves the queue once: a group, or one job alone. Then goes to the back of the lanes' line, so that a
    /// tenant that writes without end does not keep a lane.
    fn drain(self: Arc<Self>) {
        // The jobs' own passes go as they are answered.
        let Ok(_pass) = self.hold() else { return self.refuse_all() };
        let Some(open) = self.current() else { return self.refuse_all() };
        let Some(session) = self.writer_of(&open) else { return self.refuse_all() };
        if let Err(refused) = self.not_refused() {
            drop(session);
            return self.settle_waiting(&refused);
        }
        let fence = || self.fail(&open);
        let end = match self.take() {
            Taken::Nothing => End::Sound,
            Taken::Group(jobs) => {
                let (rest, end) = writer::run_group(&self.engine, &open, &session, jobs, &fence);
                let mut queue = self.queue();
                for job in rest.into_iter().rev() {
                    queue.work.push_front(Work::Grouped(job));
                }
                end
            }
            Taken::Alone(alone) => self.run_alone(&open, &session, alone, &fence),
            Taken::Lent(lent) => {
                drop(session);
                return lent.lend(self.clone());
            }
        };
        if end == End::Sound {
            checkpoint::after_commit(&self.engine, &open, &session);
        }
        drop(session);
        self.end_turn(self.queue(), false);
    }

    /// Whoever has the queue of writes lets go of it, unless something waits in it or `more` is to be done on a lane.
    fn end_turn(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>, more: bool) {
        if queue.work.is_empty() && !more {
            queue.drained = false;
            drop(queue);
            self.list_idle();
        } else {
            drop(queue);
            self.submit_drain();
        }
    }

    fn run_alone(&self, open: &Open, session: &Session, alone: Alone, fence: &dyn Fn()) -> End {
        if alone.gone.load(Relaxed) {
            return End::Sound;
        }
        let until = Instant::now() + alone.limits.time;
        let exclusive = Exclusive { engine: &self.engine, open, session, failed: false.into(), fence, until, gone: alone.gone };
        let run = alone.run;
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(Ok(&exclusive))));
        writer::roll_back(session);
        if ran.is_err() {
            tracing::error!("a write job panicked; it was rolled back");
        }
        if exclusive.failed.get() { End::Failed } else { End::Sound }
    }

    fn take(&self) -> Taken {
        let mut queue = self.queue();
        let mut jobs = VecDeque::new();
        while jobs.len() < self.engine.tuning().group_max {
            match queue.work.pop_front() {
                Some(Work::Grouped(job)) => jobs.push_back(job),
                Some(Work::Alone(alone)) if jobs.is_empty() => return Taken::Alone(alone),
                Some(Work::Lent(lent)) if jobs.is_empty() => return Taken::Lent(lent),
                Some(other) => {
                    queue.work.push_front(other);
                    break;
                }
                None => break,
            }
        }
        if jobs.is_empty() { Taken::Nothing } else { Taken::Group(jobs) }
    }

    /// Damage that a statement meets shows in the file's state; what it does not touch is still served. A file that is
    /// made anew since it was open as `on` is not blamed.
    fn noted<T>(&self, outcome: Result<T>, on: &Weak<Open>) -> Result<T> {
        let outcome = outcome.map_err(|error| self.as_damage(error));
        if let Err(error) = &outcome
            && (!self.replaceable || self.current().is_some_and(|open| Arc::as_ptr(&open) == on.as_ptr()))
        {
            if error.is_withheld() {
                self.damaged.store(true, Relaxed);
            }
            self.spoil(error);
        }
        outcome
    }

    /// The file is closed as soon as its readers have stopped; whoever comes next opens it again.
    pub(super) fn fail(&self, open: &Arc<Open>) {
        self.suspect.store(true, Relaxed);
        self.spoiled.fetch_or(self.replaceable, Relaxed);
        open.readers.stop(Stop::Closing);
        open.transactions.stop(Stop::Closing);
        let mut current = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|now| Arc::ptr_eq(now, open)) {
            *current = None;
        }
    }

    /// Has the engine checkpoint the file once it has been quiet for a while.
    fn list_idle(self: &Arc<Self>) {
        if self.current().is_some_and(|open| open.log.bytes() > 0) && !self.idle_listed.swap(true, Relaxed) {
            let database = Arc::downgrade(self);
            self.engine.when_idle(move || database.upgrade().is_some_and(|database| database.checkpoint_if_quiet()));
        }
    }

    /// Whether to ask again later.
    fn checkpoint_if_quiet(self: &Arc<Self>) -> bool {
        let (Ok(pass), Some(open)) = (self.hold(), self.current()) else {
            self.idle_listed.store(false, Relaxed);
            return false;
        };
        if open.quiet_for() < self.engine.tuning().idle_checkpoint {
            drop(open);
            return true;
        }
        self.idle_listed.store(false, Relaxed);
        let database = self.clone();
        let checkpoint = move || {
            let (_pass, open) = (pass, open);
            if let Some(writer) = database.writer_of(&open) {
                checkpoint::truncate(&writer, &open.log);
            }
        };
        self.engine.writes().submit_reserved(self.writing_party(), Box::new(checkpoint));
        false
    }

    pub(super) fn writing_party(&self) -> Party {
        if self.options.party == Party::SYSTEM { Party::SYSTEM } else { Party { running_max: WRITERS_OF_A_PARTY, ..self.options.party } }
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) fn answers(&self) -> &Arc<Allowance> {
        &self.options.answers
    }

    pub(super) fn has_writes_waiting(&self) -> bool {
        !self.queue().work.is_empty()
    }

    pub(super) fn reading_party(&self) -> Party {
        Party { running_max: self.engine.reading_max(), ..self.options.party }
    }

    pub(super) fn hold(&self) -> Result<Pass> {
        self.gate.hold().ok_or_else(|| Error::new(Code::ShuttingDown, "this database is closed").retry_after(Duration::from_secs(1)))
    }

    /// The writer, once nobody else has it; `None` if the file has been taken away since it was open as `open`. Asked with
    /// the writer held: a commit that fails undecided takes the file away before it lets go of the writer.
    fn writer_of<'o>(&self, open: &'o Arc<Open>) -> Option<MutexGuard<'o, Session>> {
        let writer = open.wait_for_writer();
        self.is_open_as(open).then_some(writer)
    }

    fn is_open_as(&self, open: &Arc<Open>) -> bool {
        self.current().is_some_and(|now| Arc::ptr_eq(&now, open))
    }

    fn current(&self) -> Option<Arc<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Taken {
    Nothing,
    Group(VecDeque<Job>),
    Alone(Alone),
    Lent(Lent),
}

#[cfg(test)]
pub(super) mod tests;

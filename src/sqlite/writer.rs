//! The writer of a file commits in groups. Jobs queue up while a commit runs; a lane then takes what has queued,
//! opens one `BEGIN IMMEDIATE`, runs each job, commits once and answers all of them. So
//! the flush to disk, which is most of a small write's cost, is shared, and nothing is answered before it.
//!
//! - A job that fails rolls back alone. Savepoints would do that, but one for each job costs more than a small
//!   write does, so most groups run without: when a job fails that has written, or SQLite itself rolls back
//!   (interrupted while writing, disk full, out of memory), the whole transaction is rolled back and the others
//!   are run again without the offender; for a while, then, each has its savepoint. That is why a job may run
//!   more than once.
//! - An I/O error at COMMIT means nobody can say whether the group is in the log. All of it is answered
//!   `unknown`, and the file is closed first, so that opening it again decides: nobody who was told reads what was.
//! - Every commit of a file passes [`commit`], every checkpoint [`super::checkpoint`].

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::database::{BRIEF, BRIEF_LENGTH, Limits, Open};
use super::draft::Draft;
use super::engine::Engine;
use super::fault;
use super::gate::Pass;
use super::memory;
use super::reader::WriteTx;
use super::session::Session;
use super::turn::Lent;
use super::watch::Gone;
use crate::error::{Code, Error, Result};

/// How long a group gathers jobs before it commits, so that many slow ones do not hold up the first.
const GROUP_TIME: Duration = Duration::from_millis(25);

/// Jobs that get savepoints after one had to be rolled back: writes that fail come in runs.
const APART_FOR: u32 = 256;

/// How many of the next jobs get savepoints.
#[derive(Default)]
pub struct Apart(AtomicU32);

impl Apart {
    fn next(&self) -> bool {
        // Only whoever has the writer asks.
        let left = self.0.load(Relaxed);
        self.0.store(left.saturating_sub(1), Relaxed);
        left > 0
    }

    fn begin(&self) {
        self.0.store(APART_FOR, Relaxed);
    }
}

/// What a job is asked to do: its work, or to tell its caller the outcome.
pub enum Step<'a> {
    Attempt(&'a WriteTx<'a>),
    /// The last call. After `Ok` what the last attempt returned is on disk.
    Settle(Result<()>),
}

/// One write waiting for the writer.
pub struct Job {
    pub step: Box<dyn FnMut(Step<'_>) -> Result<()> + Send>,
    pub limits: Limits,
    pub gone: Gone,
    /// Keeps the file open.
    pub _pass: Pass,
}

impl Job {
    pub fn settle(mut self, outcome: Result<()>) {
        // Nobody is left to tell when even the answer panics.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.step)(Step::Settle(outcome))));
    }
}

/// Given the writer, or the reason why it cannot have it.
pub type RunAlone = Box<dyn FnOnce(Result<&Exclusive<'_>>) + Send>;

/// A write that has the writer to itself, outside any group's transaction.
pub struct Alone {
    pub run: RunAlone,
    pub limits: Limits,
    pub gone: Gone,
    pub _pass: Pass,
}

pub enum Work {
    Grouped(Job),
    Alone(Alone),
    /// The queue rests while a transaction that lives over several requests has the turn.
    Lent(Lent),
}

/// How a group ended, as far as the file is concerned.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Sound,
    /// The file is to be closed and opened again before anything else is done with it.
    Failed,
}

/// Runs `jobs` as one group; returns those it did not get to. `fence` takes a failed file away before anybody is told.
pub fn run_group(engine: &Engine, open: &Open, session: &Session, mut jobs: VecDeque<Job>, fence: &dyn Fn()) -> (VecDeque<Job>, End) {
    'group: loop {
        jobs.retain(|job| !job.gone.load(Relaxed));
        if jobs.is_empty() {
            return (jobs, End::Sound);
        }
        // Nothing should be open here; if something is, it was never answered.
        roll_back(session);
        if let Err(error) = session.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
            roll_back(session);
            let end = if fault::is_broken(&error) { End::Failed } else { End::Sound };
            if end == End::Failed {
                fence();
            }
            settle_all(jobs, &Err(error.into()));
            return (VecDeque::new(), end);
        }
        let began = Instant::now();
        let mut kept = Vec::with_capacity(jobs.len());
        while let Some(mut job) = jobs.pop_front() {
            match attempt(engine, open, session, &mut job) {
                Attempt::Kept => kept.push(job),
                Attempt::Failed(error) => job.settle(Err(error)),
                Attempt::Lost(error) => {
                    job.settle(Err(error));
                    open.apart.begin();
                    for job in kept.into_iter().rev() {
                        jobs.push_front(job);
                    }
                    continue 'group;
                }
            }
            if began.elapsed() > GROUP_TIME {
                break;
            }
        }
        let (outcome, end) = commit(engine, open, session);
        if end == End::Failed {
            fence();
        }
        engine.counters().grouped(kept.len());
        settle_all(kept, &outcome);
        return (jobs, end);
    }
}

/// Runs one job as a group where that must not take long: it waits for nobody, and a job that is not done within
/// [`BRIEF`], or fails, is undone and comes back, to be run where there is time and to fail there.
pub fn run_briefly(engine: &Engine, open: &Open, session: &Session, mut job: Job, fence: &dyn Fn()) -> Option<Job> {
    if !session.is_clean() || session.begin_at_once().is_err() {
        return Some(job);
    }
    session.touched.set(false);
    let tx = WriteTx::new(session, &open.answers);
    let ran = session.briefly(BRIEF, BRIEF_LENGTH, || catch_unwind(AssertUnwindSafe(|| (job.step)(Step::Attempt(&tx)))));
    let done = matches!(ran, Ok(Ok(Ok(())))) && !session.conn.is_autocommit() && !session.has_unmet_foreign_keys();
    if !done || session.drop_temp().is_err() {
        roll_back(session);
        return Some(job);
    }
    let (outcome, end) = commit(engine, open, session);
    if end == End::Failed {
        fence();
    }
    engine.counters().grouped(1);
    job.settle(outcome);
    None
}

/// Commits what the session's transaction holds: the one place where a commit of a file happens, and where
/// what is to come between a commit and its answer (shipping the log) belongs.
pub fn commit(engine: &Engine, open: &Open, session: &Session) -> (Result<()>, End) {
    let written = session.take_written();
    let renamed = match open.versions.rename(session, &written) {
        Ok(renamed) => renamed,
        Err(error) => {
            let end = if fault::is_broken(&error) { End::Failed } else { End::Sound };
            roll_back(session);
            return (Err(error.into()), end);
        }
    };
    // Not of what comes next.
    drop(session.take_written());
    let committed = {
        let _flushing = session.flushes.then(|| engine.flushing());
        session.conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]))
    };
    match committed {
        Ok(_) => {
            open.log.went_on();
            engine.counters().commits.fetch_add(1, Relaxed);
            open.versions.settle(renamed);
            open.wrote();
            open.tell(&written);
            (Ok(()), End::Sound)
        }
        Err(error) if fault::is_undecided(&error) => {
            tracing::error!(%error, "a commit failed undecided; the file is opened again");
            engine.counters().unknown.fetch_add(1, Relaxed);
            open.tell(&written);
            (Err(unknown()), End::Failed)
        }
        Err(error) => {
            let end = if fault::is_broken(&error) { End::Failed } else { End::Sound };
            roll_back(session);
            (Err(if fault::is_full(&error) { fault::disk_full() } else { error.into() }), end)
        }
    }
}

fn unknown() -> Error {
    Error::new(Code::Unknown, "the disk failed while this was committed: it may or may not be there")
        .hint("Read to find out, or send the same request again with the same Idempotency-Key.")
}

enum Attempt {
    Kept,
    /// Rolled back alone.
    Failed(Error),
    /// The whole transaction went with it.
    Lost(Error),
}

fn attempt(engine: &Engine, open: &Open, session: &Session, job: &mut Job) -> Attempt {
    let apart = open.apart.next();
    let conn = &session.conn;
    let batch = |sql: &str| if apart { conn.prepare_cached(sql).and_then(|mut statement| statement.execute([])) } else { Ok(0) };
    if let Err(error) = batch("SAVEPOINT job") {
        return lost(session, error.into());
    }
    session.touched.set(false);
    let tx = WriteTx::new(session, &open.answers);
    let ran =
        session.watched(engine, job.limits.time, job.gone.clone(), || catch_unwind(AssertUnwindSafe(|| (job.step)(Step::Attempt(&tx)))));
    let outcome = match ran {
        Ok(outcome) => outcome.map_err(|error| explain(session, error)),
        Err(_) => Err(Error::internal("a write job panicked", &"it was rolled back")),
    };
    if conn.is_autocommit() {
        return lost(
            session,
            outcome.err().unwrap_or_else(|| Error::internal("a job ended its group's transaction", &"it was rolled back")),
        );
    }
    let outcome = outcome.and_then(|()| if session.has_unmet_foreign_keys() { Err(unmet_foreign_key()) } else { Ok(()) });
    match outcome.and_then(|()| Ok(session.drop_temp()?)) {
        Ok(()) => match batch("RELEASE job") {
            Ok(_) => Attempt::Kept,
            Err(error) => lost(session, error.into()),
        },
        Err(error) if !apart => {
            if session.touched.get() {
                lost(session, error)
            } else {
                Attempt::Failed(error)
            }
        }
        Err(error) => match batch("ROLLBACK TO job").and_then(|_| batch("RELEASE job")) {
            Ok(_) => {
                session.gauge.forget();
                Attempt::Failed(error)
            }
            Err(_) => lost(session, error),
        },
    }
}

fn lost(session: &Session, error: Error) -> Attempt {
    roll_back(session);
    Attempt::Lost(error)
}

/// Ends a transaction that may be gone already.
pub fn roll_back(session: &Session) {
    // What a transaction freed is taken again when it does not commit.
    session.gauge.forget();
    drop(session.take_written());
    if !session.conn.is_autocommit()
        && let Err(error) = session.conn.prepare_cached("ROLLBACK").and_then(|mut statement| statement.execute([]))
    {
        tracing::error!(%error, "a rollback failed");
    }
}

pub fn unmet_foreign_key() -> Error {
    Error::new(Code::ConstraintViolation, "FOREIGN KEY constraint failed").details(fault::details(ffi::SQLITE_CONSTRAINT_FOREIGNKEY))
}

/// Says why a statement was stopped or found no room, where SQLite only says that it was so.
pub fn explain(session: &Session, error: Error) -> Error {
    use super::watch::Stop;
    match error.code() {
        Code::StatementTimeout => {}
        Code::Overloaded if memory::was_refused() => {
            return Error::new(Code::SqlError, "the statement needs more memory than one may have")
                .hint("An index to sort by, a LIMIT or smaller steps help. The bound is sqlite.statement_memory_bytes.");
        }
        Code::QuotaExceeded if session.conn.path().is_some_and(fault::disk_is_full) => return fault::disk_full(),
        _ => return error,
    }
    match session.watch.stopped() {
        Some(Stop::HeldBack) => Error::new(Code::Overloaded, "the read was stopped: its snapshot kept the write-ahead log from being cut")
            .hint("Send it again; shorter reads are not stopped. The bound is sqlite.wal_max_bytes.")
            .retry_after(Duration::from_secs(1)),
        Some(Stop::Closing) => {
            Error::new(Code::TenantUnavailable, "the database was closed while the statement ran").retry_after(Duration::from_secs(1))
        }
        _ => error,
    }
}

fn settle_all(jobs: impl IntoIterator<Item = Job>, outcome: &Result<()>) {
    for job in jobs {
        job.settle(outcome.clone());
    }
}

/// The writer, for one job alone: each of its steps commits by itself.
pub struct Exclusive<'a> {
    pub(super) engine: &'a Engine,
    pub(super) open: &'a Open,
    pub(super) session: &'a Session,
    pub(super) failed: std::cell::Cell<bool>,
    pub(super) fence: &'a dyn Fn(),
    pub(super) until: Instant,
    pub(super) gone: Gone,
}

impl<'a> Exclusive<'a> {
    /// For the answer that is made of what is done here.
    pub fn draft(&self) -> Draft<'a> {
        Draft::new(&self.open.answers)
    }

    /// Runs `f` in a transaction of its own and commits it; an `Err` rolls it back. All of them together have the
    /// job's time.
    pub fn transaction<T>(&self, f: impl FnOnce(&WriteTx<'_>) -> Result<T>) -> Result<T> {
        self.session.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let outcome = self.watched(|| f(&WriteTx::new(self.session, &self.open.answers))).and_then(|value| {
            self.session.drop_temp()?;
            if self.session.has_unmet_foreign_keys() { Err(unmet_foreign_key()) } else { Ok(value) }
        });
        match outcome {
            Ok(value) if !self.session.conn.is_autocommit() => {
                let (committed, end) = commit(self.engine, self.open, self.session);
                if end == End::Failed {
                    self.failed.set(true);
                    (self.fence)();
                }
                committed.map(|()| value)
            }
            Ok(_) => Err(Error::internal("a transaction ended early", &"it was rolled back")),
            Err(error) => {
                roll_back(self.session);
                Err(explain(self.session, error))
            }
        }
    }

    /// Rebuilds the file without its free pages.
    pub fn vacuum(&self) -> Result<()> {
        // In a file, not in memory: it is a copy of the whole database.
        self.session.conn.execute_batch("PRAGMA temp_store=FILE")?;
        let outcome = self.watched(|| self.session.conn.execute_batch("VACUUM"));
        self.session.conn.execute_batch("PRAGMA temp_store=MEMORY")?;
        outcome.map_err(|error| explain(self.session, error.into()))?;
        self.open.wrote();
        if self.open.versions.is_empty() {
            return Ok(());
        }
        // It may have given other rowids to the rows of a table that has no key of its own.
        self.transaction(|tx| {
            tx.wrote_everything();
            Ok(())
        })
    }

    /// What a step runs is watched, the commit after it is not.
    fn watched<T>(&self, f: impl FnOnce() -> T) -> T {
        let left = self.until.saturating_duration_since(Instant::now());
        self.session.watched(self.engine, left, self.gone.clone(), f)
    }
}

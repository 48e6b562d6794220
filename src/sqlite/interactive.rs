//! An [`Interactive`] transaction lives over several requests of one client, on a session of its own. It is the one
//! thing that async code holds while a connection is in a transaction, and holds it only as a handle: what touches the
//! session runs on a lane, which has it for that long ([`Interaction`]). The file still has one writer: whoever writes
//! has its [`Turn`].
//!
//! Invariants:
//! - A session that has written has the turn, and keeps it until its transaction has ended.
//! - A transaction ends by its COMMIT or ROLLBACK, when SQLite ends it, when its handle is dropped, past its [`Bounds`],
//!   when the file is fenced or fails, or when its snapshot keeps the log from being cut. Then, on a lane and in this
//!   order, the session is closed, the turn goes back, and the file may be closed.

mod interaction;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::database::{Caller, Database, Open};
use super::engine::Engine;
use super::executor::{Executor, Party};
use super::gate::Pass;
use super::session::{Session, Settings};
use super::turn::Turn;
use super::watch::{Gone, Stop, Watch};
use super::writer;
use crate::config;
use crate::error::{Code, Error, Result};

pub use interaction::Interaction;

/// What a transaction is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Reads until its first write, for which it takes the turn.
    Deferred,
    /// Has the turn from the start.
    Immediate,
    /// Never writes.
    ReadOnly,
}

/// What transactions of one file may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Waiting for the turn.
    pub wait: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Between two requests while others wait for the turn it has.
    pub idle_contended: Duration,
    /// From its begin to its end.
    pub whole: Duration,
    /// Open at once.
    pub open: usize,
}

impl From<&config::Hrana> for Bounds {
    fn from(config: &config::Hrana) -> Bounds {
        Bounds {
            wait: Duration::from_millis(config.turn_wait_ms),
            idle: Duration::from_millis(config.transaction_idle_ms),
            idle_contended: Duration::from_millis(config.transaction_idle_contended_ms),
            whole: Duration::from_millis(config.transaction_ms),
            open: config.transactions_per_tenant,
        }
    }
}

/// A handle on a transaction; dropped, it is rolled back.
pub struct Interactive {
    shared: Arc<Shared>,
}

struct Shared {
    database: Arc<Database>,
    begin: Begin,
    bounds: Bounds,
    begun: Instant,
    /// To stop what runs; once the session is open.
    watch: OnceLock<Arc<Watch>>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Not here while a lane has it, or before it is open.
    pinned: Option<Pinned>,
    idle_since: Instant,
}

enum Phase {
    Open,
    /// By its own statements, or by SQLite.
    Over,
    /// By somebody else, for this reason.
    Ended(Error),
}

/// What a transaction holds, in the order in which it is let go.
struct Pinned {
    session: Session,
    turn: Option<Turn>,
    /// From the outermost inwards.
    savepoints: Vec<String>,
    /// The outermost savepoint began the transaction.
    begun_by_savepoint: bool,
    open: Arc<Open>,
    _pass: Pass,
    _counted: Counted,
}

/// Counts a transaction's session: begun when it is made, ended when it is dropped.
struct Counted(Arc<Engine>);

impl Counted {
    fn new(engine: &Arc<Engine>) -> Counted {
        engine.counters().interactive_begun.fetch_add(1, Relaxed);
        Counted(engine.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters().interactive_ended.fetch_add(1, Relaxed);
    }
}

impl Database {
    /// Begins a transaction. With `foreign_keys` off, none is enforced in it.
    pub async fn begin(self: &Arc<Self>, begin: Begin, foreign_keys: bool, bounds: Bounds) -> Result<Interactive> {
        self.ensure_open().await?;
        let turn = if begin == Begin::Immediate { Some(self.turn(bounds.wait).await?) } else { None };
        let open = self.opened().await?;
        let pass = self.hold()?;
        let state = State { phase: Phase::Open, pinned: None, idle_since: Instant::now() };
        let shared =
            Arc::new(Shared { database: self.clone(), begin, bounds, begun: Instant::now(), watch: OnceLock::new(), state: state.into() });
        let transaction = Interactive { shared: shared.clone() };
        open.transactions.enter(&shared, bounds.open)?;
        // After it can be found: a fence either finds it or is seen here.
        self.not_fenced()?;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let opened = shared.open_session(foreign_keys).map(|session| {
                let counted = Counted::new(shared.database.engine());
                let savepoints = Vec::new();
                let pinned = Pinned { session, turn, savepoints, begun_by_savepoint: false, open, _pass: pass, _counted: counted };
                shared.put_back(pinned);
            });
            let _ = answer.send(opened.map_err(Error::from));
        };
        self.engine().writes().submit(self.writing_party(), Box::new(job))?;
        answered.await.unwrap_or_else(|_| Err(Error::internal("a transaction ended as it began", &"it panicked")))?;
        let looked_after = Arc::downgrade(&transaction.shared);
        self.engine().when_idle(move || looked_after.upgrade().is_some_and(|shared| shared.goes_on(Instant::now())));
        Ok(transaction)
    }
}

impl Interactive {
    /// Runs `f` on a lane. What it runs is stopped after `time`, and when the caller's future is dropped; that ends the
    /// transaction too, as nobody knows how far it came.
    pub async fn run<T, F>(&self, time: Duration, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Interaction<'_>) -> T + Send + 'static,
    {
        let shared = &self.shared;
        let pinned = shared.take()?;
        let (lanes, party) = shared.lanes(&pinned);
        let taken = Taken { shared: shared.clone(), pinned: Some(pinned) };
        let until = (Instant::now() + time).min(shared.begun + shared.bounds.whole);
        let gone = Gone::default();
        let _caller = Caller(gone.clone());
        let (answer, answered) = oneshot::channel();
        lanes.submit(party, Box::new(move || taken.run(until, gone, f, answer)))?;
        answered.await.unwrap_or_else(|_| Err(Error::internal("a statement of a transaction ended early", &"it panicked")))
    }

    /// Waits for the turn, unless it has it.
    pub async fn take_turn(&self) -> Result<()> {
        let shared = &self.shared;
        // Who waits for others is not idle.
        shared.state().idle_since = Instant::now() + shared.bounds.wait;
        let turn = shared.database.turn(shared.bounds.wait).await;
        let mut state = shared.state();
        state.idle_since = Instant::now();
        match &mut *state {
            State { phase: Phase::Ended(why), .. } => Err(why.clone()),
            State { pinned: Some(pinned), .. } => {
                pinned.turn = Some(turn?);
                Ok(())
            }
            _ => Err(in_use()),
        }
    }

    pub fn is_read_only(&self) -> bool {
        self.shared.begin == Begin::ReadOnly
    }

    pub fn is_open(&self) -> bool {
        matches!(self.shared.state().phase, Phase::Open)
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        self.shared.end(Phase::Over);
    }
}

impl Shared {
    /// On a lane.
    fn open_session(&self, foreign_keys: bool) -> rusqlite::Result<Session> {
        let database = &self.database;
        let settings = Settings { writer: self.begin != Begin::ReadOnly, create: false, ..database.settings() };
        let session = Session::open(database.engine(), database.path(), settings, None)?;
        if !foreign_keys {
            session.conn.execute_batch("PRAGMA foreign_keys=OFF")?;
        }
        session.conn.execute_batch(if self.begin == Begin::Immediate { "BEGIN IMMEDIATE" } else { "BEGIN" })?;
        let _ = self.watch.set(session.watch.clone());
        Ok(session)
    }

    fn take(&self) -> Result<Pinned> {
        let mut state = self.state();
        if let Phase::Ended(why) = &state.phase {
            return Err(why.clone());
        }
        state.pinned.take().ok_or_else(in_use)
    }

    fn put_back(&self, pinned: Pinned) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Open) {
            state.idle_since = Instant::now();
            state.pinned = Some(pinned);
            return;
        }
        drop(state);
        self.let_go(pinned);
    }

    /// What has the turn runs where writes do; it must not wait behind reads.
    fn lanes(&self, pinned: &Pinned) -> (&Executor, Party) {
        let database = &self.database;
        match pinned.turn {
            Some(_) => (database.engine().writes(), database.writing_party()),
            None => (database.engine().reads(), database.reading_party()),
        }
    }

    /// Ends the transaction, now or as soon as the lane that has its session puts it back.
    fn end(&self, phase: Phase) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Open) {
            state.phase = phase;
        }
        let pinned = state.pinned.take();
        drop(state);
        if let Some(pinned) = pinned {
            self.let_go(pinned);
        }
    }

    /// Closing a session rolls back, so it is a lane's work. One job for each transaction at most.
    fn let_go(&self, pinned: Pinned) {
        self.database.engine().writes().submit_reserved(self.database.writing_party(), Box::new(move || drop(pinned)));
    }

    /// Whether it is within its bounds; otherwise it is ended.
    fn goes_on(&self, now: Instant) -> bool {
        let state = self.state();
        let Phase::Open = state.phase else { return false };
        // A lane has it: what runs there has a deadline of its own.
        let Some(pinned) = &state.pinned else { return true };
        let idle = match pinned.turn {
            Some(_) if self.database.has_writes_waiting() => self.bounds.idle_contended,
            _ => self.bounds.idle,
        };
        let bound = if now.saturating_duration_since(self.begun) >= self.bounds.whole {
            "hrana.transaction_ms"
        } else if now.saturating_duration_since(state.idle_since) < idle {
            return true;
        } else if idle == self.bounds.idle {
            "hrana.transaction_idle_ms"
        } else {
            "hrana.transaction_idle_contended_ms"
        };
        drop(state);
        self.end(Phase::Ended(
            Error::new(Code::StatementTimeout, "the transaction was rolled back: it took too long, or nothing was sent to it")
                .hint(format!("Nothing of it remains. The bound is {bound}.")),
        ));
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction's session on its way to a lane and back, also where the lane refuses it.
struct Taken {
    shared: Arc<Shared>,
    pinned: Option<Pinned>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            self.shared.put_back(pinned);
        }
    }
}

impl Taken {
    fn run<T>(mut self, until: Instant, gone: Gone, f: impl FnOnce(&mut Interaction<'_>) -> T, answer: oneshot::Sender<Result<T>>) {
        let Some(mut pinned) = self.pinned.take() else { return };
        let database = self.shared.database.clone();
        let mut interaction = Interaction { database: &database, begin: self.shared.begin, pinned: &mut pinned, until, gone: gone.clone() };
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&mut interaction)));
        let lost = ran.is_err() || gone.load(Relaxed);
        let outcome = ran.map_err(|_| Error::internal("a statement of a transaction panicked", &"it was rolled back"));
        if !lost && !pinned.session.conn.is_autocommit() {
            // First: the client's next request may come as soon as it is answered.
            self.shared.put_back(pinned);
            let _ = answer.send(outcome);
            return;
        }
        writer::roll_back(&pinned.session);
        self.shared.end(Phase::Over);
        drop(pinned.turn.take());
        let _ = answer.send(outcome);
    }
}

/// The transactions of an open file, to find them when they must end.
#[derive(Default)]
pub struct Transactions(Mutex<Vec<Weak<Shared>>>);

impl Transactions {
    fn enter(&self, shared: &Arc<Shared>, most: usize) -> Result<()> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| one.upgrade().is_some_and(|one| matches!(one.state().phase, Phase::Open)));
        if open.len() >= most {
            return Err(Error::new(Code::TooManyRequests, "too many transactions of this tenant are open")
                .hint("The bound is hrana.transactions_per_tenant.")
                .retry_after(Duration::from_secs(1)));
        }
        open.push(Arc::downgrade(shared));
        Ok(())
    }

    /// Ends all; what runs in them goes on to its end.
    pub fn end(&self, why: Stop) {
        self.each(|shared| shared.end(Phase::Ended(ended(why))));
    }

    /// Ends all, and stops what runs in them.
    pub fn stop(&self, why: Stop) {
        self.each(|shared| {
            shared.end(Phase::Ended(ended(why)));
            if let Some(watch) = shared.watch.get() {
                watch.stop(why);
            }
        });
    }

    fn each(&self, f: impl Fn(&Shared)) {
        // Not under the lock: ending one may drop the last of its handles.
        let open = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        open.iter().filter_map(Weak::upgrade).for_each(|shared| f(&shared));
    }
}

fn ended(why: Stop) -> Error {
    match why {
        Stop::HeldBack => {
            Error::new(Code::Overloaded, "the transaction was rolled back: its snapshot kept the write-ahead log from being cut")
                .hint("Shorter transactions are not. The bound is sqlite.wal_max_bytes.")
        }
        _ => Error::new(Code::TenantUnavailable, "the transaction was rolled back: the database is being closed"),
    }
    .retry_after(Duration::from_secs(1))
}

/// A stream sends one request after the other; this one came while another was not answered.
fn in_use() -> Error {
    Error::conflict("the transaction is in use by another request")
}

#[cfg(test)]
mod tests;

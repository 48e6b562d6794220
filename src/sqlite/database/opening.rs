//! Opening a file: once however many ask, within the budget of descriptors, brought up to date before anybody
//! uses it. What cannot be opened is remembered as such for a moment, so that a broken file costs little.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::checkpoint::{self, LogLength};
use super::super::descriptors::{Descriptors, FILE_DESCRIPTORS};
use super::super::draft::Allowance;
use super::super::executor::overloaded;
use super::super::fault;
use super::super::interactive::Transactions;
use super::super::migrate::{self, Course};
use super::super::pool::Readers;
use super::super::session::{Session, Settings};
use super::super::versions::Versions;
use super::super::watch::Watch;
use super::super::writer::Apart;
use super::super::written::{Told, Written};
use super::{Database, Options, RETRY};
use crate::error::{Code, Error, Result};

/// How long opening a file waits for descriptors.
const ROOM_WAIT: Duration = Duration::from_secs(3);

/// An open file: its writer and its readers.
pub struct Open {
    pub(in crate::sqlite) writer: Mutex<Session>,
    /// How many wait for it who do not give up.
    pub(super) wanted: AtomicU32,
    pub(super) writer_watch: Arc<Watch>,
    pub(in crate::sqlite) readers: Readers,
    pub(in crate::sqlite) log: LogLength,
    pub(in crate::sqlite) transactions: Transactions,
    pub(in crate::sqlite) apart: Apart,
    pub(in crate::sqlite) versions: Versions,
    pub(in crate::sqlite) answers: Arc<Allowance>,
    told: Arc<OnceLock<Told>>,
    /// Milliseconds since `opened`, of the last commit.
    wrote_ms: AtomicU64,
    opened: Instant,
}

impl Open {
    /// The writer, once nobody else has it. A lock that is let go is anybody's, and whoever sleeps before it comes late: so
    /// brief reads are told that somebody waits.
    pub(super) fn wait_for_writer(&self) -> MutexGuard<'_, Session> {
        match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.wanted.fetch_add(1, Relaxed);
                let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
                self.wanted.fetch_sub(1, Relaxed);
                writer
            }
        }
    }

    pub(in crate::sqlite) fn wrote(&self) {
        self.wrote_ms.store(self.opened.elapsed().as_millis() as u64, Relaxed);
    }

    /// Tells who is to be told of commits.
    pub(in crate::sqlite) fn tell(&self, written: &Written) {
        if let Some(told) = self.told.get().filter(|_| !written.is_empty())
            && catch_unwind(AssertUnwindSafe(|| told(written))).is_err()
        {
            tracing::error!("who was told of a commit panicked");
        }
    }

    pub(super) fn quiet_for(&self) -> Duration {
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.wrote_ms.load(Relaxed)))
    }
}

impl Database {
    /// The open file; opens it if it is not.
    pub(in crate::sqlite) async fn opened(self: &Arc<Self>) -> Result<Arc<Open>> {
        if let Some(open) = self.current() {
            return Ok(open);
        }
        let _one = self.opening.lock().await;
        if let Some(open) = self.current() {
            return Ok(open);
        }
        if let Some((at, error)) = &*self.failed.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < RETRY
        {
            return Err(error.clone());
        }
        let mut outcome = self.open_on_lane().await;
        if outcome.is_err() && self.is_spoiled() {
            outcome = self.open_on_lane().await;
        }
        let failure = outcome.as_ref().err().filter(|error| error.code() == Code::TenantUnavailable && !self.is_being_left());
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failure.map(|error| (Instant::now(), error.clone()));
        outcome
    }

    async fn open_on_lane(self: &Arc<Self>) -> Result<Arc<Open>> {
        let pass = self.hold()?;
        let room = self.room().await?;
        let (answer, answered) = oneshot::channel();
        let database = self.clone();
        let open = move || {
            let _pass = pass;
            let _ = answer.send(database.open_here(room));
        };
        self.engine.writes().submit(self.writing_party(), Box::new(open))?;
        answered.await.unwrap_or_else(|_| Err(Error::internal("opening a file ended early", &"it panicked")))
    }

    /// The file's descriptors from the budget; waits a little for others to close.
    async fn room(&self) -> Result<Descriptors> {
        let taken =
            tokio::time::timeout(ROOM_WAIT, self.engine.descriptors(self.options.party).room(FILE_DESCRIPTORS, &self.options.held)).await;
        taken.map_err(|_| overloaded("sqlite.descriptors"))
    }

    /// How the file's connections are set up.
    pub(in crate::sqlite) fn settings(&self) -> Settings {
        let Options { level, max_bytes, sandboxed, create, .. } = self.options;
        Settings { level, sandboxed, max_bytes, create, writer: true, shrinks: false }
    }

    fn open_here(&self, room: Descriptors) -> Result<Arc<Open>> {
        // Who asked for an opening that still runs may be gone, and with him his place in `opening`.
        let _one = self.opening_here.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = self.current() {
            return Ok(open);
        }
        self.is_left()?;
        let fresh = self.make_room_for_a_new_one()?;
        self.open_file(room, fresh).map_err(|error| self.as_unopened(error)).inspect_err(|error| self.spoil(error))
    }

    /// A file has one writer alive, and is not removed under anybody. Errors: `tenant_unavailable` while somebody is in it.
    pub(super) fn is_left(&self) -> Result<()> {
        match self.last.lock().unwrap_or_else(PoisonError::into_inner).strong_count() {
            0 => Ok(()),
            _ => Err(Error::new(Code::TenantUnavailable, "this database is being opened again").retry_after(RETRY)),
        }
    }

    /// Opens what is there; with `fresh`, makes it.
    fn open_file(&self, room: Descriptors, fresh: bool) -> Result<Arc<Open>> {
        let create = self.options.create || fresh;
        let found = std::fs::symlink_metadata(&self.path);
        let shrinks = self.replaceable && found.is_err();
        match found {
            Ok(found) if !found.is_file() => return Err(fault::unavailable(&self.path, &"it is not a regular file")),
            // SQLite would make a new database of it.
            Ok(found) if !create && found.len() == 0 => return Err(fault::unavailable(&self.path, &"it is empty")),
            Err(error) if !create || error.kind() != std::io::ErrorKind::NotFound => {
                return Err(fault::unavailable(&self.path, &error));
            }
            _ => {}
        }
        let settings = Settings { create, shrinks, ..self.settings() };
        let describe = |error: rusqlite::Error| fault::opening(&self.path, error);
        let session =
            Session::open(&self.engine, &self.path, settings, Some(room)).map_err(|error| fault::connecting(&self.path, error))?;
        let Options { migrations, keep_before, .. } = &self.options;
        let brought = migrate::bring(&session.conn, &migrations.now(), Course::Up, keep_before.as_deref(), &migrate::unwatched);
        let moved = brought.map_err(|error| match error {
            migrate::Failure::Sqlite(error) => describe(error),
            migrate::Failure::Refused(error) => {
                tracing::error!(path = %self.path.display(), %error, "a database is refused");
                fault::withheld(error)
            }
        })?;
        if self.replaceable && !shrinks && !moved.moves.is_empty() && !session.gives_pages_back().map_err(describe)? {
            return Err(self.outdated());
        }
        let any_left = self.left.get().is_some_and(|question| session.conn.query_row(question, [], |_| Ok(())).is_ok());
        // After a failed flush the kernel may take pages for written that are not. What the log holds goes into the
        // database, and is flushed there, before anything is appended behind it.
        if self.suspect.load(Relaxed) && !checkpoint::settle(&session) {
            return Err(fault::unavailable(&self.path, &"the log of a failed commit cannot be settled"));
        }
        self.suspect.store(false, Relaxed);
        let open = Arc::new(Open {
            log: LogLength::of(&session),
            transactions: Transactions::default(),
            apart: Apart::default(),
            versions: Versions::load(&session).map_err(describe)?,
            answers: self.options.answers.clone(),
            told: self.told.clone(),
            writer_watch: session.watch.clone(),
            writer: Mutex::new(session),
            wanted: AtomicU32::new(0),
            readers: Readers::new(&self.engine, &self.path, settings),
            wrote_ms: AtomicU64::new(0),
            opened: Instant::now(),
        });
        // What a late user says of the file that was here before does not count any more.
        self.spoiled.store(false, Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&open);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(open.clone());
        if settings.sandboxed && (any_left || !moved.moves.is_empty()) {
            open.tell(&Written::everything());
        }
        self.engine.counters().opens.fetch_add(1, Relaxed);
        Ok(open)
    }
}

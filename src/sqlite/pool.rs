//! The readers of one file: an r2d2 pool of sessions that cannot write. Connections are opened when first
//! wanted, by one scheduler thread for all pools, and closed when idle. A session that comes back unclean is
//! closed instead of kept.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use r2d2_sqlite::SqliteConnectionManager;

use super::database::Options;
use super::descriptors::{Descriptors, READER_DESCRIPTORS};
use super::engine::Engine;
use super::executor::Party;
use super::fault;
use super::session::{Session, Settings};
use super::watch::{Stop, Watch};
use crate::error::{Error, Result};

/// How long a lane waits for a reader. Lanes run no more jobs of a party than a file has readers, so they only
/// ever wait for one to be opened.
const CHECKOUT: Duration = Duration::from_secs(5);

/// How often it looks whether the file can be opened at all: r2d2 goes on trying and does not say.
const LOOK: Duration = Duration::from_millis(20);

pub struct Readers {
    engine: Arc<Engine>,
    pool: r2d2::Pool<Manager>,
    open: Arc<Mutex<Vec<Weak<Watch>>>>,
    prepaid: Arc<Mutex<Option<Descriptors>>>,
    broken: Arc<Mutex<Option<String>>>,
    path: PathBuf,
    held: Arc<AtomicU64>,
    party: Party,
}

pub type Checkout = r2d2::PooledConnection<Manager>;

/// Opens a pool's sessions. What r2d2_sqlite's manager would do with a path, done by [`Session::open`], which
/// every connection of the process passes; validity and rest are asked of r2d2_sqlite's as it is.
pub struct Manager {
    engine: Arc<Engine>,
    path: PathBuf,
    settings: Settings,
    plain: SqliteConnectionManager,
    open: Arc<Mutex<Vec<Weak<Watch>>>>,
    /// Taken from the budget for the first reader, which nobody could give back for who waits.
    prepaid: Arc<Mutex<Option<Descriptors>>>,
    /// Why the file itself could not be opened the last time. r2d2 goes on trying until it can.
    broken: Arc<Mutex<Option<String>>>,
    held: Arc<AtomicU64>,
    party: Party,
}

impl Readers {
    pub fn new(engine: &Arc<Engine>, path: &Path, settings: Settings, options: &Options) -> Readers {
        let (open, prepaid, broken) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<_>>::default(), Arc::<Mutex<_>>::default());
        let manager = Manager {
            engine: engine.clone(),
            path: path.to_owned(),
            settings: Settings { writer: false, create: false, ..settings },
            plain: SqliteConnectionManager::file(path),
            open: open.clone(),
            prepaid: prepaid.clone(),
            broken: broken.clone(),
            held: options.held.clone(),
            party: options.party,
        };
        let tuning = engine.tuning();
        let pool = r2d2::Pool::builder()
            .max_size(tuning.readers_per_file)
            .min_idle(Some(0))
            .test_on_check_out(false)
            // With one, r2d2 would leave a timer behind for each pool there ever was.
            .idle_timeout(None)
            .max_lifetime(None)
            .connection_timeout(CHECKOUT)
            .thread_pool(engine.scheduler())
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager);
        Readers {
            engine: engine.clone(),
            pool,
            open,
            prepaid,
            broken,
            path: path.to_owned(),
            held: options.held.clone(),
            party: options.party,
        }
    }

    /// A reader, opened if need be and waited for; `None` where there is none and no room for one.
    pub fn get(&self) -> Result<Option<Checkout>> {
        if let Some(idle) = self.pool.try_get() {
            return Ok(Some(idle));
        }
        if self.pool.state().connections == 0 {
            let Some(room) = self.engine.descriptors(self.party).take(READER_DESCRIPTORS, &self.held) else { return Ok(None) };
            *self.prepaid.lock().unwrap_or_else(PoisonError::into_inner) = Some(room);
        }
        self.engine.counters().waits.fetch_add(1, Relaxed);
        let until = Instant::now() + CHECKOUT;
        loop {
            match self.pool.get_timeout(LOOK) {
                Ok(reader) => return Ok(Some(reader)),
                Err(_) if let Some(cause) = &*self.broken() => return Err(fault::unavailable(&self.path, cause)),
                Err(error) if Instant::now() >= until => {
                    tracing::warn!(%error, "no reader could be opened");
                    return Err(Error::new(crate::error::Code::Overloaded, "no reader of this database could be opened")
                        .hint("The bound is sqlite.descriptors.")
                        .retry_after(Duration::from_secs(1)));
                }
                Err(_) => {}
            }
        }
    }

    fn broken(&self) -> MutexGuard<'_, Option<String>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader that is open and idle, if there is one.
    pub fn idle(&self) -> Option<Checkout> {
        self.pool.try_get()
    }

    /// Stops what runs on every reader.
    pub fn stop(&self, why: Stop) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|watch| {
            watch.upgrade().is_some_and(|watch| {
                watch.stop(why);
                true
            })
        });
    }

    /// (open, of these idle)
    pub fn state(&self) -> (u32, u32) {
        let state = self.pool.state();
        (state.connections, state.idle_connections)
    }
}

/// The budget is spent; the pool goes on with the readers it has.
fn spent() -> rusqlite::Error {
    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(busy, Some("all descriptors of sqlite.descriptors are in use".to_owned()))
}

impl r2d2::ManageConnection for Manager {
    type Connection = Session;
    type Error = rusqlite::Error;

    fn connect(&self) -> Result<Session, rusqlite::Error> {
        let prepaid = self.prepaid.lock().unwrap_or_else(PoisonError::into_inner).take();
        let descriptors = match prepaid {
            Some(descriptors) => descriptors,
            None => self.engine.descriptors(self.party).take(READER_DESCRIPTORS, &self.held).ok_or_else(spent)?,
        };
        let session = Session::open(&self.engine, &self.path, self.settings, descriptors);
        let broken = session
            .as_ref()
            .err()
            .filter(|error| fault::is_broken(error) && !fault::may_pass(error, &self.path))
            .map(rusqlite::Error::to_string);
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
        let session = session?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|watch| watch.strong_count() > 0);
        open.push(Arc::downgrade(&session.watch));
        Ok(session)
    }

    fn is_valid(&self, session: &mut Session) -> Result<(), rusqlite::Error> {
        self.plain.is_valid(&mut session.conn)
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        !session.is_clean() || self.plain.has_broken(&mut session.conn)
    }
}

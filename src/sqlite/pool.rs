//! The readers of one file: an r2d2 pool of sessions that cannot write. Connections are opened when first
//! wanted, by one scheduler thread for all pools, and closed when idle. A session that comes back unclean is
//! closed instead of kept.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use r2d2_sqlite::SqliteConnectionManager;

use super::engine::Engine;
use super::fault;
use super::session::{Session, Settings};
use super::watch::{Stop, Watch};
use crate::error::{Error, Result};

/// How long a lane waits for a reader. Lanes run no more jobs of a party than a file has readers, so they only
/// ever wait for one to be opened.
const CHECKOUT: Duration = Duration::from_secs(5);

/// When it looks for the first time whether the file can be opened at all, and how seldom at last: r2d2 goes on trying and
/// does not say. Each look has it try one more, up to the bound.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(320);

pub struct Readers {
    engine: Arc<Engine>,
    pool: r2d2::Pool<Manager>,
    open: Arc<Mutex<Vec<Weak<Watch>>>>,
    broken: Arc<Mutex<Option<String>>>,
    path: PathBuf,
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
    /// Why the file itself could not be opened the last time. r2d2 goes on trying until it can.
    broken: Arc<Mutex<Option<String>>>,
}

impl Readers {
    pub fn new(engine: &Arc<Engine>, path: &Path, settings: Settings) -> Readers {
        let (open, broken) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<_>>::default());
        let manager = Manager {
            engine: engine.clone(),
            path: path.to_owned(),
            settings: Settings { writer: false, create: false, ..settings },
            plain: SqliteConnectionManager::file(path),
            open: open.clone(),
            broken: broken.clone(),
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
        Readers { engine: engine.clone(), pool, open, broken, path: path.to_owned() }
    }

    /// A reader, opened if need be and waited for.
    pub fn get(&self) -> Result<Checkout> {
        if let Some(idle) = self.pool.try_get() {
            return Ok(idle);
        }
        self.engine.counters().waits.fetch_add(1, Relaxed);
        let (until, mut look) = (Instant::now() + CHECKOUT, LOOK);
        loop {
            match self.pool.get_timeout(look) {
                Ok(reader) => return Ok(reader),
                // One that is open comes back.
                Err(_) if self.pool.state().connections > 0 && Instant::now() < until => {}
                Err(_) if let Some(cause) = &*self.broken() => return Err(fault::unavailable(&self.path, cause)),
                Err(_) if Instant::now() < until => {}
                Err(error) => {
                    tracing::warn!(%error, "no reader could be opened");
                    return Err(Error::new(crate::error::Code::Overloaded, "no reader of this database could be opened")
                        .hint("All of its readers were busy. The bound is sqlite.readers_per_file.")
                        .retry_after(Duration::from_secs(1)));
                }
            }
            look = (look * 2).min(LOOK_MAX);
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

impl r2d2::ManageConnection for Manager {
    type Connection = Session;
    type Error = rusqlite::Error;

    fn connect(&self) -> Result<Session, rusqlite::Error> {
        let session = Session::open(&self.engine, &self.path, self.settings, None);
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

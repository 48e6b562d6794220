//! Checkpoints: the one place where a write-ahead log is copied back into its database. After a commit that
//! finds the log long; when the file has been quiet; when it is closed. A reader whose snapshot keeps a log from
//! being cut is left alone until the log reaches `sqlite.wal_max_bytes`, and is then stopped: a log is bounded.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi};

use super::database::Open;
use super::engine::Engine;
use super::session::Session;
use super::watch::Stop;

/// How long a long log's checkpoint waits for readers to finish, before and again after they are stopped.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long somebody may look at the state of a file that is being closed.
const LOOKING: Duration = Duration::from_secs(5);

/// Bytes of a log before its first frame, and of a frame before its page.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// Frames in the log, as SQLite tells after each commit.
pub type Frames = Arc<AtomicU32>;

/// Has SQLite keep `frames` up to date. The caller keeps `frames` alive as long as the connection.
pub fn count_frames(conn: &Connection, frames: &Frames) {
    unsafe extern "C" fn committed(frames: *mut c_void, _: *mut ffi::sqlite3, _: *const c_char, pages: c_int) -> c_int {
        // SAFETY: the pointer is to the `Frames` that the session holds beside the connection, and drops after it.
        unsafe { &*frames.cast::<AtomicU32>() }.store(pages as u32, Relaxed);
        ffi::SQLITE_OK
    }
    let counter = Arc::as_ptr(frames).cast_mut().cast();
    // SAFETY: the handle is the open connection's; the hook's argument outlives it (see above).
    unsafe { ffi::sqlite3_wal_hook(conn.handle(), Some(committed), counter) };
}

/// How long a file's log is.
pub struct LogLength {
    frames: Frames,
    page_bytes: u64,
    /// The length at which the next checkpoint is tried, in bytes; 0: at the usual one.
    next: AtomicU64,
    /// The next commit begins it anew, which flushes what the log begins with.
    begins_anew: AtomicBool,
}

impl LogLength {
    pub fn of(session: &Session) -> LogLength {
        LogLength {
            frames: session.frames.clone(),
            page_bytes: session.page_bytes,
            next: AtomicU64::new(0),
            begins_anew: AtomicBool::new(true),
        }
    }

    pub fn bytes(&self) -> u64 {
        match u64::from(self.frames.load(Relaxed)) {
            0 => 0,
            frames => LOG_HEADER + frames * (self.page_bytes + FRAME_HEADER),
        }
    }

    /// After a commit of another connection than the writer's.
    pub fn follow(&self, frames: &Frames) {
        self.frames.store(frames.load(Relaxed), Relaxed);
    }

    pub fn begins_anew(&self) -> bool {
        self.begins_anew.load(Relaxed)
    }

    /// After each commit.
    pub fn went_on(&self) {
        self.begins_anew.store(false, Relaxed);
    }

    fn is_copied(&self) {
        self.next.store(0, Relaxed);
        self.begins_anew.store(true, Relaxed);
    }

    fn cut(&self) {
        self.frames.store(0, Relaxed);
        self.is_copied();
    }
}

/// Whether [`after_commit`] has anything to do.
pub fn is_due(engine: &Engine, open: &Open) -> bool {
    open.log.bytes() >= open.log.next.load(Relaxed).max(engine.tuning().checkpoint_bytes)
}

/// After a commit: copies a long log back, so that the next commit begins it anew; past its bound, cuts it.
pub fn after_commit(engine: &Engine, open: &Open, session: &Session) {
    let (length, tuning) = (open.log.bytes(), engine.tuning());
    if !is_due(engine, open) {
        return;
    }
    let _flushing = engine.flushing();
    engine.counters().checkpoints.fetch_add(1, Relaxed);
    if run(session, "PASSIVE", Duration::ZERO) {
        // The next commit overwrites the log from the start.
        open.log.is_copied();
        return;
    }
    if length < tuning.wal_max_bytes {
        open.log.next.store(length + tuning.checkpoint_bytes, Relaxed);
        return;
    }
    if run(session, "TRUNCATE", PATIENCE) {
        return open.log.cut();
    }
    open.readers.stop(Stop::HeldBack);
    open.transactions.stop(Stop::HeldBack);
    engine.counters().held_back.fetch_add(1, Relaxed);
    if run(session, "TRUNCATE", PATIENCE) {
        open.log.cut();
    }
}

/// Cuts a quiet file's log to nothing, if no reader is in the way.
pub fn truncate(session: &Session, log: &LogLength) {
    if log.bytes() > 0 && run(session, "TRUNCATE", Duration::ZERO) {
        log.cut();
    }
}

/// Brings all of a log into its database, right after opening; whether that worked.
pub fn settle(session: &Session) -> bool {
    run(session, "TRUNCATE", PATIENCE)
}

/// What is left beside a file that was closed; the file itself holds everything in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It is one plain file.
    Nothing,
    /// An empty log and its index: for a file that is likely to be opened again soon. Making and removing those two
    /// is most of what opening and closing costs.
    EmptyLog,
}

/// The last checkpoint, and the end of the file's connections.
pub fn close(engine: &Engine, path: &Path, mut open: Arc<Open>, leave: Leave) {
    let began = Instant::now();
    // Nobody is inside; but somebody may be looking at its state this very moment.
    let Open { writer, readers, .. } = loop {
        match Arc::try_unwrap(open) {
            Ok(open) => break open,
            Err(_) if began.elapsed() > LOOKING => {
                tracing::error!(path = %path.display(), "a file was to be closed while in use; it closes when its last user is done");
                return;
            }
            Err(again) => open = again,
        }
        std::thread::yield_now();
    };
    drop(readers);
    let session = writer.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let settled = is_empty(path) || {
        let _flushing = engine.flushing();
        run(&session, "TRUNCATE", PATIENCE)
    };
    if settled && leave == Leave::Nothing {
        // With the log empty SQLite may remove it as it closes.
        let _ = session.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    }
    drop(session);
}

/// Whether there is nothing in the file's log, as is so where it was only read.
fn is_empty(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // A look at the name opens nothing: closing a descriptor of the file would drop SQLite's locks.
    std::fs::symlink_metadata(log).map_or_else(|error| error.kind() == std::io::ErrorKind::NotFound, |log| log.len() == 0)
}

/// Whether the whole log is in the database now.
fn run(session: &Session, mode: &str, patience: Duration) -> bool {
    let conn = &session.conn;
    let usual = conn.query_row("PRAGMA busy_timeout", [], |row| row.get::<_, i64>(0)).unwrap_or_default().unsigned_abs();
    let _ = conn.busy_timeout(patience);
    let outcome = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    let _ = conn.busy_timeout(Duration::from_millis(usual));
    match outcome {
        Ok((busy, log, copied)) => busy == 0 && log == copied,
        Err(error) => {
            tracing::warn!(%error, "a checkpoint failed; the log keeps what it holds");
            false
        }
    }
}

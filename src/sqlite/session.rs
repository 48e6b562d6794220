//! A [`Session`] is one open connection with what keeps it in bounds: SQLite's own limits, a [`Watch`] that can
//! stop it, and, where tenants' SQL runs, a [`Sandbox`]. Every connection of the process is made here, with the
//! same settings. A session that goes back to rest is clean: no transaction, nothing in its `temp` schema.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, OpenFlags, ffi};

use super::authorizer::Sandbox;
use super::checkpoint::{Frames, count_frames};
use super::descriptors::Descriptors;
use super::engine::Engine;
use super::functions;
use super::memory::Bounded;
use super::room::Gauge;
use super::watch::{Gone, Watch};
use super::written::{Judged, Written};
use crate::config::Level;

/// The largest string, blob or row, in bytes. One call to `hex(randomblob(n))` never reaches the progress
/// handler, so this is what stops it; it is also what one statement may hold at least once in memory.
pub const LENGTH_MAX: i32 = 16 << 20;

/// The longest SQL text, in bytes: an import script fits, as far as `http.max_body_bytes` lets it.
const SQL_MAX: i32 = 4 << 20;

/// The longest pattern of a LIKE or GLOB, in bytes. SQLite compares it at every place of the text, within one step of
/// its virtual machine, so this and [`LENGTH_MAX`] bound how long a statement can go on past its time: some two seconds.
const PATTERN_MAX: i32 = 128;

/// Has an empty file made so that it can give back pages.
pub const SHRINKS: &str = "PRAGMA auto_vacuum=INCREMENTAL";

pub struct Session {
    pub(super) conn: Connection,
    pub(super) watch: Arc<Watch>,
    pub(super) sandbox: Option<Arc<Sandbox>>,
    /// What each cached statement does, by its text; forgotten together when it grows past twice the statement cache.
    known: RefCell<HashMap<Box<str>, Known>>,
    /// What the transaction wrote so far.
    written: RefCell<Written>,
    /// Tables and the like under our names, from before the first statement that may change that.
    ours: Cell<Option<i64>>,
    /// A statement that may write was run since this was last set back.
    pub(super) touched: Cell<bool>,
    statements: usize,
    busy_timeout: Duration,
    /// Each commit does.
    pub(super) flushes: bool,
    pub(super) gauge: Gauge,
    pub(super) page_bytes: u64,
    /// The most pages the file may have; of the writer.
    pub(super) max_pages: u64,
    /// Frames in the log; SQLite's hook points at it, so it is dropped after `conn`.
    pub(super) frames: Frames,
    /// The file's, held by its writer.
    _descriptors: Option<Descriptors>,
}

/// A cached statement. What it does is added to where a step compiles it anew.
struct Known {
    /// The sandbox has judged it as a tenant's.
    confined: bool,
    judged: Arc<Mutex<Judged>>,
}

/// How a connection is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub level: Level,
    pub sandboxed: bool,
    /// 0: no bound.
    pub max_bytes: u64,
    pub create: bool,
    pub writer: bool,
    /// Of a file that is made by this: it gives pages back ([`super::room::give_back`]).
    pub shrinks: bool,
}

impl Session {
    pub fn open(engine: &Engine, path: &Path, settings: Settings, descriptors: Option<Descriptors>) -> rusqlite::Result<Session> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        flags |= OpenFlags::SQLITE_OPEN_EXRESCODE;
        if settings.create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let conn = Connection::open_with_flags(path, flags)?;
        let tuning = engine.tuning();
        confine(&conn)?;
        conn.busy_timeout(Duration::from_millis(tuning.busy_timeout_ms))?;
        // A PRAGMA is compiled each time, so there is none for what has a call or is so by itself. `execute_batch` because
        // assigning some of these returns a row and some none.
        let synchronous = match settings.level {
            Level::Full => "",
            Level::Normal => "PRAGMA synchronous=NORMAL;",
            Level::Off => "PRAGMA synchronous=OFF;",
        };
        conn.execute_batch(&format!(
            "{synchronous} PRAGMA temp_store=MEMORY; PRAGMA cache_size=-{}; PRAGMA cell_size_check=ON;",
            tuning.cache_kib
        ))?;
        let (mut page_bytes, mut max_pages) = (0, 0);
        if settings.writer {
            if settings.shrinks {
                conn.execute_batch(SHRINKS)?;
            }
            conn.execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA journal_size_limit={};", tuning.checkpoint_bytes))?;
            // SQLite quietly opens for reading what it could not open for writing, or says so only in its header.
            if conn.is_readonly(rusqlite::MAIN_DB)? {
                let why = "it cannot be opened for writing".to_owned();
                return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(why)));
            }
            let number = |pragma: &str| conn.query_row(pragma, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
            page_bytes = number("PRAGMA page_size")?;
            max_pages = match settings.max_bytes {
                0 => number("PRAGMA max_page_count")?,
                bytes => number(&format!("PRAGMA max_page_count={}", (bytes / page_bytes).max(1)))?,
            };
        } else {
            conn.execute_batch("PRAGMA query_only=ON")?;
        }
        conn.set_prepared_statement_cache_capacity(tuning.statement_cache);
        let frames = Frames::default();
        if settings.writer {
            count_frames(&conn, &frames);
        }
        small_lookaside(&conn);
        // One after the other, so that they are near each other: each request looks at both.
        let watch = Watch::install(&conn)?;
        let sandbox = settings.sandboxed.then(|| Sandbox::install(&conn)).transpose()?;
        if settings.sandboxed {
            functions::install(&conn)?;
        } else {
            // The plans of our own statements hang on no parameter. Without this, SQLite compiles one anew each time
            // a parameter that was compared with a partial index changes.
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        }
        let resting = Session::resting(conn, watch, sandbox);
        Ok(Session {
            statements: tuning.statement_cache,
            busy_timeout: Duration::from_millis(tuning.busy_timeout_ms),
            flushes: settings.level == Level::Full,
            page_bytes,
            max_pages,
            frames,
            _descriptors: descriptors,
            ..resting
        })
    }

    /// One in memory, for tenants' SQL that is compiled and nobody's data.
    pub fn in_memory(conn: Connection) -> rusqlite::Result<Session> {
        confine(&conn)?;
        functions::install(&conn)?;
        let (watch, sandbox) = (Watch::install(&conn)?, Sandbox::install(&conn)?);
        Ok(Session::resting(conn, watch, Some(sandbox)))
    }

    fn resting(conn: Connection, watch: Arc<Watch>, sandbox: Option<Arc<Sandbox>>) -> Session {
        Session {
            conn,
            watch,
            sandbox,
            known: RefCell::default(),
            written: RefCell::default(),
            ours: Cell::new(None),
            touched: Cell::new(false),
            statements: 0,
            gauge: Gauge::default(),
            busy_timeout: Duration::ZERO,
            flushes: false,
            page_bytes: 0,
            max_pages: 0,
            frames: Frames::default(),
            _descriptors: None,
        }
    }

    /// Whether the file was made so that it can ([`SHRINKS`]).
    pub(super) fn gives_pages_back(&self) -> rusqlite::Result<bool> {
        self.conn.query_row("PRAGMA auto_vacuum", [], |row| Ok(row.get::<_, i64>(0)? != 0))
    }

    /// Runs `f` with the connection watched, and its memory bounded.
    pub(super) fn watched<T>(&self, engine: &Engine, time: Duration, gone: Gone, f: impl FnOnce() -> T) -> T {
        let _armed = self.watch.arm(engine.watchdog(), time, gone);
        let _bounded = Bounded::to(engine.tuning().statement_memory_bytes);
        f()
    }

    /// Runs `f` where it must not take long: stopped after `time`, and values no larger than `length` bytes, since
    /// one call of a function on a large value never reaches the progress handler.
    pub(super) fn briefly<T>(&self, time: Duration, length: i32, f: impl FnOnce() -> T) -> rusqlite::Result<T> {
        self.conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, length)?;
        let outcome = {
            let _armed = self.watch.arm_brief(time);
            f()
        };
        self.conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, LENGTH_MAX)?;
        Ok(outcome)
    }

    /// Begins to write, unless somebody else does just now.
    pub(super) fn begin_at_once(&self) -> rusqlite::Result<()> {
        self.conn.busy_timeout(Duration::ZERO)?;
        let begun = self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]).map(drop));
        self.conn.busy_timeout(self.busy_timeout)?;
        begun
    }

    /// Runs a statement of our own, from the cache.
    pub(super) fn own<T>(&self, sql: &str, run: impl FnOnce(&mut CachedStatement<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.gather();
        let mut statement = self.conn.prepare_cached(sql)?;
        if statement.readonly() {
            return run(&mut statement);
        }
        self.touched.set(true);
        let outcome = run(&mut statement);
        if let Some(sandbox) = &self.sandbox {
            match (self.known(sql, false), sandbox.compiled()) {
                (Some(known), compiled) => self.wrote(&known, compiled),
                (None, Some(compiled)) => self.wrote(&self.remember(sql, false, compiled), None),
                (None, None) => self.wrote_everything(),
            }
        }
        outcome
    }

    /// Takes note of what a statement that was run writes, and of what it was found to do when it was compiled anew.
    pub(super) fn wrote(&self, judged: &Mutex<Judged>, anew: Option<Judged>) {
        let mut judged = judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(anew) = anew {
            judged.add(anew);
        }
        self.written.borrow_mut().add(&judged.writes);
    }

    pub(super) fn wrote_everything(&self) {
        self.written.borrow_mut().add(&Written::everything());
    }

    /// Takes note of what was compiled, and run perhaps, by nobody who takes note himself. To be called before a statement
    /// is compiled, so that this is not taken for its doing.
    pub(super) fn gather(&self) {
        if let Some(compiled) = self.sandbox.as_ref().and_then(|sandbox| sandbox.compiled())
            && !self.conn.is_autocommit()
        {
            self.written.borrow_mut().add(&compiled.writes);
        }
    }

    /// What the transaction wrote; the next one begins with nothing.
    pub(super) fn take_written(&self) -> Written {
        self.gather();
        self.written.take()
    }

    /// As the transaction sees it; changes with each change of the schema.
    pub(super) fn schema_version(&self) -> rusqlite::Result<i64> {
        let version = self.conn.query_row("PRAGMA main.schema_version", [], |row| row.get(0));
        self.gather();
        version
    }

    /// Takes note of our names: to be called before a tenant's statement changes the schema.
    pub(super) fn note_our_names(&self) -> rusqlite::Result<()> {
        if self.ours.get().is_none() {
            self.ours.set(Some(self.our_names()?));
        }
        Ok(())
    }

    /// Whether they are as they were.
    pub(super) fn has_our_names(&self) -> rusqlite::Result<bool> {
        Ok(self.ours.get() == Some(self.our_names()?))
    }

    /// Tables, views and triggers under our names.
    fn our_names(&self) -> rusqlite::Result<i64> {
        let ours = "SELECT count(*) FROM main.sqlite_schema WHERE type <> 'index' AND substr(lower(name), 1, 10) = '_tenantry_'";
        self.conn.query_row(ours, [], |row| row.get(0))
    }

    /// What is known of a cached statement; where `confined`, only if it was judged as a tenant's.
    pub(super) fn known(&self, sql: &str, confined: bool) -> Option<Arc<Mutex<Judged>>> {
        let known = self.known.borrow();
        known.get(sql).filter(|known| known.confined || !confined).map(|known| known.judged.clone())
    }

    /// Remembers what a cached statement does.
    pub(super) fn remember(&self, sql: &str, confined: bool, judged: Judged) -> Arc<Mutex<Judged>> {
        let mut known = self.known.borrow_mut();
        if known.len() >= self.statements * 2 {
            known.clear();
        }
        let judged = Arc::new(Mutex::new(judged));
        known.insert(sql.into(), Known { confined, judged: judged.clone() });
        judged
    }

    /// Drops what a tenant's SQL left in the `temp` schema; in its transaction, so it goes with a rollback.
    pub(super) fn drop_temp(&self) -> rusqlite::Result<()> {
        if !self.sandbox.as_ref().is_some_and(|sandbox| sandbox.took_temp()) {
            return Ok(());
        }
        self.touched.set(true);
        loop {
            let next = "SELECT format('DROP %s temp.\"%w\"', type, name) FROM temp.sqlite_schema WHERE type IN ('view','trigger','table') \
                        AND substr(lower(name), 1, 7) <> 'sqlite_' ORDER BY type = 'table' LIMIT 1";
            match self.conn.query_row(next, [], |row| row.get::<_, String>(0)) {
                Ok(drop) => self.conn.execute_batch(&drop)?,
                Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the transaction would fail to commit for a foreign key that is not satisfied yet.
    pub(super) fn has_unmet_foreign_keys(&self) -> bool {
        let (mut current, mut highest) = (0, 0);
        // SAFETY: the handle is the open connection's, and both pointers are to live integers.
        let code = unsafe { ffi::sqlite3_db_status(self.conn.handle(), ffi::SQLITE_DBSTATUS_DEFERRED_FKS, &mut current, &mut highest, 0) };
        code == ffi::SQLITE_OK && current != 0
    }

    /// Whether the session may rest in a pool.
    pub(super) fn is_clean(&self) -> bool {
        self.conn.is_autocommit() && !self.sandbox.as_ref().is_some_and(|sandbox| sandbox.took_temp())
    }
}

/// SQLite sets 48 KB aside for each connection's small allocations, which is half of what an idle one takes.
fn small_lookaside(conn: &Connection) {
    const SLOT: std::ffi::c_int = 512;
    const SLOTS: std::ffi::c_int = 8;
    // SAFETY: the handle is the open connection's, with no statement yet; SQLite allocates the memory itself.
    // Refused, it keeps what it has.
    unsafe { ffi::sqlite3_db_config(conn.handle(), ffi::SQLITE_DBCONFIG_LOOKASIDE, std::ptr::null_mut::<std::ffi::c_void>(), SLOT, SLOTS) };
}

/// What no connection may do or be made to do, whoever's SQL it runs.
pub(super) fn confine(conn: &Connection) -> rusqlite::Result<()> {
    use DbConfig::*;
    for on in [SQLITE_DBCONFIG_DEFENSIVE, SQLITE_DBCONFIG_ENABLE_FKEY] {
        conn.set_db_config(on, true)?;
    }
    for off in [
        SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        SQLITE_DBCONFIG_WRITABLE_SCHEMA,
        SQLITE_DBCONFIG_DQS_DDL,
        SQLITE_DBCONFIG_DQS_DML,
        SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER,
    ] {
        conn.set_db_config(off, false)?;
    }
    // Every checkpoint passes one place, also the last one.
    conn.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    use Limit::*;
    for (limit, value) in [
        (SQLITE_LIMIT_LENGTH, LENGTH_MAX),
        (SQLITE_LIMIT_SQL_LENGTH, SQL_MAX),
        (SQLITE_LIMIT_COLUMN, 2_000),
        (SQLITE_LIMIT_EXPR_DEPTH, 500),
        (SQLITE_LIMIT_COMPOUND_SELECT, 500),
        (SQLITE_LIMIT_VDBE_OP, 5_000_000),
        (SQLITE_LIMIT_FUNCTION_ARG, 127),
        // VACUUM attaches a database of its own.
        (SQLITE_LIMIT_ATTACHED, 1),
        (SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_MAX),
        (SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
        (SQLITE_LIMIT_TRIGGER_DEPTH, 100),
        (SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        conn.set_limit(limit, value)?;
    }
    Ok(())
}

//! A [`Database`] is one SQLite file: one writer that commits in groups, a few readers, opened on first use.
//! Async code never holds a connection: a closure goes in, runs on a lane of the [`Engine`], and its value
//! comes out. A [`Reader`] cannot write; a [`WriteTx`] cannot commit: the writer does, for a whole group.

mod gate;
mod room;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use gate::{Gate, Pass};
pub use room::Room;

use crate::config::Level;
use crate::error::Result;

/// What one process's databases share: lanes, the readers' scheduler thread, budgets. One per process.
pub struct Engine {}

/// Who shares the lanes fairly: a tenant (its id as an integer), or 0 for the system databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    pub id: u128,
    /// Jobs of the party running at once.
    pub running_max: u32,
}

/// What one call may take. `time` counts from when the closure starts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub time: Duration,
}

impl Default for Limits {
    /// For our own statements: ten seconds.
    fn default() -> Self {
        Limits { time: Duration::from_secs(10) }
    }
}

/// How a file is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub level: Level,
    /// The most bytes the file may have; 0 for no bound (`max_page_count`).
    pub max_bytes: u64,
    pub party: Party,
    /// Brought up to date with these when the file is opened, in this order.
    pub migrations: Arc<[Migrations]>,
    /// Whether tenants' own SQL runs here, and so the authorizer watches.
    pub sandboxed: bool,
    /// Whether a missing file is made. A tenant's files are made by provisioning only.
    pub create: bool,
}

/// A named, ordered set of migrations.
#[derive(Clone, Debug)]
pub struct Migrations {
    pub set: &'static str,
    pub steps: Vec<Migration>,
}

#[derive(Clone, Debug)]
pub struct Migration {
    pub version: u32,
    pub name: String,
    pub up: String,
    pub down: Option<String>,
}

/// A handle on one SQLite file. Cheap until its first use, which opens the file on a lane, once.
pub struct Database {}

impl Database {
    /// No I/O. Jobs hold `gate` while they wait and run.
    pub fn new(_engine: &Arc<Engine>, _gate: &Arc<Gate>, _path: PathBuf, _options: Options) -> Arc<Database> {
        todo!()
    }

    /// Runs `f` on a reader, in one read transaction.
    pub async fn read<T, F>(self: &Arc<Self>, _limits: Limits, _f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        todo!()
    }

    /// Runs `f` on the writer, in a savepoint of a group's transaction, and returns after the commit. An `Err`
    /// rolls back what `f` did, alone. `f` may run more than once (when a neighbour in the group takes the
    /// transaction down), so it must have no effect beside the transaction.
    pub async fn write<T, F>(self: &Arc<Self>, _limits: Limits, _f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&WriteTx<'_>) -> Result<T> + Send + 'static,
    {
        todo!()
    }
}

/// A connection that can only read.
pub struct Reader<'a> {
    conn: &'a rusqlite::Connection,
}

impl Reader<'_> {
    /// The first row, if any. Statements are cached by their text.
    pub fn row<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        f: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let _ = (self.conn, sql, params, f);
        todo!()
    }

    /// Every row.
    pub fn rows<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        f: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let _ = (sql, params, f);
        todo!()
    }
}

/// The writer inside a transaction that somebody else commits. Reads too (derefs to [`Reader`]).
pub struct WriteTx<'a> {
    reader: Reader<'a>,
}

impl<'a> std::ops::Deref for WriteTx<'a> {
    type Target = Reader<'a>;
    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

impl WriteTx<'_> {
    /// Rows changed by this statement.
    pub fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
        let _ = (sql, params);
        todo!()
    }

    pub fn last_insert_rowid(&self) -> i64 {
        todo!()
    }
}

/// SQLite's errors as what a caller is told: constraint → `constraint_violation`, full → `quota_exceeded`,
/// interrupted → `statement_timeout`, corrupt → `tenant_unavailable`, else `sql_error`.
impl From<rusqlite::Error> for crate::error::Error {
    fn from(_: rusqlite::Error) -> Self {
        todo!()
    }
}

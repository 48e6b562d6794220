//! A [`Workpiece`] is a file opened to be migrated, examined or copied, beside the requests that use it or while
//! nobody does, on a lane and closed again by the one who opened it. What it runs has a time, and is stopped then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;

use super::copy;
use super::descriptors::FILE_DESCRIPTORS;
use super::engine::Engine;
use super::executor::{Party, overloaded};
use super::migrate::{self, Course, Examined, Failure, Migrations, Moved};
use super::session::{Session, Settings};
use super::shape::Shape;
use super::watch::Gone;
use super::{checkpoint, fault};
use crate::config::Level;
use crate::error::{Code, Error, Result};

/// Whether others have the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody has: it can be changed.
    Alone,
    /// Somebody may have: it is only read.
    Beside,
}

pub struct Workpiece {
    engine: Arc<Engine>,
    session: Session,
    access: Access,
    path: PathBuf,
    until: Instant,
}

impl Workpiece {
    /// Opens an existing file, for `time` from now on. `sandboxed` says whether tenants' own SQL runs there. Blocking,
    /// as everything here.
    pub fn open(engine: &Arc<Engine>, path: &Path, access: Access, sandboxed: bool, time: Duration) -> Result<Workpiece> {
        // The system's budget: how many there are at once is bounded by who opens them.
        let descriptors =
            engine.descriptors(Party::SYSTEM).take(FILE_DESCRIPTORS, &Arc::default()).ok_or_else(|| overloaded("sqlite.descriptors"))?;
        let settings =
            Settings { level: Level::Full, sandboxed, max_bytes: 0, create: false, writer: access == Access::Alone, shrinks: false };
        let session = Session::open(engine, path, settings, Some(descriptors)).map_err(|error| described(path, error))?;
        Ok(Workpiece { engine: engine.clone(), session, access, path: path.to_owned(), until: Instant::now() + time })
    }

    /// Brings the file where `course` says; before something in it is destroyed, it is kept as it is at `keep`.
    pub fn bring(&self, sets: &[Arc<Migrations>], course: Course, keep: Option<&Path>) -> Result<Moved> {
        let left = self.until.saturating_duration_since(Instant::now());
        let watched = |run: &mut dyn FnMut() -> rusqlite::Result<()>| self.session.watched(&self.engine, left, Gone::default(), run);
        migrate::bring(&self.session.conn, sets, course, keep, &watched).map_err(|failure| match failure {
            Failure::Sqlite(error) => described(&self.path, error),
            Failure::Refused(error) if self.session.watch.stopped().is_some() => {
                Error::new(Code::StatementTimeout, format!("{}: it was stopped after its time", error.message()))
                    .hint("Nothing of it was applied. The bound is the run's tenant_timeout_s.")
            }
            Failure::Refused(error) => error,
        })
    }

    pub fn examine(&self, sets: &[Arc<Migrations>]) -> Result<Examined> {
        migrate::examine(&self.session.conn, sets).map_err(|error| described(&self.path, error))
    }

    pub fn shape(&self) -> Result<Shape> {
        Shape::of(&self.session.conn).map_err(|error| described(&self.path, error))
    }

    /// A copy of the newest commit at `to`.
    pub fn copy_to(&self, to: &Path) -> Result<()> {
        copy::copy(&self.session.conn, to)
    }

    /// Puts what the file at `from` holds in the place of this one's content, in one commit.
    pub fn restore_from(&mut self, from: &Path) -> Result<()> {
        copy::restore(from, &mut self.session.conn)
    }

    /// From here on the file is not brought past these versions when it is opened.
    pub fn hold(&self, at: &[super::Applied]) -> Result<()> {
        let hold = || at.iter().try_for_each(|one| migrate::hold(&self.session.conn, &one.set, one.version));
        hold().map_err(|error| described(&self.path, error))
    }
}

impl Drop for Workpiece {
    fn drop(&mut self) {
        // With the log copied back and empty, SQLite may remove it as it closes: what is left is one plain file.
        if self.access == Access::Alone && checkpoint::settle(&self.session) {
            let _ = self.session.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
    }
}

/// What operators are told; the caller is one.
fn described(path: &Path, error: rusqlite::Error) -> Error {
    match fault::is_broken(&error) {
        true => fault::unavailable(path, &error).for_operators(),
        false => error.into(),
    }
}

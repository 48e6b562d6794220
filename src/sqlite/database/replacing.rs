//! Replacing: a file of which everything can be made again is in nobody's way. One that has gone, that cannot be opened, or
//! that a statement finds damaged is removed, and made anew by whoever comes next.
//!
//! A file is removed only while this process does not have it open, and never without its log, which SQLite would take
//! for the new one's.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use rusqlite::ffi;

use super::super::copy::remove_copy;
use super::super::engine::Engine;
use super::super::fault;
use super::super::gate::Gate;
use super::{Database, Options};
use crate::error::{Code, Error, Result};

impl Database {
    /// A handle on a file that is replaced when it cannot be served.
    pub fn replaceable(engine: &Arc<Engine>, gate: &Arc<Gate>, path: PathBuf, options: Options) -> Arc<Database> {
        Arc::new(Database { replaceable: true, ..Database::closed(engine, gate, path, options) })
    }

    /// Has a replaceable file made anew where `error` says that it cannot be served as it is.
    pub(super) fn spoil(&self, error: &Error) {
        if self.replaceable && (error.is_withheld() || error.code() == Code::TenantUnavailable && self.is_gone()) {
            self.spoiled.store(true, Relaxed);
            if let Some(open) = self.current() {
                self.fail(&open);
            }
        }
    }

    /// Only our own statements run in a replaceable file: where one does not compile, the file is not what it should be.
    pub(super) fn as_damage(&self, error: Error) -> Error {
        let is_foreign = || error.detail_of("sqlite_code").is_some_and(|code| *code == ffi::SQLITE_ERROR);
        if self.replaceable && is_foreign() { fault::unavailable(&self.path, &error) } else { error }
    }

    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled.load(Relaxed)
    }

    /// What a late user says of the file that was here before does not count any more.
    pub(super) fn trusted_again(&self) {
        self.spoiled.store(false, Relaxed);
    }

    /// Whether it is still open for somebody who uses it, although it failed.
    pub(super) fn is_being_left(&self) -> bool {
        self.replaceable && self.last.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
    }

    /// Removes a spoiled file, which nobody has open; whether a new one is to be made.
    pub(super) fn make_room_for_a_new_one(&self) -> Result<bool> {
        if !self.spoiled.swap(false, Relaxed) {
            return Ok(false);
        }
        let is_folder = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir());
        let removed = if is_folder { std::fs::remove_dir(&self.path) } else { Ok(()) };
        removed.and_then(|()| remove_copy(&self.path)).map_err(|error| fault::unavailable(&self.path, &error))?;
        tracing::error!(path = %self.path.display(), "a file that could not be served is made anew; what it held will be made again");
        self.engine.counters().replaced.fetch_add(1, Relaxed);
        self.damaged.store(false, Relaxed);
        self.suspect.store(false, Relaxed);
        Ok(true)
    }

    fn is_gone(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

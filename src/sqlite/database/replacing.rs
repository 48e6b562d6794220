//! Replacing: a file of which everything can be made again is in nobody's way. One that has gone, that cannot be opened, that
//! a statement finds damaged, or that could not take a write (a full disk, one that fails) is removed, and made anew by whoever
//! comes next. So is one from an earlier version that cannot give pages back. A server that has no descriptor left says nothing of
//! the file.
//!
//! A file is removed only while this process does not have it open, and never without its log, which SQLite would take
//! for the new one's.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::super::copy::remove_copy;
use super::super::engine::Engine;
use super::super::fault;
use super::super::gate::Gate;
use super::closing::failed;
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

    /// What a replaceable file fails with is taken for its damage. Only our own statements run in it: where one does not
    /// compile, it is not what it should be. A disk that is full may have room for a new one, and a new one has no
    /// undecided commits.
    pub(super) fn as_damage(&self, error: Error) -> Error {
        let spoils = self.replaceable && !error.is_withheld() && fault::is_of_the_file(&error);
        if spoils { fault::unavailable(&self.path, &error) } else { error }
    }

    /// The same of opening it: a file without entries fits every plan, so what has no room there has none on the disk.
    pub(super) fn as_unopened(&self, error: Error) -> Error {
        let is_full = self.replaceable && error.code() == Code::QuotaExceeded;
        if is_full { fault::unavailable(&self.path, &error) } else { self.as_damage(error) }
    }

    /// Gives up what a replaceable file holds that could not be opened again after it failed: nobody reads it any more, also
    /// after a restart. One that is open again is a new one already. Errors: `tenant_unavailable` while somebody is still
    /// in it, and when it cannot be removed.
    pub async fn give_up(self: &Arc<Self>) -> Result<()> {
        let _one = self.opening.lock().await;
        let pass = self.hold()?;
        let (answer, answered) = oneshot::channel();
        let database = self.clone();
        let give_up = move || {
            let _pass = pass;
            let _ = answer.send(database.give_up_here());
        };
        self.engine.writes().submit(self.writing_party(), Box::new(give_up))?;
        answered.await.unwrap_or_else(|_| Err(Error::internal("giving up a file ended early", &"it panicked")))
    }

    fn give_up_here(&self) -> Result<()> {
        let _one = self.opening_here.lock().unwrap_or_else(PoisonError::into_inner);
        if self.current().is_some() {
            return Ok(());
        }
        self.is_left()?;
        self.remove()?;
        self.spoiled.store(true, Relaxed);
        Ok(())
    }

    /// Has a file that was made before such files could give pages back made anew: that costs what it holds, and making it over
    /// would cost whoever waits for it the time.
    pub(super) fn outdated(&self) -> Error {
        tracing::info!(path = %self.path.display(), "a file from an earlier version cannot give pages back");
        self.spoiled.store(true, Relaxed);
        failed()
    }

    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled.load(Relaxed)
    }

    /// Whether it is still open for somebody who uses it, although it failed.
    pub(super) fn is_being_left(&self) -> bool {
        self.replaceable && self.last.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
    }

    /// Removes a spoiled file, which nobody has open; whether a new one is to be made.
    pub(super) fn make_room_for_a_new_one(&self) -> Result<bool> {
        if !self.is_spoiled() {
            return Ok(false);
        }
        self.remove()?;
        self.spoiled.store(false, Relaxed);
        tracing::warn!(path = %self.path.display(), "a file is made anew; what it held will be made again");
        self.engine.counters().replaced.fetch_add(1, Relaxed);
        self.damaged.store(false, Relaxed);
        self.suspect.store(false, Relaxed);
        Ok(true)
    }

    fn remove(&self) -> Result<()> {
        let is_folder = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir());
        let removed = if is_folder { std::fs::remove_dir(&self.path) } else { Ok(()) };
        removed.and_then(|()| remove_copy(&self.path)).map_err(|error| fault::unavailable(&self.path, &error))
    }

    fn is_gone(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

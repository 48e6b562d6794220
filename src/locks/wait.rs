//! Waiting for a lock. [`WaitingForLocks`] knows who waits for which lock of which file; a [`Bell`] tells the one who has
//! waited longest that a lock was released, after the commit. A lock whose time passes rings nothing: who waits knows the
//! instant. Nothing is remembered here while nobody waits, and who is woken looks into the file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::LockName;
use crate::clock::{Millis, now_ms};
use crate::error::{Code, Error, Result};
use crate::sqlite::Database;

/// Requests of one tenant that wait for locks at the same time.
pub const WAITING_MAX: usize = 1_000;

#[derive(Default)]
pub struct WaitingForLocks {
    files: Mutex<HashMap<PathBuf, File>>,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct File {
    waiting: usize,
    lines: HashMap<LockName, Line>,
}

/// Those who wait for one lock. What is rung while nobody listens is kept for the next who does.
#[derive(Default)]
struct Line {
    waiting: usize,
    released: Arc<Notify>,
}

/// One request that waits; dropping it ends the wait.
pub struct Waiting {
    all: Arc<WaitingForLocks>,
    path: PathBuf,
    name: LockName,
    released: Arc<Notify>,
}

impl WaitingForLocks {
    /// Begins to wait for a lock of `file`. Look whether it is free after this, not before. Errors: `too_many_requests` past
    /// [`WAITING_MAX`].
    pub fn join(self: &Arc<Self>, file: &Database, name: &LockName) -> Result<Waiting> {
        let mut files = self.files();
        let here = files.entry(file.path().to_owned()).or_default();
        if here.waiting >= WAITING_MAX {
            return Err(Error::new(Code::TooManyRequests, "too many requests of this tenant wait for locks")
                .hint(format!("At most {WAITING_MAX} wait at once."))
                .retry_after(Duration::from_secs(1)));
        }
        here.waiting += 1;
        let line = here.lines.entry(name.clone()).or_default();
        line.waiting += 1;
        Ok(Waiting { all: self.clone(), path: file.path().to_owned(), name: name.clone(), released: line.released.clone() })
    }

    /// Ends all waiting, now and from now on.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn files(&self) -> MutexGuard<'_, HashMap<PathBuf, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Until it is worth trying again, at the latest when the lock ends at `ends`; false when `until` came first, or the
    /// server stops.
    pub async fn worth_trying(&self, ends: Millis, until: Instant) -> bool {
        let mut closing = self.all.closing.subscribe();
        let ends = Instant::now() + Duration::from_millis(ends.saturating_sub(now_ms()).max(0).unsigned_abs());
        tokio::select! {
            () = self.released.notified() => true,
            _ = closing.wait_for(|closing| *closing) => false,
            () = tokio::time::sleep_until(until.min(ends)) => ends < until,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut files = self.all.files();
        let Some(here) = files.get_mut(&self.path) else { return };
        here.waiting -= 1;
        if let Some(line) = here.lines.get_mut(&self.name) {
            line.waiting -= 1;
            if line.waiting == 0 {
                here.lines.remove(&self.name);
            } else {
                // It may have been woken and have left without trying.
                line.released.notify_one();
            }
        }
        if here.waiting == 0 {
            files.remove(&self.path);
        }
    }
}

/// Heard when it is dropped. Ringing for what was not released after all does no harm.
pub(super) struct Bell {
    all: Arc<WaitingForLocks>,
    file: Arc<Database>,
    name: LockName,
}

impl Bell {
    pub(super) fn new(all: &Arc<WaitingForLocks>, file: &Arc<Database>, name: &LockName) -> Bell {
        Bell { all: all.clone(), file: file.clone(), name: name.clone() }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(line) = self.all.files().get(self.file.path()).and_then(|here| here.lines.get(&self.name)) {
            line.released.notify_one();
        }
    }
}

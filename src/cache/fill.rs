//! A *fill* is the right to make a missing entry: one caller gets it, for a time, and the others wait for what it puts.
//! [`Fills`] knows the fills of all files. They live in this process only: whoever loses one by a restart puts nothing.
//!
//! - A key has at most one fill at a time; from its end on, its token is worth nothing.
//! - A fill is *overtaken* when its key is written otherwise or thrown away. What it was made of may be older than that,
//!   so it may not be put any more. Marking comes before the write that overtakes: a fill that begins after the mark
//!   begins after whatever made somebody throw the entry away.
//! - Tags are known only when the entry is put, so each fill remembers which were thrown away since it began.
//! - Who *changes* what an entry is made of holds its fill from before the change to after it, so that nobody fills the
//!   entry with what was before. Such a fill is shared by all who change at the same time. In what order their changes take
//!   effect is not known here, so none of them puts anything: more than one is overtaken.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Key, Seconds, Tag};
use crate::clock::{Millis, now_ms};
use crate::error::{Code, Error, Result};
use crate::sqlite::Database;

/// The longest time a fill may take, in seconds.
pub const FILL_MAX_S: i64 = 300;

/// Fills of one file at the same time.
pub const FILLS_MAX: usize = 1_000;

/// Fills of all files at the same time.
const FILLS_OF_ALL: usize = 100_000;

/// Callers of one file that wait for fills at the same time.
pub const FILL_WAITS_MAX: usize = 1_000;

/// Tags thrown away during one fill that it remembers; past that it counts as overtaken.
const TAGS_REMEMBERED: usize = 64;

/// Fills that have ended unnoticed are looked for when there are so many, and then when there are twice as many as were left.
const PRUNE_AT: usize = 1_024;

pub struct Fills {
    /// Altogether: nothing is looked up while there are none.
    count: AtomicUsize,
    state: Mutex<State>,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    files: HashMap<PathBuf, File>,
    prune_at: usize,
}

#[derive(Default)]
struct File {
    fills: HashMap<Key, Arc<Fill>>,
    waiting: usize,
}

/// One caller's right to make an entry.
pub(super) struct Fill {
    key: Key,
    token: Uuid,
    until: Millis,
    /// Who change what it is made of, at the moment; 0: it is one caller's, with the token.
    changing: AtomicUsize,
    overtaken: AtomicBool,
    thrown: Mutex<Vec<Tag>>,
    ended: watch::Sender<bool>,
}

/// What a caller is told who is to make an entry.
#[derive(Clone, Copy, Debug)]
pub struct FillLease {
    pub token: Uuid,
    pub until: Millis,
}

/// Whose turn it is to make an entry.
pub(super) enum Turn {
    Mine(FillLease),
    Theirs(Waiting),
}

/// Waits for somebody else's fill.
pub struct Waiting {
    fills: Arc<Fills>,
    path: PathBuf,
    fill: Arc<Fill>,
}

/// Ends a fill when it is dropped, a shared one with the last of them, and wakes who waits for it.
pub(super) struct Ending {
    fills: Arc<Fills>,
    path: PathBuf,
    fill: Arc<Fill>,
}

/// Fills that are over because of a write; who waits for them is woken when this is dropped, after its commit.
pub(super) struct Overtaken(Vec<Arc<Fill>>);

impl Default for Fills {
    fn default() -> Self {
        Fills { count: AtomicUsize::new(0), state: Mutex::default(), closing: watch::Sender::new(false) }
    }
}

impl Fills {
    /// The right to make `key` for `lease`, or somebody to wait for who has it. Errors: `too_many_requests` past
    /// [`FILLS_MAX`] or [`FILL_WAITS_MAX`], `overloaded` past what all tenants may have.
    pub(super) fn begin(self: &Arc<Self>, file: &Database, key: &Key, lease: Seconds, now: Millis) -> Result<Turn> {
        self.prune(now);
        let others = self.count.load(SeqCst);
        self.change_file(file.path(), |here| {
            if let Some(fill) = here.fills.get(key).filter(|fill| fill.until > now) {
                if here.waiting >= FILL_WAITS_MAX {
                    return Err(Error::new(Code::TooManyRequests, "too many requests of this tenant wait for entries to be filled")
                        .hint(format!("At most {FILL_WAITS_MAX} wait at once. Ask with wait=0, or make the entry without filling it."))
                        .retry_after(Duration::from_secs(1)));
                }
                here.waiting += 1;
                return Ok(Turn::Theirs(Waiting { fills: self.clone(), path: file.path().to_owned(), fill: fill.clone() }));
            }
            if here.fills.len() >= FILLS_MAX {
                here.fills.retain(|_, fill| fill.until > now);
            }
            if here.fills.len() >= FILLS_MAX {
                return Err(Error::new(Code::TooManyRequests, "too many entries of this tenant are being filled")
                    .hint(format!("At most {FILLS_MAX} at once. Give up fills that come to nothing, or let them end sooner."))
                    .retry_after(Duration::from_secs(1)));
            }
            if others >= FILLS_OF_ALL {
                return Err(Error::new(Code::Overloaded, "too many entries of all tenants are being filled")
                    .hint(format!("At most {FILLS_OF_ALL} at once."))
                    .retry_after(Duration::from_secs(1)));
            }
            let fill = Fill::new(key, now + lease.ms());
            let lease = FillLease { token: fill.token, until: fill.until };
            here.fills.insert(key.clone(), Arc::new(fill));
            Ok(Turn::Mine(lease))
        })
    }

    /// The fill of `key` with this token; it ends when what is returned is dropped. Errors: `lease_lost`.
    pub(super) fn ending(self: &Arc<Self>, file: &Database, key: &Key, token: Uuid) -> Result<Ending> {
        let state = self.state();
        let fill = state.files.get(file.path()).and_then(|here| here.fills.get(key)).filter(|fill| fill.token == token);
        let fill = fill.cloned().ok_or_else(lost)?;
        Ok(Ending::new(self, file, fill))
    }

    /// What `key` is made of is about to be changed. Its fill is held for that until what is returned is dropped, beside
    /// those who do the same; so there are at most as many as requests at work.
    pub(super) fn change(self: &Arc<Self>, file: &Database, key: &Key) -> Ending {
        let (fill, overtaken) = self.change_file(file.path(), |here| match here.fills.get(key) {
            Some(shared) if shared.is_shared() => {
                shared.changing.fetch_add(1, SeqCst);
                shared.overtaken.store(true, SeqCst);
                (shared.clone(), None)
            }
            _ => {
                let fill = Arc::new(Fill { changing: AtomicUsize::new(1), ..Fill::new(key, Millis::MAX) });
                (fill.clone(), here.fills.insert(key.clone(), fill))
            }
        });
        if let Some(overtaken) = overtaken {
            overtaken.overtaken.store(true, SeqCst);
            overtaken.ended.send_replace(true);
        }
        Ending::new(self, file, fill)
    }

    /// `keys` are about to be written or deleted.
    pub(super) fn overtake(&self, file: &Database, keys: &[Key]) -> Overtaken {
        self.overtaken(file, |here| keys.iter().filter_map(|key| here.overtake(key)).collect())
    }

    /// Keys that begin with `prefix` are about to be thrown away.
    pub(super) fn overtake_prefix(&self, file: &Database, prefix: &[u8]) -> Overtaken {
        self.overtaken(file, |here| {
            let keys: Vec<_> = here.fills.keys().filter(|key| key.as_bytes().starts_with(prefix)).cloned().collect();
            keys.iter().filter_map(|key| here.overtake(key)).collect()
        })
    }

    /// What has this tag is about to be thrown away.
    pub(super) fn overtake_tag(&self, file: &Database, tag: &Tag) -> Overtaken {
        self.overtaken(file, |here| {
            here.fills.values().for_each(|fill| fill.throw(tag));
            Vec::new()
        })
    }

    /// Ends all waiting, now and from now on.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    fn overtaken(&self, file: &Database, take: impl FnOnce(&mut File) -> Vec<Arc<Fill>>) -> Overtaken {
        if self.count.load(SeqCst) == 0 {
            return Overtaken(Vec::new());
        }
        Overtaken(self.change_file(file.path(), take))
    }

    fn change_file<T>(&self, path: &Path, change: impl FnOnce(&mut File) -> T) -> T {
        let mut state = self.state();
        let here = state.files.entry(path.to_owned()).or_default();
        let before = here.fills.len();
        let changed = change(here);
        let (after, unused) = (here.fills.len(), here.is_unused());
        // Nobody else changes it while the state is held.
        self.count.store(self.count.load(SeqCst) + after - before, SeqCst);
        if unused {
            state.files.remove(path);
        }
        changed
    }

    /// Forgets fills that have ended by the passing of time, now and then.
    fn prune(&self, now: Millis) {
        let mut state = self.state();
        if self.count.load(SeqCst) >= state.prune_at.max(PRUNE_AT) {
            state.files.values_mut().for_each(|here| here.fills.retain(|_, fill| fill.until > now));
            state.files.retain(|_, here| !here.is_unused());
            let left = state.files.values().map(|here| here.fills.len()).sum();
            self.count.store(left, SeqCst);
            state.prune_at = left * 2;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File {
    /// The fill of `key` is over, and those who wait for it are to be woken; a shared one stays until its changes are made.
    fn overtake(&mut self, key: &Key) -> Option<Arc<Fill>> {
        let fill = self.fills.get(key)?;
        fill.overtaken.store(true, SeqCst);
        if fill.is_shared() { None } else { self.fills.remove(key) }
    }

    fn is_unused(&self) -> bool {
        self.fills.is_empty() && self.waiting == 0
    }
}

impl Fill {
    fn new(key: &Key, until: Millis) -> Fill {
        Fill {
            key: key.clone(),
            token: Uuid::new_v4(),
            until,
            changing: AtomicUsize::new(0),
            overtaken: AtomicBool::new(false),
            thrown: Mutex::default(),
            ended: watch::Sender::new(false),
        }
    }

    /// Whether what it made may be put with these tags. Errors: `lease_lost`.
    pub(super) fn check(&self, tags: &[Tag], now: Millis) -> Result<()> {
        let thrown = self.thrown.lock().unwrap_or_else(PoisonError::into_inner);
        if self.overtaken.load(SeqCst) || self.until <= now || tags.iter().any(|tag| thrown.contains(tag)) {
            return Err(lost());
        }
        Ok(())
    }

    fn is_shared(&self) -> bool {
        self.changing.load(SeqCst) > 0
    }

    fn throw(&self, tag: &Tag) {
        let mut thrown = self.thrown.lock().unwrap_or_else(PoisonError::into_inner);
        if thrown.len() >= TAGS_REMEMBERED {
            self.overtaken.store(true, SeqCst);
        } else if !thrown.contains(tag) {
            thrown.push(tag.clone());
        }
    }
}

fn lost() -> Error {
    Error::new(Code::LeaseLost, "this fill is over: the key was written or thrown away since it began, or its time has passed")
        .hint("What was made may be out of date and was not stored. Ask for the key again.")
}

impl Waiting {
    /// Until the fill has ended; false when `until` came first, or the server stops.
    pub async fn over(&self, until: Instant) -> bool {
        let (mut ended, mut closing) = (self.fill.ended.subscribe(), self.fills.closing.subscribe());
        let ends = Instant::now() + Duration::from_millis(self.fill.until.saturating_sub(now_ms()).max(0).unsigned_abs());
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => true,
            _ = closing.wait_for(|closing| *closing) => false,
            () = tokio::time::sleep_until(until.min(ends)) => ends < until,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.fills.change_file(&self.path, |here| here.waiting -= 1);
    }
}

impl Ending {
    fn new(fills: &Arc<Fills>, file: &Database, fill: Arc<Fill>) -> Ending {
        Ending { fills: fills.clone(), path: file.path().to_owned(), fill }
    }

    pub(super) fn fill(&self) -> &Fill {
        &self.fill
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let is_last = self.fills.change_file(&self.path, |here| {
            if self.fill.changing.load(SeqCst) > 1 {
                self.fill.changing.fetch_sub(1, SeqCst);
                return false;
            }
            if here.fills.get(&self.fill.key).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
                here.fills.remove(&self.fill.key);
            }
            true
        });
        if is_last {
            self.fill.ended.send_replace(true);
        }
    }
}

impl Drop for Overtaken {
    fn drop(&mut self) {
        for fill in &self.0 {
            fill.ended.send_replace(true);
        }
    }
}

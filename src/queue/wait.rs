//! Waiting for a job. [`Waiters`] knows which claims wait for which queues of which file; a [`Bell`] tells them what a
//! transaction has made ready, after its commit. Nobody polls, and nobody waits while nothing is remembered here: what
//! is to be found stands in the tables, and who is woken looks there.
//!
//! - A bell rings when its transaction is settled, also when the one who asked for it has gone.
//! - One ring wakes one claim. A claim that stops waiting, with jobs or without, wakes the next: so none is forgotten
//!   when several jobs came at once, or when the one that was woken had just left.
//! - What becomes ready by the passing of time has an instant; the first claim to see it pass looks.
//! - A file's waiters go by its path, since the file may be closed and opened again while they wait.
//! - What a transaction makes due where nobody asks (a schedule, a job of a queue with a webhook) is held in
//!   [`Wakeups`] before it is committed: a transaction that finds that it is not is undone, and done again under a hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::QueueName;
use super::pace::{Counted, Event, Paces};
use crate::clock::{Millis, now_ms};
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, WriteTx};
use crate::tenant::Wakeups;
use crate::tenant::wakeups::Hold;

/// Claims of one file that wait at the same time.
pub const WAITING_MAX: usize = 1_000;

#[derive(Default)]
pub struct Waiters {
    /// Altogether: nothing is looked up while nobody waits.
    waiting: AtomicUsize,
    files: Mutex<HashMap<PathBuf, File>>,
    closing: watch::Sender<bool>,
    /// Where it is kept when a tenant must be looked into though nobody asks.
    wakeups: Option<Arc<Wakeups>>,
    /// Told when there may be something to do in the server's own file.
    own: Notify,
    paces: Paces,
}

#[derive(Default)]
struct File {
    waiting: usize,
    lines: HashMap<QueueName, Arc<Line>>,
}

/// Those who wait for one queue.
struct Line {
    waiting: AtomicUsize,
    ready: Notify,
    /// When something falls due, as far as anybody here knows.
    due: watch::Sender<Millis>,
}

/// One claim that waits; dropping it ends the wait.
pub struct Waiting {
    waiters: Arc<Waiters>,
    path: PathBuf,
    lines: Vec<(QueueName, Arc<Line>)>,
}

impl Waiters {
    pub fn new(wakeups: Arc<Wakeups>) -> Waiters {
        Waiters { wakeups: Some(wakeups), ..Waiters::default() }
    }

    /// Begins to wait for what is to come in these queues of `file`. Look for what is there after this, not before.
    /// Errors: `too_many_requests` past [`WAITING_MAX`].
    pub fn join(self: &Arc<Self>, file: &Database, queues: &[QueueName]) -> Result<Waiting> {
        let mut files = self.files();
        let here = files.entry(file.path().to_owned()).or_default();
        if here.waiting >= WAITING_MAX {
            return Err(Error::new(Code::TooManyRequests, "too many claims of this tenant wait for jobs")
                .hint(format!("At most {WAITING_MAX} wait at once. Use fewer workers, or claim more jobs at once."))
                .retry_after(Duration::from_secs(1)));
        }
        here.waiting += 1;
        self.waiting.fetch_add(1, SeqCst);
        let lines = queues.iter().map(|queue| {
            let line = here.lines.entry(queue.clone()).or_insert_with(|| Arc::new(Line::new())).clone();
            line.waiting.fetch_add(1, SeqCst);
            (queue.clone(), line)
        });
        Ok(Waiting { waiters: self.clone(), path: file.path().to_owned(), lines: lines.collect() })
    }

    /// Ends all waiting, now and from now on.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Claims that wait.
    pub fn count(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// How fast jobs come and go.
    pub fn paces(&self) -> &Paces {
        &self.paces
    }

    /// Until there may be something to do in the server's own file, of which no wake-up is kept.
    pub async fn own_news(&self) {
        self.own.notified().await;
    }

    /// A hold on what is seen to already.
    pub(super) fn held(&self, file: &Database) -> Option<Hold> {
        self.wakeups.as_ref()?.held(Uuid::from_u128(file.owner()?))
    }

    /// Sees to it that somebody looks into the file at `at`, whatever happens until then.
    pub(super) async fn hold(&self, file: &Database, at: Millis) -> Result<Option<Hold>> {
        match (&self.wakeups, file.owner()) {
            (Some(wakeups), Some(owner)) => wakeups.hold(Uuid::from_u128(owner), at).await.map(Some),
            _ => Ok(None),
        }
    }

    fn ring(&self, path: &Path, queue: &QueueName, at: Millis, now: Millis) {
        let files = self.files();
        if let Some(line) = files.get(path).and_then(|file| file.lines.get(queue)) {
            if at <= now { line.ready.notify_one() } else { line.falls_due(at) }
        }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<PathBuf, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn new() -> Line {
        Line { waiting: AtomicUsize::new(0), ready: Notify::new(), due: watch::Sender::new(Millis::MAX) }
    }

    fn falls_due(&self, at: Millis) {
        self.due.send_if_modified(|due| {
            let sooner = at < *due;
            *due = at.min(*due);
            sooner
        });
    }

    /// Whether something has fallen due; true for one of those who ask.
    fn take_due(&self, now: Millis) -> bool {
        self.due.send_if_modified(|due| {
            let over = *due <= now;
            if over {
                *due = Millis::MAX;
            }
            over
        })
    }
}

impl Waiting {
    /// Until it is worth looking again; false when `until` came first, or the server stops. `next_at` is what the last
    /// look found to be the next instant.
    pub async fn woken(&mut self, next_at: Option<Millis>, until: Instant) -> bool {
        let mut closing = self.waiters.closing.subscribe();
        if let Some(at) = next_at {
            self.lines.iter().for_each(|(_, line)| line.falls_due(at));
        }
        loop {
            let mut dues: Vec<_> = self.lines.iter().map(|(_, line)| line.due.subscribe()).collect();
            let next = dues.iter_mut().map(|due| *due.borrow_and_update()).min().unwrap_or(Millis::MAX);
            let passes = Instant::now() + Duration::from_millis(next.saturating_sub(now_ms()).clamp(0, 60_000).unsigned_abs());
            let rung = select_all(self.lines.iter().map(|(_, line)| Box::pin(line.ready.notified())));
            let changed = select_all(dues.iter_mut().map(|due| Box::pin(due.changed())));
            tokio::select! {
                _ = rung => return true,
                _ = changed => {}
                _ = closing.wait_for(|closing| *closing) => return false,
                () = tokio::time::sleep_until(until.min(passes)) => {
                    let now = now_ms();
                    if self.lines.iter().any(|(_, line)| line.take_due(now)) {
                        return true;
                    }
                    if Instant::now() >= until {
                        return false;
                    }
                }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut files = self.waiters.files();
        self.waiters.waiting.fetch_sub(1, SeqCst);
        let Some(file) = files.get_mut(&self.path) else { return };
        for (queue, line) in &self.lines {
            if line.waiting.fetch_sub(1, SeqCst) == 1 {
                file.lines.remove(queue);
            } else {
                line.ready.notify_one();
            }
        }
        file.waiting -= 1;
        if file.waiting == 0 {
            files.remove(&self.path);
        }
    }
}

/// Rung inside a transaction, heard when it is dropped with the closure that is the transaction: after the commit.
/// Rings for what was rolled back are heard too, and do no harm. What it counts is handed out beside what the transaction
/// made, since of that nothing may be counted that was rolled back.
pub(super) struct Bell {
    waiters: Arc<Waiters>,
    file: Arc<Database>,
    rung: Vec<(QueueName, Millis, Millis)>,
    /// When the file must be looked into though nobody asks.
    look_at: Millis,
    counted: Counted,
    /// Let go of after the commit.
    hold: Option<Hold>,
}

impl Bell {
    pub(super) fn new(waiters: &Arc<Waiters>, file: &Arc<Database>, hold: Option<Hold>) -> Bell {
        Bell { waiters: waiters.clone(), file: file.clone(), rung: Vec::new(), look_at: Millis::MAX, counted: Counted::default(), hold }
    }

    /// The transaction begins (again).
    pub(super) fn quieten(&mut self) {
        self.rung.clear();
        self.look_at = Millis::MAX;
        self.counted.clear();
    }

    /// So often it happened to jobs of this queue.
    pub(super) fn count(&mut self, queue: i64, event: Event, times: usize) {
        self.counted.add(queue, event, times);
    }

    pub(super) fn counted(&mut self) -> Counted {
        std::mem::take(&mut self.counted)
    }

    /// There may be something for `queue` at `at`.
    pub(super) fn ring(&mut self, queue: &QueueName, at: Millis, now: Millis) {
        // Also while nobody waits: somebody may begin to, and look, before this has committed.
        match self.rung.last_mut() {
            Some((last, due, _)) if last == queue => *due = at.min(*due),
            _ => self.rung.push((queue.clone(), at, now)),
        }
    }

    /// [`Bell::ring`] for a queue known by its number.
    pub(super) fn ring_number(&mut self, tx: &WriteTx<'_>, queue: i64, at: Millis, now: Millis) -> Result<()> {
        if let Some(name) = tx.row(NAME, [queue], |row| row.get::<_, String>(0))? {
            self.ring(&QueueName::parse(&name)?, at, now);
        }
        Ok(())
    }

    /// The file must be looked into at `at` though nobody asks.
    pub(super) fn look_at(&mut self, at: Millis) {
        self.look_at = self.look_at.min(at);
    }

    /// The moment that has to be held before this transaction may be committed, unless it is.
    pub(super) fn not_held(&self, tx: &WriteTx<'_>) -> Result<Option<Millis>> {
        if self.waiters.wakeups.is_none() || self.file.owner().is_none() {
            return Ok(None);
        }
        let by = self.hold.as_ref().map_or(Millis::MAX, Hold::by);
        let mut first = self.look_at;
        for (queue, at, _) in &self.rung {
            if *at < by.min(first) && tx.row(IS_PUSHED, [queue.as_str()], |_| Ok(()))?.is_some() {
                first = *at;
            }
        }
        Ok(Some(first).filter(|first| *first < by))
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if self.file.owner().is_none() && (!self.rung.is_empty() || self.look_at < Millis::MAX) {
            self.waiters.own.notify_one();
        }
        if self.waiters.count() > 0 {
            for (queue, at, now) in &self.rung {
                self.waiters.ring(self.file.path(), queue, *at, *now);
            }
        }
    }
}

const NAME: &str = "SELECT name FROM queues WHERE queue = ?1";

const IS_PUSHED: &str = "SELECT 1 FROM queues q CROSS JOIN webhooks w ON w.queue = q.queue WHERE q.name = ?1";

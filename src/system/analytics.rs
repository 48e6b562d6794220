//! `analytics`: what was measured, written behind the requests. A request leaves an entry in a bounded channel
//! and goes on; one task writes what has gathered, in batches. What does not fit is counted and dropped:
//! measuring never slows and never stops what it measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rusqlite::params;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::clock::{Millis, now_ms, now_s};
use crate::error::Result;
use crate::sqlite::{Database, Limits, WriteTx};

/// Rows in one transaction.
const BATCH: usize = 256;
/// The longest an entry waits to be written.
const GATHER: Duration = Duration::from_secs(1);
/// The longest text kept of a message or an operation, in bytes.
const TEXT_MAX: usize = 2_048;
/// Between two looks for what is too old.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Rows deleted in one transaction, and transactions in one look.
const PRUNE_STEP: u32 = 500;
const PRUNE_STEPS: u32 = 200;

/// The newest rows of a table that are kept, whatever their age.
const ROWS_MAX: i64 = 1_000_000;
/// Entries taken in a second; with the rows deleted at most in [`PRUNE_EVERY`], pruning keeps up.
const TAKEN_MAX: u64 = 100;

/// A statement that took longer than the configured threshold: a row of `performance_logs`.
#[derive(Clone, Debug)]
pub struct Slow {
    /// `None` for the system databases.
    pub tenant: Option<Uuid>,
    /// `database`, `cache`, `queue`; `app`, `mark`, …
    pub database: &'static str,
    pub operation: String,
    pub duration: Duration,
    pub query_count: u32,
    pub request_id: Option<Uuid>,
}

/// A request that failed on our side: a row of `error_logs`.
#[derive(Clone, Debug)]
pub struct Failure {
    pub tenant: Option<Uuid>,
    pub code: &'static str,
    pub status: u16,
    pub operation: String,
    pub message: String,
    pub request_id: Option<Uuid>,
}

enum Message {
    Slow(Millis, Slow),
    Failure(Millis, Failure),
    /// Answered when all that came before is written.
    Flush(oneshot::Sender<()>),
}

/// A handle; clones write to the same file.
#[derive(Clone)]
pub struct Analytics {
    sender: mpsc::Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    /// The second, and how many entries were taken in it: 44 and 20 bits.
    taken: AtomicU64,
}

impl Counts {
    /// Whether one more fits into this second.
    fn take(&self, second: u64) -> bool {
        let next = |word: u64| match word >> 20 == second {
            true if word & 0xf_ffff >= TAKEN_MAX => None,
            true => Some(word + 1),
            false => Some(second << 20 | 1),
        };
        self.taken.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

impl Analytics {
    /// `waiting` entries fit; rows are kept for `keep`. The returned task writes them, until all handles are gone.
    pub(super) fn new(db: Arc<Database>, waiting: usize, keep: Duration) -> (Analytics, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(waiting.max(1));
        let counts = Arc::new(Counts::default());
        let writer = Writer { db, counts: counts.clone(), keep };
        (Analytics { sender, counts }, writer.run(receiver))
    }

    pub fn slow(&self, mut slow: Slow) {
        cut(&mut slow.operation);
        self.leave(Message::Slow(now_ms(), slow));
    }

    pub fn failure(&self, mut failure: Failure) {
        cut(&mut failure.operation);
        cut(&mut failure.message);
        self.leave(Message::Failure(now_ms(), failure));
    }

    /// Entries dropped since the start because the channel was full or the write failed.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    pub fn written(&self) -> u64 {
        self.counts.written.load(Relaxed)
    }

    /// Waits until everything left before the call is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    fn leave(&self, message: Message) {
        if !self.counts.take(now_s() as u64) || self.sender.try_send(message).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

struct Writer {
    db: Arc<Database>,
    counts: Arc<Counts>,
    keep: Duration,
}

impl Writer {
    async fn run(self, mut receiver: mpsc::Receiver<Message>) {
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                taken = receiver.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.gather(&mut receiver, &mut batch).await;
                    self.write(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).await;
                }
                _ = prune.tick() => self.prune().await,
            }
        }
    }

    /// Waits for company, unless somebody waits for the batch.
    async fn gather(&self, receiver: &mut mpsc::Receiver<Message>, batch: &mut Vec<Message>) {
        let until = tokio::time::Instant::now() + GATHER;
        while batch.len() < BATCH && !batch.iter().any(|message| matches!(message, Message::Flush(_))) {
            match tokio::time::timeout_at(until, receiver.recv_many(batch, BATCH - batch.len())).await {
                Ok(taken) if taken > 0 => {}
                _ => return,
            }
        }
    }

    async fn write(&self, batch: Vec<Message>) {
        let (flushes, rows): (Vec<_>, Vec<_>) = batch.into_iter().partition(|message| matches!(message, Message::Flush(_)));
        let count = rows.len() as u64;
        if count > 0 {
            match self.db.write(Limits::default(), move |tx| rows.iter().try_for_each(|row| insert_in(tx, row))).await {
                Ok(()) => self.counts.written.fetch_add(count, Relaxed),
                Err(error) => {
                    tracing::warn!(%error, rows = count, "measurements could not be written and are dropped");
                    self.counts.dropped.fetch_add(count, Relaxed)
                }
            };
        }
        for flush in flushes {
            if let Message::Flush(done) = flush {
                let _ = done.send(());
            }
        }
    }

    async fn prune(&self) {
        let before = now_ms() - self.keep.as_millis() as Millis;
        for table in ["performance_logs", "error_logs"] {
            for _ in 0..PRUNE_STEPS {
                let sql = format!(
                    "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE at < ?1 ORDER BY at LIMIT ?2)
                     OR id IN (SELECT id FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?3 ORDER BY id LIMIT ?2)"
                );
                match self.db.write(Limits::default(), move |tx| tx.execute(&sql, params![before, PRUNE_STEP, ROWS_MAX])).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, table, "old measurements could not be deleted; tried again later");
                        break;
                    }
                }
            }
        }
    }
}

fn insert_in(tx: &WriteTx<'_>, message: &Message) -> Result<()> {
    match message {
        Message::Slow(at, slow) => tx.execute(
            "INSERT INTO performance_logs (at, tenant_id, database, operation, duration_ms, query_count, request_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                at,
                slow.tenant.map(|id| id.to_string()),
                slow.database,
                slow.operation,
                slow.duration.as_secs_f64() * 1_000.0,
                slow.query_count,
                slow.request_id.map(|id| id.to_string())
            ],
        ),
        Message::Failure(at, failure) => tx.execute(
            "INSERT INTO error_logs (at, tenant_id, code, status, operation, message, request_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                at,
                failure.tenant.map(|id| id.to_string()),
                failure.code,
                failure.status,
                failure.operation,
                failure.message,
                failure.request_id.map(|id| id.to_string())
            ],
        ),
        Message::Flush(_) => Ok(0),
    }
    .map(drop)
}

/// Cuts a text to [`TEXT_MAX`] bytes, between two characters.
fn cut(text: &mut String) {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_bounded_for_each_second() {
        let counts = Counts::default();
        let taken = |second| (0..1_000).filter(|_| counts.take(second)).count() as u64;
        assert_eq!((taken(7), taken(8)), (TAKEN_MAX, TAKEN_MAX));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut text = "é".repeat(TEXT_MAX);
        text.insert(0, 'x');
        cut(&mut text);
        assert_eq!(text.len(), TEXT_MAX - 1);
    }
}

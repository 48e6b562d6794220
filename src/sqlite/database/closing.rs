//! Closing a file: who is inside is told to end, who comes is told that it closes, and when nobody is left its log goes
//! into it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::super::checkpoint::{self, Leave};
use super::super::watch::Stop;
use super::super::writer::Work;
use super::{Database, RETRY};
use crate::error::{Code, Error, Result};

impl Database {
    /// Stops what runs on the file's connections now, and tells what waits so when its turn comes; or takes that
    /// back.
    pub fn refuse(&self, refused: bool) {
        self.refused.store(refused, Relaxed);
        if let Some(open) = self.current() {
            open.readers.stop(Stop::Closing);
            open.writer_watch.stop(Stop::Closing);
            open.transactions.stop(Stop::Closing);
        }
    }

    /// Ends the transactions that wait for their clients; what runs goes on.
    pub fn end_transactions(&self) {
        if let Some(open) = self.current() {
            open.transactions.end(Stop::Closing);
        }
    }

    /// Checkpoints and closes the file, on a lane. The gate is closed, or about to be: nobody is inside.
    pub async fn close(self: &Arc<Self>, leave: Leave) {
        // One after the other: a second caller returns when the first one's close is done.
        let _one = self.opening.lock().await;
        if self.current().is_none() {
            return;
        }
        let (closed, done) = oneshot::channel();
        let database = self.clone();
        let close = move || {
            let open = database.open.write().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(open) = open {
                checkpoint::close(&database.engine, &database.path, open, leave);
                database.engine.counters().closes.fetch_add(1, Relaxed);
            }
            let _ = closed.send(());
        };
        self.engine.writes().submit_reserved(self.writing_party(), Box::new(close));
        let _ = done.await;
    }

    /// The file failed while writes were waiting: none of them has begun.
    pub(super) fn refuse_all(&self) {
        self.settle_waiting(&failed());
    }

    pub(super) fn settle_waiting(&self, error: &Error) {
        let work = {
            let mut queue = self.queue();
            queue.drained = false;
            std::mem::take(&mut queue.work)
        };
        for work in work {
            match work {
                Work::Grouped(job) => job.settle(Err(error.clone())),
                Work::Alone(alone) => (alone.run)(Err(error.clone())),
                Work::Lent(lent) => lent.refuse(error.clone()),
            }
        }
    }

    pub(in crate::sqlite) fn not_fenced(&self) -> Result<()> {
        if self.gate.is_fenced() { Err(being_closed()) } else { self.not_refused() }
    }

    pub(super) fn not_refused(&self) -> Result<()> {
        if !self.refused.load(Relaxed) {
            return Ok(());
        }
        Err(being_closed())
    }
}

pub(super) fn failed() -> Error {
    Error::new(Code::TenantUnavailable, "the database failed before this began").retry_after(RETRY)
}

fn being_closed() -> Error {
    Error::new(Code::TenantUnavailable, "the database is being closed").retry_after(RETRY)
}

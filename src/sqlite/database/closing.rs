//! Closing a file: who is inside is told to end, who comes is told that it closes, and when nobody is left its log goes
//! into it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
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
        let _one = self.opening.lock().await;
        Database::close_all(std::slice::from_ref(self), leave).await;
    }

    /// The same of files of one owner whose gate is closed.
    pub async fn close_all(files: &[Arc<Database>], leave: Leave) {
        if files.iter().all(|file| file.is_closed()) {
            return;
        }
        let (closed, done) = oneshot::channel();
        Database::start_closing(files, leave, move || {
            let _ = closed.send(());
        });
        let _ = done.await;
    }

    /// Has a lane do it, and then call `done`, whatever came of it.
    pub fn start_closing(files: &[Arc<Database>], leave: Leave, done: impl FnOnce() + Send + 'static) {
        let Some(first) = files.first() else { return done() };
        let (engine, party, files) = (&first.engine, first.writing_party(), files.to_vec());
        let close = move || {
            let closed = catch_unwind(AssertUnwindSafe(|| files.iter().for_each(|file| file.close_here(leave))));
            done();
            if let Err(panic) = closed {
                resume_unwind(panic);
            }
        };
        engine.writes().submit_reserved(party, Box::new(close));
    }

    /// Who comes second returns when the first one's close is done.
    fn close_here(&self, leave: Leave) {
        let _one = self.opening_here.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open {
            checkpoint::close(&self.engine, &self.path, open, leave);
            self.engine.counters().closes.fetch_add(1, Relaxed);
        }
    }

    /// Neither open, nor being opened or closed.
    fn is_closed(&self) -> bool {
        self.opening_here.try_lock().is_ok_and(|_one| self.current().is_none())
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

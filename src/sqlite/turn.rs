//! A file has one writer at a time. Mostly that is the lane that drains its queue of writes; for a transaction that lives
//! over several requests the queue lends its [`Turn`]. While the turn is out no group begins, and no lane waits for it.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::ffi;
use tokio::sync::oneshot;

use super::database::Database;
use super::fault;
use super::gate::Pass;
use super::writer::Work;
use crate::error::{Code, Error, Result};

/// The right to write, lent by a file's queue of writes. Dropped, it goes back.
pub struct Turn {
    database: Arc<Database>,
    _pass: Pass,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.database.submit_drain();
    }
}

/// A transaction that waits in the queue of writes.
pub struct Lent {
    lend: oneshot::Sender<Result<Turn>>,
    pass: Pass,
}

impl Lent {
    /// The queue rests until the turn is back, which is at once where nobody waits for it any more.
    pub fn lend(self, database: Arc<Database>) {
        let _ = self.lend.send(Ok(Turn { database, _pass: self.pass }));
    }

    pub fn refuse(self, why: Error) {
        let _ = self.lend.send(Err(why));
    }
}

impl Database {
    /// Waits in the queue of writes, at most `wait`.
    pub(super) async fn turn(self: &Arc<Self>, wait: Duration) -> Result<Turn> {
        let (lend, lent) = oneshot::channel();
        self.enqueue(Work::Lent(Lent { lend, pass: self.hold()? }))?;
        match tokio::time::timeout(wait, lent).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Error::internal("a turn was lost", &"the queue let it go")),
            Err(_) => Err(busy("the database is locked: other transactions write, one after the other")
                .hint("Try again. The bound on waiting is hrana.turn_wait_ms.")
                .retry_after(Duration::from_secs(1))),
        }
    }
}

/// SQLITE_BUSY, for this reason.
pub fn busy(message: &'static str) -> Error {
    Error::new(Code::Overloaded, message).details(fault::details(ffi::SQLITE_BUSY))
}

//! Brief reads. Most reads take a few microseconds, and handing one to a lane and its answer back takes several
//! times that. So a read is tried where it is asked for, on the async worker, on a connection that is idle, for at
//! most [`BRIEF`]; what does not fit is started again on a lane, and its kind goes there directly for a while.
//!
//! The writer's connection serves too when no reader is idle: a tenant that is hardly used has no other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use super::super::reader::Reader;
use super::super::session::Session;
use super::{Database, Limits};
use crate::error::Result;

/// How long an async worker may be kept by one read.
const BRIEF: Duration = Duration::from_micros(500);

/// The largest value in a brief read, in bytes. (A function of which one call takes long on it, such as `instr`, is
/// not called in a brief read at all.)
const BRIEF_LENGTH: i32 = 256 << 10;

/// Reads of a kind that go to a lane at once after one of them was not brief.
const LANES_FOR: u8 = 200;

/// Which kinds of reads were not brief lately: a counter for each of 64 classes of hashes.
pub struct Heavy([AtomicU8; 64]);

impl Default for Heavy {
    fn default() -> Self {
        Heavy([const { AtomicU8::new(0) }; 64])
    }
}

impl Heavy {
    /// Whether one of this kind is worth a try.
    fn may_be_brief(&self, kind: u64) -> bool {
        let counter = &self.0[(kind % 64) as usize];
        // Two at once may both take one off, or one: it does not matter.
        let left = counter.load(Relaxed);
        left == 0 || {
            counter.store(left - 1, Relaxed);
            false
        }
    }

    fn was_not_brief(&self, kind: u64) {
        self.0[(kind % 64) as usize].store(LANES_FOR, Relaxed);
    }
}

impl Database {
    /// Like [`Database::read`], for what is likely to be over before a lane had it. `f` may run twice. `kind` tells
    /// reads apart that take differently long: a hash of the statement.
    pub async fn read_brief<T, F>(self: &Arc<Self>, limits: Limits, kind: u64, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        self.opened().await?;
        if self.heavy.may_be_brief(kind)
            && let Some(outcome) = self.here(&f, kind)
        {
            return Ok(outcome);
        }
        self.read(limits, f).await
    }

    /// `None` when it has to be done on a lane: the file is not open, no connection is idle, or it was not brief. An
    /// error too, so that it is the lane's.
    fn here<T>(&self, f: &impl Fn(&Reader<'_>) -> Result<T>, kind: u64) -> Option<T> {
        let open = self.current()?;
        if let Some(reader) = open.readers.idle() {
            return self.on(&reader, f, kind);
        }
        let writer = open.writer.try_lock().ok()?;
        // A job that panicked left it in a transaction: the next group ends that.
        if writer.is_clean() { self.on(&writer, f, kind) } else { None }
    }

    fn on<T>(&self, session: &Session, f: &impl Fn(&Reader<'_>) -> Result<T>, kind: u64) -> Option<T> {
        let ran = session.briefly(BRIEF, BRIEF_LENGTH, || catch_unwind(AssertUnwindSafe(|| f(&Reader::new(session)))));
        match ran {
            Ok(Ok(Ok(value))) => {
                self.engine.counters().reads.fetch_add(1, Relaxed);
                Some(value)
            }
            _ => {
                self.heavy.was_not_brief(kind);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_was_not_brief_goes_to_a_lane_for_a_while() {
        let heavy = Heavy::default();
        assert!(heavy.may_be_brief(7));
        heavy.was_not_brief(7);
        assert_eq!((0..300).filter(|_| heavy.may_be_brief(7)).count(), 300 - usize::from(LANES_FOR));
        heavy.was_not_brief(7);
        assert!(heavy.may_be_brief(8) && !heavy.may_be_brief(7 + 64));
    }
}

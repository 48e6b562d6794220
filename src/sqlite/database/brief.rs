//! Brief reads. Most reads take a few microseconds, and handing one to a lane and its answer back takes several
//! times that. So a read is tried where it is asked for, on the async worker, on a connection that is idle, for at
//! most [`BRIEF`]; what does not fit is started again on a lane, and its kind goes there directly for a while.
//!
//! The writer's connection is asked first, a reader only while somebody writes or is about to: a write waits for the reads that
//! have the connection when it comes to it, one of each worker at most, and for none that comes after. So a tenant that one at a time uses has one
//! connection, with one page cache and one set of statements in memory, and what its pages hold is not read again after
//! each of its own commits, as a reader's is.
//!
//! Brief writes. The same holds of a write whose commit flushes nothing: it takes some microseconds. So it is tried at
//! once where nobody else writes the file, as a group of one. Not while a lane flushes, since the file system may hold up
//! whoever writes beside that; and neither the flush that begins a log anew nor a checkpoint is done here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use super::super::checkpoint;
use super::super::reader::Reader;
use super::super::session::Session;
use super::super::writer::{self, Job, Work};
use super::{Database, Limits, Open};
use crate::config::Level;
use crate::error::Result;

/// How long an async worker may be kept by one read.
pub const BRIEF: Duration = Duration::from_micros(500);

/// The largest value in a brief read, in bytes. (A function of which one call takes long on it, such as `instr`, is
/// not called in a brief read at all.)
pub const BRIEF_LENGTH: i32 = 256 << 10;

/// Reads of a kind that go to a lane at once after one of them was not brief.
const LANES_FOR: u8 = 200;

/// The kind of all writes.
const WRITES: u64 = 63;

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
        let open = self.opened().await?;
        if self.heavy.may_be_brief(kind)
            && let Some(outcome) = self.here(&open, &f, kind)
        {
            return Ok(outcome);
        }
        self.read(limits, f).await
    }

    /// Runs the write now, or queues it.
    pub(super) fn write_here_or_queue(self: &Arc<Self>, open: &Arc<Open>, job: Job) -> Result<()> {
        let flushes = match self.options.level {
            Level::Full => true,
            Level::Normal => open.log.begins_anew(),
            Level::Off => false,
        };
        if flushes || self.engine.is_flushing() || !self.heavy.may_be_brief(WRITES) || !self.take_queue() {
            return self.enqueue(Work::Grouped(job));
        }
        let left = match open.writer.try_lock() {
            Ok(session) if self.not_refused().is_ok() && self.is_open_as(open) => {
                writer::run_briefly(&self.engine, open, &session, job, &|| self.fail(open)).inspect(|_| self.heavy.was_not_brief(WRITES))
            }
            _ => Some(job),
        };
        let mut queue = self.queue();
        if let Some(job) = left {
            queue.work.push_front(Work::Grouped(job));
        }
        self.end_turn(queue, checkpoint::is_due(&self.engine, open));
        Ok(())
    }

    /// Whether nobody else has the queue of writes, or waits in it; then it is the caller's to drain.
    fn take_queue(&self) -> bool {
        !std::mem::replace(&mut self.queue().drained, true)
    }

    /// `None` when it has to be done on a lane: no connection is idle, or it was not brief. An error too, so that it is
    /// the lane's.
    fn here<T>(&self, open: &Arc<Open>, f: &impl Fn(&Reader<'_>) -> Result<T>, kind: u64) -> Option<T> {
        if open.wanted.load(Relaxed) > 0 {
            return self.on(&*open.readers.idle()?, f, kind);
        }
        match open.writer.try_lock() {
            // A job that panicked left it in a transaction: the next group ends that.
            Ok(writer) if writer.is_clean() && self.is_open_as(open) => self.on(&writer, f, kind),
            _ => self.on(&*open.readers.idle()?, f, kind),
        }
    }

    fn on<T>(&self, session: &Session, f: &impl Fn(&Reader<'_>) -> Result<T>, kind: u64) -> Option<T> {
        let ran = session.briefly(BRIEF, BRIEF_LENGTH, || catch_unwind(AssertUnwindSafe(|| f(&Reader::new(session, self.answers())))));
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
    use super::super::super::gate::Gate;
    use super::super::tests::{Bench, count, insert};
    use super::*;
    use crate::error::Code;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    /// Whether a write is done on the thread that asks for it.
    async fn is_done_here(database: &Arc<Database>) -> bool {
        let here = std::thread::current().id();
        database
            .write(Limits::default(), move |tx| {
                tx.execute("INSERT INTO t(v) VALUES (NULL)", [])?;
                Ok(std::thread::current().id() == here)
            })
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_write_that_flushes_nothing_is_done_where_it_is_asked_for() {
        for (level, expected) in [(Level::Off, [true, true]), (Level::Normal, [false, true]), (Level::Full, [false, false])] {
            let (bench, gate) = (Bench::new(), Gate::new());
            let database = bench.database_at(&gate, level);
            database.ensure_open().await.unwrap();
            // The first commit of a log flushes what the log begins with.
            let first = is_done_here(&database).await;
            // The lane that did it answers before it lets go of the queue.
            let mut later = false;
            for _ in 0..1_000 {
                later |= is_done_here(&database).await;
            }
            assert_eq!([first, later], expected, "{level:?}");
            assert_eq!(count(&database).await, 1_001);
        }
    }

    #[tokio::test]
    async fn a_write_is_not_done_here_while_others_write_or_flush() {
        let (bench, gate) = (Bench::new(), Gate::new());
        let database = bench.database_at(&gate, Level::Off);
        database.ensure_open().await.unwrap();
        let flushing = bench.engine.flushing();
        assert!(!is_done_here(&database).await);
        drop(flushing);
        let turn = database.turn(Duration::from_secs(5)).await.unwrap();
        let (behind, ()) = tokio::join!(is_done_here(&database), async {
            tokio::task::yield_now().await;
            drop(turn);
        });
        assert!(!behind);
        assert_eq!(count(&database).await, 2);
    }

    #[tokio::test]
    async fn a_brief_read_is_the_writers_unless_somebody_writes() {
        let (bench, gate) = (Bench::new(), Gate::new());
        let database = bench.database_at(&gate, Level::Off);
        // On a lane, which opens a reader.
        assert_eq!(count(&database).await, 0);
        let open = database.opened().await.unwrap();
        let is_the_writers = || database.here(&open, &|reader| Ok(reader.session.page_bytes > 0), 0);
        assert_eq!(is_the_writers(), Some(true));
        let writing = database.writer_of(&open).unwrap();
        assert_eq!(is_the_writers(), Some(false));
        drop(writing);
    }

    #[tokio::test]
    async fn a_write_that_waits_for_the_connection_has_it_before_any_read_that_comes_after() {
        const READERS: usize = 4;
        let (bench, gate) = (Bench::new(), Gate::new());
        let database = bench.database_at(&gate, Level::Off);
        let open = {
            database.ensure_open().await.unwrap();
            database.opened().await.unwrap()
        };
        let (read, over, asked) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
        for _ in 0..20 {
            // As a read has it that is under way.
            let under_way = open.writer.lock().unwrap();
            read.store(0, Relaxed);
            asked.store(0, Relaxed);
            over.store(false, Relaxed);
            std::thread::scope(|scope| {
                let write = scope.spawn(|| {
                    let _writer = database.writer_of(&open).unwrap();
                    over.store(true, Relaxed);
                    read.load(Relaxed)
                });
                while open.wanted.load(Relaxed) == 0 {
                    std::thread::yield_now();
                }
                for _ in 0..READERS {
                    scope.spawn(|| {
                        while !over.load(Relaxed) {
                            database.here(&open, &|_| Ok(read.fetch_add(1, Relaxed)), 0);
                            asked.fetch_add(1, Relaxed);
                        }
                    });
                }
                while asked.load(Relaxed) < 100 * READERS {
                    std::thread::yield_now();
                }
                drop(under_way);
                assert_eq!(write.join().unwrap(), 0);
            });
            // The next one has it again.
            assert!(database.here(&open, &|_| Ok(()), 0).is_some());
        }
    }

    #[tokio::test]
    async fn a_writer_that_somebody_has_panicked_with_is_taken_over() {
        let (bench, gate) = (Bench::new(), Gate::new());
        let database = bench.database_at(&gate, Level::Off);
        database.ensure_open().await.unwrap();
        let open = database.opened().await.unwrap();
        let fault = || {
            let _writer = open.writer.lock().unwrap();
            panic!("a fault of ours");
        };
        assert!(std::thread::scope(|scope| scope.spawn(fault).join()).is_err());
        assert!(database.writer_of(&open).is_some() && open.wanted.load(Relaxed) == 0);
    }

    #[tokio::test]
    async fn nothing_is_done_here_on_a_file_that_was_taken_away() {
        let (bench, gate) = (Bench::new(), Gate::new());
        let database = bench.database_at(&gate, Level::Off);
        database.ensure_open().await.unwrap();
        let open = database.opened().await.unwrap();
        let read = |_: &Reader<'_>| Ok(());
        assert!(database.here(&open, &read, 1).is_some());
        database.fail(&open);
        assert!(open.readers.idle().is_none() && database.here(&open, &read, 1).is_none());
        let wrote = Arc::new(std::sync::atomic::AtomicBool::default());
        let (noted, here) = (wrote.clone(), std::thread::current().id());
        let step = move |step: writer::Step<'_>| {
            if let writer::Step::Attempt(_) = step {
                noted.fetch_or(std::thread::current().id() == here, Relaxed);
            }
            Ok(())
        };
        let job = Job { step: Box::new(step), limits: Limits::default(), gone: Default::default(), _pass: database.hold().unwrap() };
        database.write_here_or_queue(&open, job).unwrap();
        assert!(!wrote.load(Relaxed));
    }

    #[tokio::test]
    async fn a_write_that_is_not_brief_or_fails_is_the_lanes() {
        let (bench, gate) = (Bench::new(), Gate::new());
        let database = bench.database_at(&gate, Level::Off);
        let many =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) INSERT INTO t(v) SELECT 'n' || i FROM n";
        let made = database.write(Limits::default(), move |tx| tx.execute(many, [])).await.unwrap();
        assert_eq!((made, count(&database).await), (50_000, 50_000));
        assert!(!is_done_here(&database).await, "such writes go to a lane for a while");
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t(v) SELECT 'm' || i FROM n";
        let (bench, gate) = (Bench::new(), Gate::new());
        let database = bench.database_at(&gate, Level::Off);
        database.write(Limits::default(), insert("one".to_owned())).await.unwrap();
        let again = database.write(Limits::default(), insert("one".to_owned())).await.unwrap_err();
        assert_eq!(again.code(), Code::ConstraintViolation);
        let limits = Limits { time: Duration::from_millis(50) };
        let stopped = database.write(limits, move |tx| tx.execute(endless, [])).await.unwrap_err();
        assert_eq!(stopped.code(), Code::StatementTimeout);
        assert_eq!(count(&database).await, 1);
    }

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

//! A [`Watch`] belongs to one connection and can stop what runs on it: past a deadline, when the caller has
//! gone, or when somebody needs the connection's snapshot to end. SQLite asks it every [`OPS`] steps of its
//! virtual machine (the progress handler); the [`Watchdog`]'s thread interrupts what does not get there.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, InterruptHandle};

/// Virtual-machine steps between two looks at the clock: about 10 µs of work.
const OPS: i32 = 1_000;

/// Looks at the clock between two offers of the processor to whoever waits for it: about 100 µs of work.
const LOOKS: u32 = 10;

/// How often the watchdog looks at what runs.
const TICK: Duration = Duration::from_millis(20);

/// Why a statement was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// It ran past its deadline.
    Deadline = 1,
    /// Nobody waits for its answer any more.
    Gone = 2,
    /// Its snapshot kept the write-ahead log from being cut.
    HeldBack = 3,
    /// The file is being closed: suspended, deleted, failed, or the server stops.
    Closing = 4,
}

/// Set when the caller of a job goes away.
pub type Gone = Arc<AtomicBool>;

pub struct Watch {
    interrupt: InterruptHandle,
    run: Mutex<Option<Run>>,
    stopped: AtomicU8,
}

struct Run {
    deadline: Instant,
    gone: Option<Gone>,
}

impl Watch {
    /// Installs a watch on the connection.
    pub fn install(conn: &Connection) -> rusqlite::Result<Arc<Watch>> {
        let watch = Arc::new(Watch { interrupt: conn.get_interrupt_handle(), run: Mutex::new(None), stopped: AtomicU8::new(0) });
        let asked = watch.clone();
        let mut looks = 0_u32;
        let look = move || {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS) && !asked.is_brief() {
                // A statement that only computes would keep it for a whole slice of the system's, some milliseconds, which
                // an async worker that has just been woken would wait for.
                std::thread::yield_now();
            }
            asked.due()
        };
        conn.progress_handler(OPS, Some(look))?;
        Ok(watch)
    }

    /// Watches until the returned guard is dropped.
    pub fn arm<'a>(self: &'a Arc<Self>, watchdog: &'a Watchdog, time: Duration, gone: Gone) -> Armed<'a> {
        self.stopped.store(0, Relaxed);
        *self.lock() = Some(Run { deadline: Instant::now() + time, gone: Some(gone) });
        watchdog.lock().running.push(self.clone());
        Armed { watch: self, watchdog }
    }

    /// Watches a read that is run where it must not take long; the watchdog is not told.
    pub fn arm_brief(&self, time: Duration) -> ArmedBrief<'_> {
        self.stopped.store(0, Relaxed);
        *self.lock() = Some(Run { deadline: Instant::now() + time, gone: None });
        ArmedBrief(self)
    }

    /// Whether what runs must not take long.
    pub fn is_brief(&self) -> bool {
        self.lock().as_ref().is_some_and(|run| run.gone.is_none())
    }

    /// Stops what runs now, if anything does.
    pub fn stop(&self, why: Stop) {
        if self.lock().is_some() {
            self.note(why);
            self.interrupt.interrupt();
        }
    }

    /// Why the last run was stopped, if it was.
    pub fn stopped(&self) -> Option<Stop> {
        [Stop::Deadline, Stop::Gone, Stop::HeldBack, Stop::Closing].into_iter().find(|&why| why as u8 == self.stopped.load(Relaxed))
    }

    /// Whether what runs should stop. Never outside a run: a BEGIN or COMMIT of ours must not be stopped, which
    /// SQLite would do even after the COMMIT is on disk.
    pub(super) fn due(&self) -> bool {
        let run = self.lock();
        if run.is_none() {
            return false;
        }
        if self.stopped.load(Relaxed) != 0 {
            return true;
        }
        let why = match &*run {
            Some(run) if run.gone.as_ref().is_some_and(|gone| gone.load(Relaxed)) => Stop::Gone,
            Some(run) if Instant::now() >= run.deadline => Stop::Deadline,
            _ => return false,
        };
        self.note(why);
        true
    }

    /// The first reason stands.
    fn note(&self, why: Stop) {
        let _ = self.stopped.compare_exchange(0, why as u8, Relaxed, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Armed<'a> {
    watch: &'a Arc<Watch>,
    watchdog: &'a Watchdog,
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        // In this order: once it is off the watchdog's list nothing interrupts the connection's next run.
        let mut watched = self.watchdog.lock();
        if let Some(at) = watched.running.iter().position(|watch| Arc::ptr_eq(watch, self.watch)) {
            watched.running.swap_remove(at);
        }
        drop(watched);
        *self.watch.lock() = None;
    }
}

pub struct ArmedBrief<'a>(&'a Watch);

impl Drop for ArmedBrief<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// The thread that interrupts statements which are due but do not reach the progress handler.
pub struct Watchdog {
    watched: Mutex<Watched>,
    woken: Condvar,
}

#[derive(Default)]
struct Watched {
    /// What runs now: at most one watch for each lane.
    running: Vec<Arc<Watch>>,
    stopping: bool,
}

impl Watchdog {
    pub fn start() -> Arc<Watchdog> {
        let watchdog = Arc::new(Watchdog { watched: Mutex::default(), woken: Condvar::new() });
        let looking = watchdog.clone();
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        thread.spawn(move || looking.look()).expect("the system gives a thread at start");
        watchdog
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.woken.notify_all();
    }

    fn look(&self) {
        let mut watched = self.lock();
        while !watched.stopping {
            for watch in &watched.running {
                if watch.due() {
                    watch.interrupt.interrupt();
                }
            }
            watched = self.woken.wait_timeout(watched, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

    #[test]
    fn a_statement_past_its_deadline_is_stopped_and_the_next_one_runs() {
        let conn = Connection::open_in_memory().unwrap();
        let watchdog = Watchdog::start();
        let watch = Watch::install(&conn).unwrap();
        {
            let _armed = watch.arm(&watchdog, Duration::from_millis(10), Gone::default());
            assert!(conn.query_row(ENDLESS, [], |_| Ok(())).is_err());
            assert_eq!(watch.stopped(), Some(Stop::Deadline));
        }
        let _armed = watch.arm(&watchdog, Duration::from_secs(60), Gone::default());
        assert_eq!(conn.query_row("SELECT 1", [], |row| row.get(0)), Ok(1));
        assert_eq!(watch.stopped(), None);
        watchdog.stop();
    }

    #[test]
    fn nothing_is_stopped_outside_a_run() {
        let conn = Connection::open_in_memory().unwrap();
        let watchdog = Watchdog::start();
        let watch = Watch::install(&conn).unwrap();
        {
            let _armed = watch.arm(&watchdog, Duration::ZERO, Gone::default());
            assert!(conn.query_row(ENDLESS, [], |_| Ok(())).is_err());
        }
        // Its count of steps goes on over executions, so some of these ask the handler.
        for _ in 0..4_000 {
            conn.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
            conn.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        }
        watchdog.stop();
    }

    #[test]
    fn a_statement_nobody_waits_for_is_stopped() {
        let conn = Connection::open_in_memory().unwrap();
        let watchdog = Watchdog::start();
        let watch = Watch::install(&conn).unwrap();
        let gone = Gone::default();
        let _armed = watch.arm(&watchdog, Duration::from_secs(60), gone.clone());
        gone.store(true, Relaxed);
        assert!(conn.query_row(ENDLESS, [], |_| Ok(())).is_err());
        assert_eq!(watch.stopped(), Some(Stop::Gone));
        watchdog.stop();
    }
}

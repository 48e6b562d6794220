//! The [`Pace`] of a run, and the [`Clock`] that says when each operation is due.
//!
//! With a rate, operation number n is due n / rate after the start, whoever takes it and however busy the server is,
//! and its latency counts from then. So a server that stalls is seen to stall, by every operation that was due meanwhile
//! (a client that waits before it asks again would leave those out). Without a rate each connection asks again as soon
//! as it is answered, and latency counts from the asking.
//!
//! A rate of so many times what the server can do is found by the run: in the second half of the warm-up [`ENOUGH`] connections ask
//! as fast as they are answered. Behind the measured time they do so again, for as long as the warm-up was, to see what is left.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::work::Began;

/// Connections that have a server do what it can.
pub const ENOUGH: usize = 64;

/// The least warm-up in which that can be found.
pub const FINDING: Duration = Duration::from_secs(2);

/// How long a server has to recover before it is looked at again; at most half of that time.
const RECOVERY: Duration = Duration::from_secs(1);

/// A timer of ours that fires later than this was held up by a machine that is too busy; what is due then counts as late.
const TIMER: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as it goes.
    Max,
    PerSecond(f64),
    /// So many times what it can do.
    Times(f64),
}

/// The times of a run, and how far it was at some of them.
pub struct Clock {
    pub start: Instant,
    /// What is answered between these counts.
    pub from: Instant,
    pub until: Instant,
    pub end: Instant,
    pace: Pace,
    /// Operations that were due and begun.
    begun: AtomicU64,
    marks: [Mark; 5],
}

/// How many operations had been answered at an instant, or at the first look after it.
struct Mark {
    at: Instant,
    seen: OnceLock<(Instant, u64)>,
}

/// What came of asking for more than the server can do. All are operations a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overload {
    pub times: f64,
    /// What it could do.
    pub found_per_s: f64,
    pub asked_per_s: f64,
    pub answered_per_s: f64,
    /// What it could do a second later.
    pub after_per_s: f64,
    /// How long the run went on behind what was measured.
    pub after_s: f64,
}

impl Clock {
    pub fn start(pace: Pace, warmup: Duration, duration: Duration) -> Clock {
        let start = Instant::now();
        let (from, until) = (start + warmup, start + warmup + duration);
        let end = if matches!(pace, Pace::Times(_)) { until + warmup } else { until };
        let marks = [start + warmup / 2, from, until, until + RECOVERY.min(warmup / 2), end];
        let marks = marks.map(|at| Mark { at, seen: OnceLock::new() });
        Clock { start, from, until, end, pace, begun: AtomicU64::new(0), marks }
    }

    /// Waits for the connection's next operation, when so many have been answered; `None` when the run is over.
    pub async fn next(&self, connection: usize, answered: u64) -> Option<Began> {
        loop {
            self.mark(answered);
            let now = Instant::now();
            if now >= self.end {
                return None;
            }
            let counts_from = (now < self.until).then_some(self.from);
            match self.rate(now) {
                None if matches!(self.pace, Pace::Max) || connection < ENOUGH => return Some(Began { at: now, counts_from }),
                None => tokio::time::sleep_until((if now < self.from { self.from } else { self.end }).into()).await,
                Some((since, rate)) => {
                    let due = since + Duration::from_secs_f64(self.begun.fetch_add(1, Relaxed) as f64 / rate);
                    if due < self.until {
                        return Some(Began { at: reached(due).await, counts_from });
                    }
                    tokio::time::sleep_until(self.until.into()).await;
                }
            }
        }
    }

    /// The rate at this moment, and since when; `None` for as fast as it goes.
    fn rate(&self, now: Instant) -> Option<(Instant, f64)> {
        match self.pace {
            Pace::Max => None,
            Pace::PerSecond(rate) => Some((self.start, rate)),
            Pace::Times(times) if (self.from..self.until).contains(&now) => Some((self.from, times * self.found())),
            Pace::Times(_) => None,
        }
    }

    /// With a rate what is due is due, and being refused is a part of what is measured; else whoever is told to wait does.
    pub fn waits(&self) -> bool {
        self.rate(Instant::now()).is_none()
    }

    /// Looks how far the run is.
    pub fn mark(&self, answered: u64) {
        let now = Instant::now();
        for mark in self.marks.iter().filter(|mark| mark.at <= now) {
            mark.seen.get_or_init(|| (now, answered));
        }
    }

    /// What the server can do; at least one, so that there is a rate.
    fn found(&self) -> f64 {
        self.between(0, 1).unwrap_or(0.0).max(1.0)
    }

    /// Operations answered in a second between two marks, once both are there.
    fn between(&self, from: usize, to: usize) -> Option<f64> {
        let [from, to] = [from, to].map(|mark| self.marks[mark].seen.get());
        let ((from, before), (to, after)) = (from?, to?);
        let seconds = to.duration_since(*from).as_secs_f64();
        (seconds > 0.0).then(|| after.saturating_sub(*before) as f64 / seconds)
    }

    /// Operations that were due and never begun.
    pub fn never_begun(&self) -> u64 {
        let due = match self.pace {
            Pace::Max => 0.0,
            Pace::PerSecond(rate) => rate * self.until.duration_since(self.start).as_secs_f64(),
            Pace::Times(times) => times * self.found() * self.until.duration_since(self.from).as_secs_f64(),
        };
        (due as u64).saturating_sub(self.begun.load(Relaxed))
    }

    pub fn overload(&self) -> Option<Overload> {
        let Pace::Times(times) = self.pace else { return None };
        Some(Overload {
            times,
            found_per_s: self.found(),
            asked_per_s: times * self.found(),
            answered_per_s: self.between(1, 2)?,
            after_per_s: self.between(3, 4)?,
            after_s: self.end.duration_since(self.until).as_secs_f64(),
        })
    }
}

/// Waits for what is due; when it began.
async fn reached(due: Instant) -> Instant {
    if due <= Instant::now() {
        return due;
    }
    tokio::time::sleep_until(due.into()).await;
    let now = Instant::now();
    // Timers tick in milliseconds; that is our lateness and not the server's.
    if now.duration_since(due) <= TIMER { now } else { due }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A clock whose run began so long ago.
    fn since(ago: Duration, pace: Pace) -> Clock {
        let mut clock = Clock::start(pace, 4 * SECOND, 10 * SECOND);
        for at in [&mut clock.start, &mut clock.from, &mut clock.until, &mut clock.end] {
            *at -= ago;
        }
        clock.marks.iter_mut().for_each(|mark| mark.at -= ago);
        clock
    }

    #[test]
    fn a_rate_of_so_many_times_is_made_of_what_was_answered_in_the_second_half_of_the_warm_up() {
        let clock = since(5 * SECOND, Pace::Times(4.0));
        let seen = |mark: usize, answered| clock.marks[mark].seen.set((clock.marks[mark].at, answered)).unwrap();
        seen(0, 1_000);
        seen(1, 1_500);
        let now = Instant::now();
        assert_eq!(clock.rate(now), Some((clock.from, 1_000.0)));
        assert_eq!(clock.rate(clock.start), None);
        assert_eq!(clock.rate(clock.until), None);
        clock.begun.store(400, Relaxed);
        assert_eq!((clock.never_begun(), clock.overload()), (10_000 - 400, None));
        seen(2, 3_900);
        seen(3, 4_100);
        seen(4, 4_850);
        let expected =
            Overload { times: 4.0, found_per_s: 250.0, asked_per_s: 1_000.0, answered_per_s: 240.0, after_per_s: 250.0, after_s: 4.0 };
        assert_eq!(clock.overload(), Some(expected));
    }

    #[tokio::test]
    async fn before_and_behind_the_overload_only_enough_connections_ask_and_it_counts_for_nothing() {
        let began = |clock: Clock, connection| async move { clock.next(connection, 7).await };
        for (ago, counts) in [(SECOND, true), (15 * SECOND, false)] {
            let one = began(since(ago, Pace::Times(2.0)), ENOUGH - 1).await.unwrap();
            assert_eq!(one.counts_from.is_some(), counts, "{ago:?}");
            let other = began(since(ago, Pace::Times(2.0)), ENOUGH);
            assert!(futures_util::FutureExt::now_or_never(other).is_none(), "{ago:?}");
        }
        assert!(began(since(19 * SECOND, Pace::Times(2.0)), 0).await.is_none());
        assert!(began(since(15 * SECOND, Pace::Max), 0).await.is_none());
        assert!(began(since(SECOND, Pace::Max), 5_000).await.is_some());
    }

    #[tokio::test]
    async fn what_is_due_counts_from_when_it_was_due() {
        let clock = since(5 * SECOND, Pace::PerSecond(10.0));
        for n in 0..20 {
            let began = clock.next(n, 0).await.unwrap();
            assert_eq!(began.at, clock.start + SECOND * u32::try_from(n).unwrap() / 10);
        }
        assert_eq!((clock.never_begun(), clock.waits()), (140 - 20, false));
    }

    #[test]
    fn a_server_that_answered_nothing_still_has_a_rate() {
        let clock = since(5 * SECOND, Pace::Times(4.0));
        clock.mark(0);
        assert_eq!(clock.rate(Instant::now()), Some((clock.from, 4.0)));
    }
}

//! A queue's *pace* is how many of its jobs came and went lately, by [`Event`]. [`Paces`] counts what the engine's transactions
//! have committed, whoever asked for them; in memory, so it begins with nothing when the server does.
//!
//! - It is counted in slots of [`SLOT_MS`], the running one among them. So a window ends now, begins where a slot begins, and
//!   is up to one slot shorter than its name says; what came in it is divided by its true length.
//! - A commit whose caller has gone meanwhile is not counted.
//! - At most [`KNOWN_MAX`] queues are known; past that, those that nothing was counted of for the longest time are forgotten,
//!   as is a queue after a quarter of an hour without anything.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::Serialize;

/// What is counted of a queue's jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Added,
    Claimed,
    Done,
    /// A try was given up, or its lease ended and a claim has found that out.
    Failed,
    Dead,
}

impl Event {
    const ALL: [Event; 5] = [Event::Added, Event::Claimed, Event::Done, Event::Failed, Event::Dead];

    const fn as_str(self) -> &'static str {
        match self {
            Event::Added => "added",
            Event::Claimed => "claimed",
            Event::Done => "done",
            Event::Failed => "failed",
            Event::Dead => "dead",
        }
    }
}

/// By event, in the order of [`Event::ALL`].
type Counts = [u32; Event::ALL.len()];

/// What one transaction has to count, by the queues' numbers.
#[derive(Debug, Default)]
pub(super) struct Counted(Vec<(i64, Counts)>);

/// Jobs a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PerSecond {
    pub added: f64,
    pub claimed: f64,
    pub done: f64,
    pub failed: f64,
    pub dead: f64,
}

/// A queue's pace over the last one, five and fifteen minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    #[serde(rename = "1m")]
    pub of_1m: PerSecond,
    #[serde(rename = "5m")]
    pub of_5m: PerSecond,
    #[serde(rename = "15m")]
    pub of_15m: PerSecond,
}

/// Queues whose pace is known.
pub const KNOWN_MAX: u64 = 10_000;

/// The length of a slot, in milliseconds.
const SLOT_MS: u64 = 15_000;

/// A quarter of an hour of them.
const SLOTS: usize = 60;

/// Whose file it is, `None` for the operator's, and the queue's number in it.
type Key = (Option<u128>, i64);

/// The pace of every queue something happened in, and what happened in all of them together.
pub struct Paces {
    began: Instant,
    of: Cache<Key, Arc<Mutex<Slots>>>,
    totals: [AtomicU64; Event::ALL.len()],
}

impl Default for Paces {
    fn default() -> Paces {
        let idle = Duration::from_millis(SLOT_MS * SLOTS as u64);
        // The default policy turns newcomers away.
        let of = Cache::builder().max_capacity(KNOWN_MAX).eviction_policy(EvictionPolicy::lru()).time_to_idle(idle);
        Paces { began: Instant::now(), of: of.build(), totals: Default::default() }
    }
}

impl Paces {
    pub(super) fn count(&self, owner: Option<u128>, counted: Counted) {
        self.count_at(owner, counted, self.now());
    }

    /// Of the queue with this number; zeros of one that nothing is known of.
    pub(super) fn rates(&self, owner: Option<u128>, queue: i64) -> Rates {
        self.rates_at(owner, queue, self.now())
    }

    /// Of all queues since the server started.
    pub fn totals(&self) -> [(&'static str, u64); Event::ALL.len()] {
        Event::ALL.map(|event| (event.as_str(), self.totals[event as usize].load(Relaxed)))
    }

    /// Milliseconds since the server started: of a clock that nobody sets.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn count_at(&self, owner: Option<u128>, counted: Counted, now: u64) {
        for (queue, counts) in counted.0 {
            self.totals.iter().zip(counts).for_each(|(total, count)| _ = total.fetch_add(count.into(), Relaxed));
            let slots = self.of.get_with((owner, queue), Arc::default);
            slots.lock().unwrap_or_else(PoisonError::into_inner).add(counts, now);
        }
    }

    fn rates_at(&self, owner: Option<u128>, queue: i64, now: u64) -> Rates {
        let Some(slots) = self.of.get(&(owner, queue)) else { return Rates::default() };
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.go_to(now);
        Rates { of_1m: slots.per_s(4, now), of_5m: slots.per_s(20, now), of_15m: slots.per_s(SLOTS, now) }
    }
}

impl Counted {
    pub(super) fn add(&mut self, queue: i64, event: Event, times: usize) {
        if times == 0 {
            return;
        }
        let place = self.0.iter().position(|(of, _)| *of == queue).unwrap_or_else(|| {
            self.0.push((queue, Counts::default()));
            self.0.len() - 1
        });
        self.0[place].1[event as usize] += u32::try_from(times).unwrap_or(u32::MAX);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A ring of counts.
struct Slots {
    /// The number of the newest slot.
    newest: u64,
    counts: [Counts; SLOTS],
}

impl Default for Slots {
    fn default() -> Slots {
        Slots { newest: 0, counts: [Counts::default(); SLOTS] }
    }
}

impl Slots {
    fn add(&mut self, counts: Counts, now: u64) {
        self.go_to(now);
        let slot = &mut self.counts[place(self.newest)];
        slot.iter_mut().zip(counts).for_each(|(count, more)| *count = count.saturating_add(more));
    }

    /// Makes the slot of `now` the newest one, and empties what was passed.
    fn go_to(&mut self, now: u64) {
        let slot = now / SLOT_MS;
        let first = (self.newest + 1).max((slot + 1).saturating_sub(SLOTS as u64));
        (first..=slot).for_each(|passed| self.counts[place(passed)] = Counts::default());
        self.newest = slot.max(self.newest);
    }

    /// Over the last `slots`, of which the newest is the one of `now`.
    fn per_s(&self, slots: usize, now: u64) -> PerSecond {
        let before = slots as u64 - 1;
        let length_ms = before * SLOT_MS + now.saturating_sub(self.newest * SLOT_MS);
        let per_s = |event: Event| {
            // The ring goes round: what lies before the first slot of all is empty.
            let sum: u64 = (0..slots).map(|back| u64::from(self.counts[place(self.newest + (SLOTS - back) as u64)][event as usize])).sum();
            // In ten thousandths: more digits say nothing.
            (sum as f64 * 1e7 / length_ms as f64).round() / 1e4
        };
        PerSecond {
            added: per_s(Event::Added),
            claimed: per_s(Event::Claimed),
            done: per_s(Event::Done),
            failed: per_s(Event::Failed),
            dead: per_s(Event::Dead),
        }
    }
}

fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a slot.
    const T0: u64 = 3_000_000;

    fn count(paces: &Paces, event: Event, times: usize, now: u64) {
        let mut counted = Counted::default();
        counted.add(7, event, times);
        paces.count_at(Some(1), counted, now);
    }

    #[test]
    fn a_window_begins_where_a_slot_begins_and_ends_now() {
        assert_eq!(T0 % SLOT_MS, 0);
        let paces = Paces::default();
        count(&paces, Event::Added, 90, T0);
        let added = |now| {
            let Rates { of_1m, of_5m, of_15m } = paces.rates_at(Some(1), 7, now);
            [of_1m.added, of_5m.added, of_15m.added]
        };
        assert_eq!(added(T0), [2.0, 0.3158, 0.1017]);
        assert_eq!(added(T0 + 15_000)[0], 2.0);
        assert_eq!(added(T0 + 59_000)[0], 1.5254);
        assert_eq!(added(T0 + 60_000), [0.0, 0.3158, 0.1017]);
        assert_eq!([added(T0 + 299_999)[1], added(T0 + 300_000)[1]], [0.3, 0.0]);
        assert_eq!([added(T0 + 899_999)[2], added(T0 + 900_000)[2]], [0.1, 0.0]);
    }

    #[test]
    fn what_was_passed_is_forgotten_however_long_ago_it_was() {
        let paces = Paces::default();
        count(&paces, Event::Done, 60, T0);
        count(&paces, Event::Dead, 60, T0 + 7_200_000);
        let of = |now| paces.rates_at(Some(1), 7, now).of_15m;
        assert_eq!((of(T0 + 7_200_000).done, of(T0 + 7_200_000).dead), (0.0, 0.0678));
        // A thread that looked at the clock before another one did is late by a slot at most.
        count(&paces, Event::Dead, 60, T0 + 7_199_999);
        assert_eq!(of(T0 + 7_200_000).dead, 0.1356);
        assert_eq!(of(T0 + 8_100_000).dead, 0.0);
    }

    #[test]
    fn queues_are_told_apart_and_counted_together() {
        let paces = Paces::default();
        count(&paces, Event::Claimed, 3, T0);
        let mut of_operator = Counted::default();
        of_operator.add(7, Event::Claimed, 2);
        of_operator.add(8, Event::Failed, 1);
        paces.count_at(None, of_operator, T0);
        let claimed = |owner, queue| (paces.rates_at(owner, queue, T0).of_1m.claimed * 45.0).round();
        assert_eq!([claimed(Some(1), 7), claimed(None, 7), claimed(None, 8), claimed(Some(2), 7)], [3.0, 2.0, 0.0, 0.0]);
        assert_eq!(paces.totals(), [("added", 0), ("claimed", 5), ("done", 0), ("failed", 1), ("dead", 0)]);
    }
}

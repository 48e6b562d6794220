//! A [`Tally`] is what one client thread saw: for each operation how long its answers took, and what else came back
//! instead, by code. Threads' tallies are added up at the end. [`Trouble`] is shared by all: what was wrong, and the
//! word to stop because of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::mix::Op;
use super::truth::lock;

/// The longest latency told apart, in microseconds; what took longer counts as this.
const LONGEST_US: u64 = 120_000_000;

/// Wrong answers that are told in full.
const EXAMPLES: usize = 10;

/// Why an answer was not the one hoped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// 429 or 503: the server keeps its bounds.
    Refused,
    /// Any other error, or no answer.
    Failed,
}

pub struct Tally {
    ops: Vec<OpTally>,
    /// All operations on the hot tenant, and on the others.
    pub hot: Latency,
    pub quiet: Latency,
    /// How long it took to be refused, from the asking.
    pub refused: Latency,
}

pub struct OpTally {
    pub latency: Latency,
    pub refused: BTreeMap<String, u64>,
    pub failed: BTreeMap<String, u64>,
}

/// Latencies in microseconds, to three digits.
#[derive(Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    fn new() -> Latency {
        Latency(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are constants, and in order"))
    }

    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US));
    }

    pub fn add(&mut self, other: &Latency) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Milliseconds that this share of the answers (0 to 1) took at most.
    pub fn at(&self, share: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(share) as f64 / 1e3 }
    }

    pub fn max(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

impl Default for Tally {
    fn default() -> Self {
        let op = |_| OpTally { latency: Latency::new(), refused: BTreeMap::new(), failed: BTreeMap::new() };
        Tally { ops: Op::ALL.iter().map(op).collect(), hot: Latency::new(), quiet: Latency::new(), refused: Latency::new() }
    }
}

impl Tally {
    pub fn of(&self, op: Op) -> &OpTally {
        &self.ops[op as usize]
    }

    /// `hot` tells which side of the skew it was on, where there are two.
    pub fn answered(&mut self, op: Op, took: Duration, hot: Option<bool>) {
        self.ops[op as usize].latency.record(took);
        match hot {
            Some(true) => self.hot.record(took),
            Some(false) => self.quiet.record(took),
            None => {}
        }
    }

    /// `took` counts from the asking: what was due long ago and is refused at once was refused quickly.
    pub fn missed(&mut self, op: Op, miss: Miss, code: &str, took: Duration) {
        if miss == Miss::Refused {
            self.refused.record(took);
        }
        let tally = &mut self.ops[op as usize];
        let codes = if miss == Miss::Refused { &mut tally.refused } else { &mut tally.failed };
        match codes.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                codes.insert(code.to_owned(), 1);
            }
        }
    }

    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.ops.iter_mut().zip(&other.ops) {
            mine.latency.add(&theirs.latency);
            for (mine, theirs) in [(&mut mine.refused, &theirs.refused), (&mut mine.failed, &theirs.failed)] {
                theirs.iter().for_each(|(code, count)| *mine.entry(code.clone()).or_default() += count);
            }
        }
        self.hot.add(&other.hot);
        self.quiet.add(&other.quiet);
        self.refused.add(&other.refused);
    }

    /// All operations as one.
    pub fn latency(&self) -> Latency {
        let mut all = Latency::new();
        self.ops.iter().for_each(|op| all.add(&op.latency));
        all
    }
}

/// What went wrong anywhere, and how far everybody is.
#[derive(Default)]
pub struct Trouble {
    wrong: AtomicU64,
    examples: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Trouble {
    /// An answer that is not true. The run ends.
    pub fn wrong(&self, what: String) {
        self.wrong.fetch_add(1, Relaxed);
        let mut examples = lock(&self.examples);
        if examples.len() < EXAMPLES {
            examples.push(what);
        }
        self.stop.store(true, Relaxed);
    }

    pub fn stops(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub fn count(&self) -> u64 {
        self.wrong.load(Relaxed)
    }

    pub fn examples(&self) -> Vec<String> {
        lock(&self.examples).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.answered(Op::Read, Duration::from_millis(1), Some(true));
        other.answered(Op::Read, Duration::from_millis(9), Some(false));
        other.answered(Op::Page, Duration::from_millis(2), None);
        other.missed(Op::Insert, Miss::Refused, "overloaded", Duration::from_millis(3));
        one.missed(Op::Insert, Miss::Refused, "overloaded", Duration::from_millis(1));
        one.missed(Op::Insert, Miss::Failed, "internal", Duration::ZERO);
        one.add(&other);
        assert_eq!((one.of(Op::Read).latency.count(), one.latency().count()), (2, 3));
        assert_eq!((one.hot.count(), one.quiet.count()), (1, 1));
        assert!(one.refused.count() == 2 && (one.refused.max() - 3.0).abs() < 0.02);
        assert_eq!((one.of(Op::Insert).refused["overloaded"], one.of(Op::Insert).failed["internal"]), (2, 1));
        assert!((one.latency().max() - 9.0).abs() < 0.02 && (one.of(Op::Read).latency.at(0.5) - 1.0).abs() < 0.02);
    }

    #[test]
    fn nothing_is_too_short_or_too_long_to_count() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(10_000));
        assert_eq!(latency.count(), 2);
        assert!(latency.max() >= 119_000.0, "{}", latency.max());
    }

    #[test]
    fn a_wrong_answer_stops_everybody_and_only_some_are_told() {
        let trouble = Trouble::default();
        assert!(!trouble.stops());
        (0..50).for_each(|n| trouble.wrong(n.to_string()));
        assert!(trouble.stops() && trouble.count() == 50 && trouble.examples().len() == EXAMPLES);
    }
}

//! What the databases of a process did since it started: plain counters that only rise.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub struct Counters {
    pub opens: AtomicU64,
    pub closes: AtomicU64,
    pub reads: AtomicU64,
    /// Reads that found no idle reader.
    pub waits: AtomicU64,
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Writes that shared those commits.
    pub writes: AtomicU64,
    pub checkpoints: AtomicU64,
    /// Times readers were stopped so that a log could be cut.
    pub held_back: AtomicU64,
    /// Commits that ended undecided.
    pub unknown: AtomicU64,
    /// Transactions over several requests, from the opening of their session to its end.
    pub interactive_begun: AtomicU64,
    pub interactive_ended: AtomicU64,
}

impl Counters {
    pub(super) fn grouped(&self, writes: usize) {
        self.writes.fetch_add(writes as u64, Relaxed);
    }

    /// Each counter by its name.
    pub fn all(&self) -> [(&'static str, u64); 11] {
        [
            ("opens", &self.opens),
            ("closes", &self.closes),
            ("reads", &self.reads),
            ("waits", &self.waits),
            ("transactions", &self.commits),
            ("writes", &self.writes),
            ("checkpoints", &self.checkpoints),
            ("readers_stopped", &self.held_back),
            ("unknown_commits", &self.unknown),
            ("interactive_transactions_begun", &self.interactive_begun),
            ("interactive_transactions_ended", &self.interactive_ended),
        ]
        .map(|(name, counter)| (name, counter.load(Relaxed)))
    }
}

//! A [`Gate`] counts who is inside, and closes only when nobody is. Whoever works on a tenant's files holds a
//! [`Pass`]. Its states go one way except for a fence that is lifted again:
//!
//! | state | `enter` (a new request) | `hold` (work of somebody already inside) |
//! | --- | --- | --- |
//! | open | yes | yes |
//! | fenced | no | yes |
//! | closed | no | no |
//!
//! Invariant: `closed` is reached only with nobody inside, in the same atomic step that looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;

const FENCED: u64 = 1 << 62;
const CLOSED: u64 = 1 << 63;
const INSIDE: u64 = FENCED - 1;

pub struct Gate {
    /// The two state bits, and how many are inside.
    word: AtomicU64,
    /// Told each time the last one leaves.
    empty: Notify,
}

impl Gate {
    pub fn new() -> Arc<Gate> {
        Arc::new(Gate { word: AtomicU64::new(0), empty: Notify::new() })
    }

    /// A pass for a new request, unless the gate is fenced or closed.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        self.step_in(FENCED | CLOSED)
    }

    /// A pass for work that somebody inside hands on, also behind a fence.
    pub fn hold(self: &Arc<Self>) -> Option<Pass> {
        self.step_in(CLOSED)
    }

    fn step_in(self: &Arc<Self>, barred: u64) -> Option<Pass> {
        self.word.fetch_update(SeqCst, SeqCst, |word| (word & barred == 0).then_some(word + 1)).ok()?;
        Some(Pass { gate: self.clone() })
    }

    /// Nobody new comes in from now on.
    pub fn fence(&self) {
        self.word.fetch_or(FENCED, SeqCst);
    }

    /// Lifts a fence. A closed gate stays closed.
    pub fn lift(&self) {
        self.word.fetch_and(!FENCED, SeqCst);
    }

    pub fn is_fenced(&self) -> bool {
        self.word.load(SeqCst) & FENCED != 0
    }

    /// Closes if nobody is inside; whether it was this call that did.
    pub fn try_close(&self) -> bool {
        self.word.fetch_update(SeqCst, SeqCst, |word| (word & (INSIDE | CLOSED) == 0).then_some(word | CLOSED)).is_ok()
    }

    pub fn is_closed(&self) -> bool {
        self.word.load(SeqCst) & CLOSED != 0
    }

    pub fn inside(&self) -> u64 {
        self.word.load(SeqCst) & INSIDE
    }

    /// Waits until nobody is inside, at most `wait`; whether it came to that.
    pub async fn emptied(&self, wait: Duration) -> bool {
        let drained = async {
            loop {
                let told = self.empty.notified();
                if self.inside() == 0 {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(wait, drained).await.is_ok()
    }
}

/// The right to be inside; dropping it leaves.
pub struct Pass {
    gate: Arc<Gate>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.gate.word.fetch_sub(1, SeqCst) & INSIDE == 1 {
            self.gate.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_only_when_nobody_is_inside_and_then_for_good() {
        let gate = Gate::new();
        let request = gate.enter().unwrap();
        assert!(!gate.try_close());
        gate.fence();
        assert!(gate.enter().is_none());
        let job = gate.hold().unwrap();
        drop((request, job));
        gate.lift();
        assert!(gate.enter().is_some());
        assert!(gate.try_close());
        gate.lift();
        assert!(gate.enter().is_none() && gate.hold().is_none());
    }
}

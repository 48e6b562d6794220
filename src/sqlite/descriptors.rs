//! The budget of file descriptors that all open databases share. Who opens a file takes its descriptors
//! first and gives them back when it is closed; [`DescriptorBudget::room`] waits for others to do so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Notify;

/// What an open file holds, however many connections it has: the database, its log and the log's index.
pub const FILE_DESCRIPTORS: u64 = 3;

/// Descriptors kept for sockets, logs and the like when the budget is derived.
const RESERVED: u64 = 512;

pub struct DescriptorBudget {
    used: AtomicU64,
    max: u64,
    freed: Notify,
}

/// Descriptors taken from the budget; given back when dropped.
pub struct Descriptors {
    budget: Arc<DescriptorBudget>,
    taken: u64,
    held: Arc<AtomicU64>,
}

impl DescriptorBudget {
    /// Of `max` descriptors; 0: what the process may have, with its soft limit raised to the hard one.
    pub fn new(max: u64) -> Arc<DescriptorBudget> {
        let max = if max > 0 { max } else { derived() };
        Arc::new(DescriptorBudget { used: AtomicU64::new(0), max, freed: Notify::new() })
    }

    /// (in use, the most there are)
    pub fn state(&self) -> (u64, u64) {
        (self.used.load(SeqCst), self.max)
    }

    /// Takes `wanted` if there are as many. `held` counts what one owner has.
    pub fn take(self: &Arc<Self>, wanted: u64, held: &Arc<AtomicU64>) -> Option<Descriptors> {
        let fits = |used: u64| (used + wanted <= self.max).then_some(used + wanted);
        self.used.fetch_update(SeqCst, SeqCst, fits).ok()?;
        held.fetch_add(wanted, SeqCst);
        Some(Descriptors { budget: self.clone(), taken: wanted, held: held.clone() })
    }

    /// Waits until there are as many.
    pub async fn room(self: &Arc<Self>, wanted: u64, held: &Arc<AtomicU64>) -> Descriptors {
        loop {
            let freed = self.freed.notified();
            match self.take(wanted, held) {
                Some(taken) => return taken,
                None => freed.await,
            }
        }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.taken, SeqCst);
        self.held.fetch_sub(self.taken, SeqCst);
        self.budget.freed.notify_waiters();
    }
}

fn derived() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { now.maximum } else { now.current };
    // No limit at all is treated as a million: enough for 100,000 tenants.
    let limit = limit.unwrap_or(1 << 20);
    limit.saturating_sub(RESERVED).max(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_room_gets_what_another_gives_back() {
        let budget = DescriptorBudget::new(5);
        let held = Arc::new(AtomicU64::new(0));
        let first = budget.take(4, &held).unwrap();
        assert!(budget.take(2, &held).is_none());
        let give_back = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (second, ()) = tokio::join!(budget.room(2, &held), give_back);
        assert_eq!((budget.state(), held.load(SeqCst)), ((2, 5), 2));
        drop(second);
        assert_eq!(budget.state().0, 0);
    }
}

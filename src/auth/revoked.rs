//! [`Revoked`]: the ids of tokens that were taken back before they expired. It is asked on every verification,
//! of remembered tokens too, so a revocation acts at once. It mirrors what the system database has; the caller
//! loads it at start.
//!
//! Bound: one entry (24 bytes) for each revoked token that has not expired yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use uuid::Uuid;

/// Entries before the first sweep for expired ones.
const SWEEP_MIN: usize = 1_024;

#[derive(Default)]
pub struct Revoked {
    state: RwLock<State>,
    /// How many entries there are, so that the usual case of none takes no lock.
    count: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// `jti` → the second after which the token is refused anyway.
    until: HashMap<Uuid, i64>,
    /// How many entries the last sweep left.
    swept_to: usize,
}

impl Revoked {
    /// Refuses `jti` until `until` (seconds since the epoch: the token's `exp` and the leeway).
    pub fn add(&self, jti: Uuid, until: i64, now: i64) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if until > now {
            state.until.insert(jti, until);
        }
        // Sweeping only when the set has doubled keeps the cost of each `add` constant on average.
        if state.until.len() >= SWEEP_MIN.max(2 * state.swept_to) {
            state.until.retain(|_, until| *until > now);
            state.swept_to = state.until.len();
        }
        self.count.store(state.until.len(), Ordering::Release);
    }

    pub fn has(&self, jti: Uuid) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.state.read().unwrap_or_else(PoisonError::into_inner).until.contains_key(&jti)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_id_stays_until_its_token_has_expired_and_the_set_does_not_grow_for_ever() {
        let revoked = Revoked::default();
        let kept = Uuid::now_v7();
        revoked.add(kept, 1_000_000, 0);
        for now in 0..100_000 {
            revoked.add(Uuid::now_v7(), now + 10, now);
        }
        assert!(revoked.has(kept));
        assert!(!revoked.has(Uuid::now_v7()));
        assert!(revoked.count.load(Ordering::Acquire) <= SWEEP_MIN);
        let late = Uuid::now_v7();
        revoked.add(late, 5, 10);
        assert!(!revoked.has(late));
    }
}

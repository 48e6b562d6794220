//! [`Failing`] remembers for whom something could not be done the last times, so that it is tried ever more seldom: a damaged
//! file stays damaged until somebody mends it. What else is due for the tenant is not put off by it, nor is who asks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::clock::Millis;

/// After the first attempt that failed, in milliseconds; twice as long after each further one.
const FIRST_MS: Millis = 15_000;

/// At most, in milliseconds.
const LONGEST_MS: Millis = 300_000;

/// Tenants remembered; further ones are tried again after [`FIRST_MS`] each time.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Failing(Mutex<HashMap<Uuid, Failed>>);

struct Failed {
    wait_ms: Millis,
    until: Millis,
}

impl Failing {
    /// It failed (again): when to try next. A failure before that time is the same one.
    pub fn again_at(&self, tenant: Uuid, now: Millis) -> Millis {
        let mut all = self.all();
        if all.len() >= REMEMBERED_MAX && !all.contains_key(&tenant) {
            return now + FIRST_MS;
        }
        let failed = all.entry(tenant).or_insert(Failed { wait_ms: FIRST_MS / 2, until: Millis::MIN });
        if failed.until <= now {
            failed.wait_ms = LONGEST_MS.min(2 * failed.wait_ms);
            failed.until = now + failed.wait_ms;
        }
        failed.until
    }

    /// When to try next, of what failed the last time.
    pub fn until(&self, tenant: Uuid) -> Option<Millis> {
        self.all().get(&tenant).map(|failed| failed.until)
    }

    /// It did not fail.
    pub fn over(&self, tenant: Uuid) {
        self.all().remove(&tenant);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_bound_until_something_works() {
        let (failing, tenant, other) = (Failing::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        let mut now = 0;
        for wait_s in [15, 30, 60, 120, 240, 300, 300] {
            assert_eq!((failing.again_at(tenant, now), failing.again_at(tenant, now + 1)), (now + wait_s * 1_000, now + wait_s * 1_000));
            now += wait_s * 1_000;
        }
        assert_eq!((failing.until(tenant), failing.until(other)), (Some(now), None));
        assert_eq!(failing.again_at(other, 0), FIRST_MS);
        failing.over(tenant);
        assert_eq!((failing.until(tenant), failing.again_at(tenant, 0)), (None, FIRST_MS));
    }

    #[test]
    fn a_bounded_number_of_tenants_is_remembered() {
        let failing = Failing::default();
        for tenant in 0..=REMEMBERED_MAX as u128 {
            assert_eq!(failing.again_at(Uuid::from_u128(tenant), 0), FIRST_MS);
        }
        assert_eq!(failing.all().len(), REMEMBERED_MAX);
    }
}

//! A [`Rate`] is how fast a tenant has been asking, as one number: the instant at which its requests so far would
//! all have been due (GCRA's theoretical arrival time). A request may come early by at most the burst. Nothing
//! is stored of the plan, so a change of plan acts on the next request, and what was spent stays spent.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::Plan;
use crate::error::{Code, Error, Result};

const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub struct Rate {
    /// Nanoseconds of this process's clock.
    due: AtomicU64,
}

impl Rate {
    /// Lets one request of a tenant with this plan in, or says how long to wait.
    pub fn admit(&self, plan: &Plan) -> Result<()> {
        if plan.requests_per_s == 0 {
            return Ok(());
        }
        self.take(since_start(), plan.requests_per_s, plan.burst).map_err(|wait| {
            Error::new(Code::TooManyRequests, format!("more than the plan's {} requests a second", plan.requests_per_s))
                .hint("Wait as long as `Retry-After` says, or ask for a larger plan.")
                .retry_after(wait)
        })
    }

    /// A burst of 0 stands for one second's worth.
    fn take(&self, now: u64, per_s: u32, burst: u32) -> Result<(), Duration> {
        let step = (SECOND / u64::from(per_s)).max(1);
        let early = step.saturating_mul(u64::from(if burst == 0 { per_s } else { burst }));
        let latest = now + early;
        // What a larger plan allowed may lie further ahead than this plan ever lets it: it counts as a full burst.
        let next = |due: u64| due.clamp(now, latest) + step;
        let moved = |due: u64| if next(due) <= latest { next(due) } else { due.min(latest) };
        let due = match self.due.fetch_update(Relaxed, Relaxed, |due| Some(moved(due))) {
            Ok(due) | Err(due) => due,
        };
        if next(due) <= latest { Ok(()) } else { Err(Duration::from_nanos(next(due) - latest)) }
    }
}

fn since_start() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests let in at `now`, of `asked`.
    fn admitted(rate: &Rate, now: u64, per_s: u32, burst: u32, asked: u32) -> u32 {
        (0..asked).filter(|_| rate.take(now, per_s, burst).is_ok()).count() as u32
    }

    #[test]
    fn a_burst_comes_at_once_and_then_the_rate_bites() {
        let rate = Rate::default();
        assert_eq!(admitted(&rate, 5 * SECOND, 10, 3, 100), 3);
        assert_eq!(rate.take(5 * SECOND, 10, 3), Err(Duration::from_millis(100)));
        assert_eq!(admitted(&rate, 5 * SECOND + SECOND / 10, 10, 3, 100), 1);
        assert_eq!(admitted(&rate, 60 * SECOND, 10, 3, 100), 3);
    }

    #[test]
    fn over_time_it_is_the_rate() {
        let rate = Rate::default();
        let ms = SECOND / 1_000;
        let let_in: u32 = (0..10_000).map(|at| admitted(&rate, at * ms, 50, 5, 1)).sum();
        assert!((500..=506).contains(&let_in), "{let_in}");
    }

    #[test]
    fn no_burst_means_a_second_s_worth() {
        assert_eq!(admitted(&Rate::default(), 0, 7, 0, 100), 7);
    }

    #[test]
    fn a_smaller_plan_acts_at_once_and_does_not_lock_out() {
        let rate = Rate::default();
        assert_eq!(admitted(&rate, 0, 1, 1_000, 2_000), 1_000);
        assert_eq!(rate.take(0, 10, 1), Err(Duration::from_millis(100)));
        assert_eq!(admitted(&rate, SECOND / 10, 10, 1, 100), 1);
    }
}

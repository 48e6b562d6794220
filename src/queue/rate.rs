//! A rate: at most so many jobs of a queue with the same key are handed out in each window of time, a second for a whole
//! number of jobs a second. A job that comes too early is put off to the first window with a place, so it is looked at
//! again once, not over and over; a put-off place is a promise to look, not to hand out.

use rusqlite::params;

use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::WriteTx;

/// Rates let go of with each new one.
const PRUNED: i64 = 8;

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PutOff {
    pub until: Millis,
}

/// What is used up of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    window_at: Millis,
    taken: i64,
    put_off_to: Millis,
    put_off: i64,
}

impl Used {
    /// One more at `now`, if it may be.
    fn take(&mut self, per_s: f64, now: Millis) -> Result<(), PutOff> {
        let quota = per_s.ceil().max(1.0);
        let length = ((1_000.0 * quota / per_s).round() as Millis).max(1);
        let (quota, window_at) = (quota as i64, now - now % length);
        if self.window_at != window_at {
            (self.window_at, self.taken) = (window_at, 0);
        }
        if self.taken < quota {
            self.taken += 1;
            return Ok(());
        }
        if self.put_off_to <= window_at {
            (self.put_off_to, self.put_off) = (window_at + length, 0);
        } else if self.put_off >= quota {
            (self.put_off_to, self.put_off) = (self.put_off_to + length, 0);
        }
        self.put_off += 1;
        Err(PutOff { until: self.put_off_to })
    }
}

/// Counts one job under the rate, or says when to look at it again.
pub(super) fn take(tx: &WriteTx<'_>, queue: i64, key: &str, per_s: f64, now: Millis) -> Result<Result<(), PutOff>> {
    let read =
        |row: &rusqlite::Row<'_>| Ok(Used { window_at: row.get(0)?, taken: row.get(1)?, put_off_to: row.get(2)?, put_off: row.get(3)? });
    let known = tx.row(USED, params![queue, key], read)?;
    let mut used = known.unwrap_or_default();
    let taken = used.take(per_s, now);
    if known.is_none() {
        // What nobody asked for in a day has nothing left to count.
        tx.execute(PRUNE, params![now - 86_400_000, PRUNED])?;
    }
    tx.execute(KEEP, params![queue, key, used.window_at, used.taken, used.put_off_to, used.put_off])?;
    Ok(taken)
}

const USED: &str = "SELECT window_at, taken, put_off_to, put_off FROM rates WHERE queue = ?1 AND key = ?2";

const KEEP: &str = "INSERT OR REPLACE INTO rates (queue, key, window_at, taken, put_off_to, put_off) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const PRUNE: &str = "DELETE FROM rates WHERE (queue, key) IN
     (SELECT queue, key FROM rates INDEXED BY rates_age WHERE window_at < ?1 ORDER BY window_at LIMIT ?2)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_its_places_and_the_rest_are_spread_over_the_next_ones() {
        let mut used = Used::default();
        let at = |used: &mut Used, now| used.take(2.0, now).map_err(|put_off| put_off.until);
        let now = 5_000_300;
        let first: Vec<_> = (0..7).map(|_| at(&mut used, now)).collect();
        assert_eq!(first, [Ok(()), Ok(()), Err(5_001_000), Err(5_001_000), Err(5_002_000), Err(5_002_000), Err(5_003_000)]);
        assert_eq!([at(&mut used, 5_001_000), at(&mut used, 5_001_999), at(&mut used, 5_001_999)], [Ok(()), Ok(()), Err(5_003_000)]);
    }

    #[test]
    fn what_is_no_whole_number_a_second_has_longer_windows() {
        let mut used = Used::default();
        assert_eq!([used.take(0.1, 20_000), used.take(0.1, 29_999)], [Ok(()), Err(PutOff { until: 30_000 })]);
        assert_eq!(used.take(0.1, 30_000), Ok(()));
    }
}

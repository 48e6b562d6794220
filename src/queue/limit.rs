//! A limit: at most so many jobs of a queue with the same key are leased at once. They are counted from the leases
//! themselves, so a place cannot leak. Who is over the limit is `blocked`, out of the claims' way, until one is let go.

use std::collections::HashMap;

use rusqlite::params;

use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::WriteTx;

/// How many of the queue are leased under each limit that the claim has met: read off the index once for each.
#[derive(Default)]
pub(super) struct Limits(HashMap<String, Leased>);

#[derive(Clone, Copy)]
struct Leased {
    count: i64,
    /// It was not cut short at the `max` of whoever asked first.
    is_exact: bool,
}

impl Limits {
    /// Whether fewer than `max` are leased.
    pub fn admit(&mut self, tx: &WriteTx<'_>, queue: i64, key: &str, max: i64, now: Millis) -> Result<bool> {
        if let Some(leased) = self.0.get(key)
            && (leased.is_exact || leased.count >= max)
        {
            return Ok(leased.count < max);
        }
        let count = tx.rows(RUNNING, params![queue, key, now, max], |_| Ok(()))?.len() as i64;
        self.0.insert(key.to_owned(), Leased { count, is_exact: count < max });
        Ok(count < max)
    }

    /// One more.
    pub fn took(&mut self, key: &str) {
        if let Some(leased) = self.0.get_mut(key) {
            leased.count += 1;
        }
    }
}

/// The best of the jobs that this limit holds back is ready again; whether there was one. Whether the limit has a place for
/// it is looked at when it is claimed.
pub(super) fn unblock(tx: &WriteTx<'_>, queue: i64, limit_key: &str, now: Millis) -> Result<bool> {
    Ok(tx.execute(UNBLOCK, params![queue, limit_key, now])? > 0)
}

pub(super) const RUNNING: &str = "SELECT 1 FROM jobs INDEXED BY jobs_limited
     WHERE state = 4 AND limit_key IS NOT NULL AND queue = ?1 AND limit_key = ?2 AND lease_until > ?3 LIMIT ?4";

pub(super) const UNBLOCK: &str = "UPDATE jobs SET state = 2, since = ?3 WHERE seq =
     (SELECT seq FROM jobs INDEXED BY jobs_blocked WHERE state = 3 AND queue = ?1 AND limit_key = ?2 ORDER BY priority DESC, seq LIMIT 1)";

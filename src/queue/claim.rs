//! A [`Claim`] hands ready jobs to a worker for a while. First come the jobs that became ready by the passing
//! of time alone (a delay is over, a lease ended), in bounded steps; then the best ones are leased. Every
//! statement walks one partial index in its order: none scans, none sorts, whatever else the file holds.

use rusqlite::params;
use uuid::Uuid;

use super::job::within;
use super::{DEAD_KEPT_MS, JobId, QUEUE, QueueName};
use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::WriteTx;

/// The most jobs in one claim.
pub const CLAIM_MAX: i64 = 100;

/// The longest lease, in seconds: twelve hours.
pub const LEASE_MAX_S: i64 = 43_200;

/// Payload bytes in one claim, past which it hands out fewer jobs than asked for; one job always fits.
pub const CLAIM_BYTES: i64 = 4 << 20;

/// Jobs that one claim moves to `ready` because they fell due, and as many again because their lease ended.
/// Not less than [`CLAIM_MAX`], so that what is due is never held back from a claim that has room for it.
pub const STAGED: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    max: i64,
    lease_ms: Millis,
}

/// A job in a worker's hands.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub id: JobId,
    /// 1 for the first try.
    pub attempt: i64,
    /// Finishes the job, until `lease_until`.
    pub lease_token: Uuid,
    pub lease_until: Millis,
    /// JSON, byte for byte as it was enqueued.
    pub payload: Vec<u8>,
}

impl Claimed {
    pub fn enqueued_at(&self) -> Millis {
        self.id.created_at()
    }
}

impl Claim {
    /// At most `max` jobs for `lease_s` seconds. Errors: `bad_request` outside 1 to [`CLAIM_MAX`] and 1 to
    /// [`LEASE_MAX_S`].
    pub fn new(max: i64, lease_s: i64) -> Result<Claim> {
        let lease_ms = within("lease_s", lease_s, 1, LEASE_MAX_S)? * 1_000;
        Ok(Claim { max: within("max", max, 1, CLAIM_MAX)?, lease_ms })
    }
}

pub(super) fn claim(tx: &WriteTx<'_>, queue: &QueueName, claim: Claim, now: Millis) -> Result<Vec<Claimed>> {
    let Some(queue) = tx.row(QUEUE, [queue.as_str()], |row| row.get::<_, i64>(0))? else { return Ok(Vec::new()) };
    if tx.row(ANY_DUE, params![queue, now], |_| Ok(()))?.is_some() {
        tx.execute(STAGE_DUE, params![queue, now, STAGED])?;
    }
    if tx.row(ANY_ENDED, params![queue, now], |_| Ok(()))?.is_some() {
        tx.execute(TAKE_BACK, params![queue, now, STAGED, now + DEAD_KEPT_MS])?;
    }
    let candidate = |row: &rusqlite::Row<'_>| Ok((JobId::of(row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?, row.get(4)?));
    let candidates: Vec<(JobId, i64, i64)> = tx.rows(BEST, params![queue, claim.max], candidate)?;

    let lease_until = now + claim.lease_ms;
    let mut claimed = Vec::with_capacity(candidates.len());
    let mut bytes = 0;
    for (id, attempts, size) in candidates {
        bytes += size;
        if bytes > CLAIM_BYTES && !claimed.is_empty() {
            break;
        }
        let lease_token = Uuid::new_v4();
        tx.execute(LEASE, params![id.seq(), lease_token.as_bytes(), lease_until, now])?;
        let payload = tx.row(PAYLOAD, [id.seq()], |row| row.get(0))?.unwrap_or_default();
        claimed.push(Claimed { id, attempt: attempts + 1, lease_token, lease_until, payload });
    }
    Ok(claimed)
}

// The indexes are named so that statistics can never talk SQLite into another plan. The numbers are the states of
// `jobs.state`, written out so that SQLite sees the partial index's own condition.

const ANY_DUE: &str = "SELECT 1 FROM jobs INDEXED BY jobs_due WHERE state = 1 AND queue = ?1 AND due_at <= ?2 LIMIT 1";

const STAGE_DUE: &str = "UPDATE jobs SET state = 2, updated_at = ?2 WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_due WHERE state = 1 AND queue = ?1 AND due_at <= ?2
      ORDER BY due_at LIMIT ?3)";

const ANY_ENDED: &str = "SELECT 1 FROM jobs INDEXED BY jobs_running WHERE state = 4 AND queue = ?1 AND lease_until <= ?2 LIMIT 1";

const TAKE_BACK: &str = "UPDATE jobs SET lease_token = NULL, lease_until = NULL, updated_at = ?2,
     state = CASE WHEN attempt < max_attempts THEN 2 ELSE 11 END,
     keep_until = CASE WHEN attempt < max_attempts THEN NULL ELSE ?4 END
     WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_running WHERE state = 4 AND queue = ?1 AND lease_until <= ?2
      ORDER BY lease_until LIMIT ?3)";

/// `length` of a BLOB reads the row's header, not its overflow pages.
const BEST: &str = "SELECT j.created_at, j.seq, j.salt, j.attempt, length(b.payload)
     FROM jobs j INDEXED BY jobs_ready CROSS JOIN job_bodies b ON b.seq = j.seq
     WHERE j.state = 2 AND j.queue = ?1 ORDER BY j.priority DESC, j.seq LIMIT ?2";

const LEASE: &str = "UPDATE jobs SET state = 4, attempt = attempt + 1, lease_token = ?2, lease_until = ?3, updated_at = ?4
     WHERE seq = ?1";

const PAYLOAD: &str = "SELECT payload FROM job_bodies WHERE seq = ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::schema;

    fn plan(conn: &rusqlite::Connection, sql: &str) -> Vec<String> {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let params = vec![rusqlite::types::Null; statement.parameter_count()];
        let rows = statement.query_map(rusqlite::params_from_iter(params), |row| row.get(3)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_claim_never_scans_nor_sorts() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        for step in schema().tenant_queue.iter().flat_map(|set| &set.steps) {
            conn.execute_batch(&step.up.sql).unwrap();
        }
        use super::super::{CLEAR, FIND, FINISH, PRUNE_DEAD, PRUNE_DONE};
        for sql in [QUEUE, ANY_DUE, STAGE_DUE, ANY_ENDED, TAKE_BACK, BEST, LEASE, PAYLOAD, PRUNE_DEAD, PRUNE_DONE, FIND, FINISH, CLEAR] {
            for step in plan(&conn, sql) {
                assert!(!step.contains("SCAN") && !step.contains("TEMP B-TREE"), "{step} in {sql}");
            }
        }
        assert!(plan(&conn, BEST).iter().any(|step| step.contains("jobs_ready (queue=?)")));
        assert!(plan(&conn, STAGE_DUE).iter().any(|step| step.contains("jobs_due (queue=? AND due_at<?)")));
        assert!(plan(&conn, TAKE_BACK).iter().any(|step| step.contains("jobs_running (queue=? AND lease_until<?)")));
        assert!(plan(&conn, PRUNE_DONE).iter().any(|step| step.contains("jobs_finished (state=? AND queue=? AND keep_until<?)")));
    }

    #[test]
    fn a_claim_has_a_bounded_number_and_a_bounded_lease() {
        assert!(Claim::new(1, 1).is_ok() && Claim::new(CLAIM_MAX, LEASE_MAX_S).is_ok());
        for (max, lease_s) in [(0, 1), (-1, 1), (101, 1), (1, 0), (1, -1), (1, 43_201), (i64::MIN, i64::MAX)] {
            assert!(Claim::new(max, lease_s).is_err(), "{max} {lease_s}");
        }
    }
}

//! A [`Claim`] hands ready jobs to a worker for a while. First come the jobs that time alone has moved (a delay is over,
//! a lease ended, a time to live is over), in bounded steps; then the best ones are leased. Every statement walks one
//! partial index in its order: none scans, none sorts, whatever else the file holds.
//!
//! Groups take turns: the index of grouped jobs is a ring of groups, each with its best job first, and the queue
//! remembers whose turn was last. The jobs of no group are one group of the ring.

use rusqlite::{Row, params};
use uuid::Uuid;

use super::history::prune;
use super::job::within;
use super::limit::Limits;
use super::pace::Event;
use super::rate::{self, PutOff};
use super::stage::{Over, STAGED, stage};
use super::wait::Bell;
use super::workflow::Waits;
use super::{JobId, QueueName, lease};
use crate::clock::Millis;
use crate::error::{Error, Result};
use crate::sqlite::WriteTx;

/// The most jobs in one claim.
pub const CLAIM_MAX: i64 = 100;

/// The most queues in one claim.
pub const QUEUES_MAX: usize = 16;

/// The longest lease, in seconds: twelve hours.
pub const LEASE_MAX_S: i64 = 43_200;

/// Payload bytes in one claim, past which it hands out fewer jobs than asked for; one job always fits.
pub const CLAIM_BYTES: i64 = 4 << 20;

/// A payload of at most so many bytes is read with its job.
const SMALL: i64 = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    max: i64,
    lease_ms: Millis,
    /// The server works on the jobs itself.
    own: bool,
}

/// What a claim came to.
#[derive(Debug, Default)]
pub struct Found {
    pub jobs: Vec<Claimed>,
    /// Without jobs: when the next one may be there by the passing of time.
    pub next_at: Option<Millis>,
    /// It stopped before it had seen all that is ready.
    pub(super) unfinished: bool,
    bytes: i64,
}

/// A job in a worker's hands.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub id: JobId,
    pub queue: QueueName,
    /// 1 for the first try.
    pub attempt: i64,
    /// Finishes the job, until `lease_until`.
    pub lease_token: Uuid,
    pub lease_until: Millis,
    /// `None` for JSON.
    pub payload_type: Option<String>,
    /// Byte for byte as it was enqueued.
    pub payload: Vec<u8>,
    /// What became of the jobs that it waited for, if it did.
    pub waited_for: Option<Waits>,
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
        Ok(Claim { max: within("max", max, 1, CLAIM_MAX)?, lease_ms, own: false })
    }

    /// The server's own, within bounds that the caller has kept.
    pub(super) fn own(max: usize, lease_ms: Millis) -> Claim {
        Claim { max: max as i64, lease_ms, own: true }
    }
}

/// A queue as a claim meets it.
struct Line {
    queue: i64,
    paused: bool,
    any_grouped: bool,
    over: Over,
}

/// A queue that a claim takes jobs from.
struct Taking<'a> {
    name: &'a QueueName,
    queue: i64,
    claim: Claim,
    limits: Limits,
    now: Millis,
}

/// A job that may be leased, unless its limit says no.
struct Candidate {
    id: JobId,
    attempt: i64,
    limit: Option<(String, i64)>,
    rate: Option<(String, f64)>,
    group: Option<String>,
    bytes: i64,
    timeout_ms: Option<Millis>,
    payload_type: Option<String>,
    /// Of at most [`SMALL`] bytes; a larger one is read when it is handed out.
    payload: Option<Vec<u8>>,
    waited_for: Option<Waits>,
}

pub(super) fn claim(tx: &WriteTx<'_>, queues: &[QueueName], claim: Claim, bell: &mut Bell, now: Millis) -> Result<Found> {
    let (mut found, mut untold) = (Found::default(), false);
    for name in queues {
        let line = |row: &Row<'_>| {
            Ok(Line {
                queue: row.get(0)?,
                paused: row.get(1)?,
                any_grouped: row.get(5)?,
                over: Over { delays: row.get(2)?, leases: row.get(3)?, lives: row.get(4)?, waits: row.get(6)? },
            })
        };
        let Some(line) = tx.row(LINE, params![name.as_str(), now], line)? else { continue };
        untold |= stage(tx, name, line.queue, &line.over, bell, now)?;
        if line.paused {
            continue;
        }
        let before = found.jobs.len();
        let mut taking = Taking { name, queue: line.queue, claim, limits: Limits::default(), now };
        if line.any_grouped || (line.over.delays || line.over.leases) && tx.row(ANY_GROUPED, [line.queue], |_| Ok(()))?.is_some() {
            taking.turns(tx, &mut found)?;
        } else {
            taking.best(tx, &mut found)?;
        }
        bell.count(line.queue, Event::Claimed, found.jobs.len() - before);
        // A job's own `timeout_s` may end its lease sooner than the claim asked for.
        if let Some(ends) = found.jobs[before..].iter().map(|job| job.lease_until).min() {
            bell.ring(name, ends, now);
        }
        if found.unfinished {
            found.next_at = Some(now);
        }
        if found.jobs.len() as i64 >= claim.max || found.unfinished {
            break;
        }
        if found.jobs.is_empty() {
            let next = tx.row(NEXT, [line.queue], |row| Ok([row.get::<_, Option<Millis>>(0)?, row.get(1)?]))?;
            found.next_at = next.into_iter().flatten().flatten().chain(found.next_at).min();
            // Who finds nothing has the time.
            prune(tx, line.queue, Uuid::new_v4().as_u128() as u32, bell, now)?;
        }
    }
    if untold {
        (found.unfinished, found.next_at) = (true, Some(now));
    }
    Ok(found)
}

impl Taking<'_> {
    /// From a queue without groups.
    fn best(&mut self, tx: &WriteTx<'_>, found: &mut Found) -> Result<()> {
        let mut blocked = 0;
        loop {
            let most = self.claim.max - found.jobs.len() as i64;
            let candidates = tx.rows(BEST, params![self.queue, most, SMALL], candidate)?;
            let (seen, mut held_back) = (candidates.len() as i64, false);
            for candidate in candidates {
                match self.take(tx, candidate, found)? {
                    Taken::Leased => {}
                    Taken::Blocked => (blocked, held_back) = (blocked + 1, true),
                    Taken::NoRoom => return Ok(()),
                }
            }
            if seen < most || !held_back {
                return Ok(());
            }
            if blocked >= STAGED {
                found.unfinished = true;
                return Ok(());
            }
        }
    }

    /// From a queue with groups: one of each in turn.
    fn turns(&mut self, tx: &WriteTx<'_>, found: &mut Found) -> Result<()> {
        let before: String = tx.row(TURN, [self.queue], |row| row.get(0))?.unwrap_or_default();
        let (mut turn, mut blocked, mut passes) = (before.clone(), 0, 0);
        while (found.jobs.len() as i64) < self.claim.max {
            let next = match tx.row(NEXT_GROUP, params![self.queue, turn, SMALL], candidate)? {
                Some(next) => Some(next),
                // Round the ring: the jobs of no group, then the first group again.
                None => {
                    passes += 1;
                    turn.clear();
                    tx.row(BEST, params![self.queue, 1, SMALL], candidate)?
                }
            };
            let Some(next) = next else {
                if passes > 1 {
                    break;
                }
                continue;
            };
            passes = 0;
            turn = next.group.clone().unwrap_or_default();
            match self.take(tx, next, found)? {
                Taken::Leased => {}
                Taken::Blocked => blocked += 1,
                Taken::NoRoom => break,
            }
            if blocked >= STAGED {
                found.unfinished = true;
                break;
            }
        }
        if turn != before {
            tx.execute(SET_TURN, params![self.queue, turn])?;
        }
        Ok(())
    }

    fn take(&mut self, tx: &WriteTx<'_>, job: Candidate, found: &mut Found) -> Result<Taken> {
        let (queue, now) = (self.queue, self.now);
        let Candidate { id, attempt, bytes, payload_type, waited_for, .. } = job;
        if let Some((key, max)) = &job.limit
            && !self.limits.admit(tx, queue, key, *max, now)?
        {
            tx.execute(BLOCK, params![id.seq(), now])?;
            return Ok(Taken::Blocked);
        }
        if found.bytes + bytes > CLAIM_BYTES && !found.jobs.is_empty() {
            return Ok(Taken::NoRoom);
        }
        if let Some((key, per_s)) = &job.rate
            && let Err(PutOff { until }) = rate::take(tx, queue, key, *per_s, now)?
        {
            tx.execute(PUT_OFF, params![id.seq(), until, now])?;
            return Ok(Taken::Blocked);
        }
        found.bytes += bytes;
        let lease_token = lease::new_token(self.claim.own);
        let lease_until = now + job.timeout_ms.map_or(self.claim.lease_ms, |timeout| timeout.min(self.claim.lease_ms));
        tx.execute(LEASE, params![id.seq(), lease_token.as_bytes(), lease_until, now])?;
        if let Some((key, _)) = &job.limit {
            self.limits.took(key);
        }
        let payload = match job.payload {
            Some(payload) => Some(payload),
            None => tx.row(PAYLOAD, [id.seq()], |row| row.get(0))?,
        };
        let payload = payload.ok_or_else(|| Error::internal("a job has no body", &id))?;
        let (queue, attempt) = (self.name.clone(), attempt + 1);
        found.jobs.push(Claimed { id, queue, attempt, lease_token, lease_until, payload_type, payload, waited_for });
        Ok(Taken::Leased)
    }
}

enum Taken {
    Leased,
    /// Over its limit or its rate: out of the way until another one is done, or for a while.
    Blocked,
    /// The answer is full.
    NoRoom,
}

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    Ok(Candidate {
        id: JobId::of(row.get(0)?, row.get(1)?, row.get(2)?),
        attempt: row.get(3)?,
        bytes: row.get(4)?,
        timeout_ms: row.get(5)?,
        limit: row.get::<_, Option<String>>(6)?.zip(row.get(7)?),
        group: row.get(8)?,
        rate: row.get::<_, Option<String>>(9)?.zip(row.get(10)?),
        payload_type: row.get(11)?,
        payload: row.get(12)?,
        waited_for: Waits::read(row, 13)?,
    })
}

// The indexes are named so that statistics can never talk SQLite into another plan. The numbers are the states of
// `jobs.state`, written out so that SQLite sees the partial index's own condition.

const LINE: &str = "SELECT queue, paused_at IS NOT NULL,
     EXISTS (SELECT 1 FROM jobs j INDEXED BY jobs_due WHERE j.state = 1 AND j.queue = q.queue AND j.due_at <= ?2),
     EXISTS (SELECT 1 FROM jobs j INDEXED BY jobs_running WHERE j.state = 4 AND j.queue = q.queue AND j.lease_until <= ?2),
     EXISTS (SELECT 1 FROM jobs j INDEXED BY jobs_expiring WHERE j.state < 4 AND j.queue = q.queue AND j.expires_at <= ?2),
     EXISTS (SELECT 1 FROM jobs j INDEXED BY jobs_grouped WHERE j.state = 2 AND j.group_key IS NOT NULL AND j.queue = q.queue),
     EXISTS (SELECT 1 FROM job_endings WHERE seq > 0)
     FROM queues q WHERE name = ?1";

const ANY_GROUPED: &str = "SELECT 1 FROM jobs INDEXED BY jobs_grouped WHERE state = 2 AND group_key IS NOT NULL AND queue = ?1 LIMIT 1";

const NEXT: &str = "SELECT
     (SELECT due_at FROM jobs INDEXED BY jobs_due WHERE state = 1 AND queue = ?1 ORDER BY due_at LIMIT 1),
     (SELECT lease_until FROM jobs INDEXED BY jobs_running WHERE state = 4 AND queue = ?1 ORDER BY lease_until LIMIT 1)";

/// What a [`Candidate`] is read from, of `jobs j` beside its body. `length` of a BLOB reads the row's header, not its overflow
/// pages.
macro_rules! candidates {
    ($group:literal, $from:literal) => {
        concat!(
            "SELECT j.created_at, j.seq, j.salt, j.attempt, length(b.payload), b.timeout_ms, j.limit_key, j.limit_max, ",
            $group,
            ", j.rate_key, j.rate_per_s, b.payload_type, CASE WHEN length(b.payload) <= ?3 THEN b.payload END,
                 w.jobs, w.done, w.dead, w.cancelled, w.expired FROM ",
            $from
        )
    };
}

const BEST: &str = candidates!(
    "NULL",
    "jobs j INDEXED BY jobs_ready CROSS JOIN job_bodies b ON b.seq = j.seq LEFT JOIN job_waits w ON w.seq = j.seq
     WHERE j.state = 2 AND j.group_key IS NULL AND j.queue = ?1 ORDER BY j.priority DESC, j.seq LIMIT ?2"
);

/// The best job of the group after this one.
const NEXT_GROUP: &str = candidates!(
    "j.group_key",
    "jobs j INDEXED BY jobs_grouped CROSS JOIN job_bodies b ON b.seq = j.seq LEFT JOIN job_waits w ON w.seq = j.seq
     WHERE j.state = 2 AND j.group_key IS NOT NULL AND j.queue = ?1 AND j.group_key > ?2
     ORDER BY j.group_key, j.priority DESC, j.seq LIMIT 1"
);

const TURN: &str = "SELECT turn FROM queues WHERE queue = ?1";

const SET_TURN: &str = "UPDATE queues SET turn = ?2 WHERE queue = ?1";

const BLOCK: &str = "UPDATE jobs SET state = 3, since = ?2 WHERE seq = ?1";

const PUT_OFF: &str = "UPDATE jobs SET state = 1, due_at = ?2, since = ?3 WHERE seq = ?1";

const LEASE: &str = "UPDATE jobs SET state = 4, attempt = attempt + 1, lease_token = ?2, lease_until = ?3, since = ?4
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
        use super::super::behind::{DEAD, MOMENTS, PENDING};
        use super::super::enqueue::{DROP, HOLDER, QUEUE};
        use super::super::history::{CLEAR, DELETE, GIVE_UP, OVER, PUT_OFF as KEEP_ON, RETENTION};
        use super::super::lease::{END_LEFT, FIND, FINISH, LET_GO};
        use super::super::limit::{RUNNING, UNBLOCK};
        use super::super::stage::{EXPIRE, RECORD_ENDED, STAGE_DUE, TAKE_BACK};
        use super::super::workflow::{
            CANCEL, COUNT, FOLLOWED_BY, FOLLOWERS, MARK_FOLLOWED, NEXT_END, RELEASE, STATE, UNFOLLOW, UNMARK_FOLLOWED,
        };
        let claiming = [
            LINE,
            ANY_GROUPED,
            NEXT,
            STAGE_DUE,
            EXPIRE,
            RECORD_ENDED,
            TAKE_BACK,
            BEST,
            NEXT_GROUP,
            TURN,
            RUNNING,
            PUT_OFF,
            BLOCK,
            LEASE,
            PAYLOAD,
        ];
        let following = [CANCEL, COUNT, FOLLOWED_BY, FOLLOWERS, MARK_FOLLOWED, NEXT_END, RELEASE, STATE, UNFOLLOW, UNMARK_FOLLOWED];
        let others =
            [QUEUE, HOLDER, DROP, RETENTION, OVER, DELETE, KEEP_ON, CLEAR, GIVE_UP, FIND, FINISH, LET_GO, UNBLOCK, MOMENTS, PENDING, DEAD];
        for sql in claiming.into_iter().chain(following).chain(others) {
            for step in plan(&conn, sql) {
                assert!(step == "SCAN CONSTANT ROW" || !step.contains("SCAN") && !step.contains("TEMP B-TREE"), "{step} in {sql}");
            }
        }
        assert!(plan(&conn, BEST).iter().any(|step| step.contains("jobs_ready (queue=?)")));
        assert!(plan(&conn, STAGE_DUE).iter().any(|step| step.contains("jobs_due (queue=? AND due_at<?)")));
        assert!(plan(&conn, TAKE_BACK).iter().any(|step| step.contains("jobs_running (queue=? AND lease_until<?)")));
        assert!(plan(&conn, END_LEFT).iter().any(|step| step.contains("jobs_running (queue=? AND lease_until>?)")));
        assert!(plan(&conn, NEXT_GROUP).iter().any(|step| step.contains("jobs_grouped (queue=? AND group_key>?)")));
        assert!(plan(&conn, OVER).iter().any(|step| step.contains("jobs_finished (state=? AND queue=? AND keep_until<?)")));
    }

    #[test]
    fn a_claim_has_a_bounded_number_and_a_bounded_lease() {
        assert!(Claim::new(1, 1).is_ok() && Claim::new(CLAIM_MAX, LEASE_MAX_S).is_ok());
        for (max, lease_s) in [(0, 1), (-1, 1), (101, 1), (1, 0), (1, -1), (1, 43_201), (i64::MIN, i64::MAX)] {
            assert!(Claim::new(max, lease_s).is_err(), "{max} {lease_s}");
        }
    }
}

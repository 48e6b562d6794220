//! What the passing of time alone has moved, written down by the next claim, in bounded steps: a delay is over, a lease ended, a
//! time to live is over. Who waits for the end of such a job is told by the same transaction.

use rusqlite::{Row, params};

use super::history::kept_ms;
use super::limit::unblock;
use super::pace::Event;
use super::wait::Bell;
use super::{QueueName, State, workflow};
use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::WriteTx;

/// Jobs that one claim moves to `ready` because they fell due, as many again because their lease ended, because they
/// expired, and because their limit or rate is reached. Not less than [`CLAIM_MAX`](super::CLAIM_MAX), so that what is due is never held back
/// from a claim that has room for it.
pub const STAGED: u32 = 256;

/// Of what a queue has some that time has moved.
pub(super) struct Over {
    pub delays: bool,
    pub leases: bool,
    /// Times to live.
    pub lives: bool,
    /// Jobs that others wait for have ended, in any queue.
    pub waits: bool,
}

/// A job that time has taken from where it was.
struct Ended {
    limit_key: Option<String>,
    followed: bool,
    seq: i64,
    state: i64,
}

/// Moves what the passing of time has moved, and tells those who wait for jobs that have ended; whether there are more to tell.
pub(super) fn stage(tx: &WriteTx<'_>, name: &QueueName, queue: i64, over: &Over, bell: &mut Bell, now: Millis) -> Result<bool> {
    let mut ended = Vec::new();
    let moved = |row: &Row<'_>| Ok(Ended { limit_key: row.get(0)?, followed: row.get(1)?, seq: row.get(2)?, state: row.get(3)? });
    if over.delays {
        tx.execute(STAGE_DUE, params![queue, now, STAGED])?;
    }
    if over.leases {
        tx.execute(RECORD_ENDED, params![queue, now, STAGED])?;
        let kept = (now + kept_ms(State::Dead), now + kept_ms(State::Cancelled));
        let taken_back: Vec<Ended> = tx.rows(TAKE_BACK, params![queue, now, STAGED, kept.0, kept.1], moved)?;
        bell.count(queue, Event::Failed, taken_back.len());
        bell.count(queue, Event::Dead, taken_back.iter().filter(|job| job.state == State::Dead as i64).count());
        ended.extend(taken_back);
    }
    // What came back may be too old to be begun again.
    if over.lives || over.leases {
        let keep_until = now + kept_ms(State::Expired);
        ended.extend(tx.rows(EXPIRE, params![queue, now, STAGED, keep_until], moved)?);
    }
    let mut any_endings = over.waits;
    for Ended { limit_key, followed, seq, state } in ended {
        // Each of the jobs that went makes place for one.
        if let Some(key) = limit_key
            && unblock(tx, queue, &key, now)?
        {
            bell.ring(name, now, now);
        }
        if followed && State::of(state).is_finished() {
            workflow::note(tx, seq, State::of(state))?;
            any_endings = true;
        }
    }
    if any_endings { workflow::tell(tx, bell, now) } else { Ok(false) }
}

pub(super) const STAGE_DUE: &str = "UPDATE jobs SET state = 2, since = ?2 WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_due WHERE state = 1 AND queue = ?1 AND due_at <= ?2
      ORDER BY due_at LIMIT ?3)";

pub(super) const EXPIRE: &str = "UPDATE jobs SET state = 13, since = ?2, keep_until = ?4 WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_expiring WHERE state < 4 AND queue = ?1 AND expires_at <= ?2
      ORDER BY expires_at LIMIT ?3) RETURNING limit_key, followed, seq, state";

pub(super) const RECORD_ENDED: &str = "INSERT OR REPLACE INTO job_attempts (seq, attempt, started_at, ended_at, outcome)
     SELECT seq, attempt, since, lease_until, 'lease_ended'
     FROM jobs INDEXED BY jobs_running WHERE state = 4 AND queue = ?1 AND lease_until <= ?2 ORDER BY lease_until LIMIT ?3";

pub(super) const TAKE_BACK: &str = "UPDATE jobs SET lease_token = NULL, lease_until = NULL, since = ?2,
     state = CASE WHEN cancel_at IS NOT NULL THEN 12 WHEN attempt < max_attempts THEN 2 ELSE 11 END,
     keep_until = CASE WHEN cancel_at IS NOT NULL THEN ?5 WHEN attempt < max_attempts THEN NULL ELSE ?4 END
     WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_running WHERE state = 4 AND queue = ?1 AND lease_until <= ?2
      ORDER BY lease_until LIMIT ?3) RETURNING limit_key, followed, seq, state";

//! What operators of a queue do: pause it and let it run again, drain it, cancel a job, bring the dead back, clear
//! history away. What may touch many jobs goes in steps of [`STEP_MAX`], each a transaction, so that workers are not
//! held up.

use rusqlite::params;

use super::behind::BEYOND;
use super::enqueue::{DROP, queue_of};
use super::history::{DELETE as PURGE_ONE, Retention, give_up, kept_ms};
use super::id::not_found;
use super::job::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, within};
use super::limit::unblock;
use super::look::{QueueRow, queue_row};
use super::name::own;
use super::state::Standing;
use super::wait::{Bell, queue_name};
use super::{JobId, QueueName, State, history, workflow};
use crate::clock::Millis;
use crate::error::{Error, Result};
use crate::sqlite::WriteTx;

/// Jobs moved or deleted by one transaction; also the most ids in one request.
pub const STEP_MAX: usize = 256;

/// Jobs moved or deleted by one request.
pub(super) const MOVED_MAX: usize = 10_000;

/// What to change of a queue; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Nothing is handed out; workers go on with what they have.
    pub paused: Option<bool>,
    /// Nothing is taken in; workers go on.
    pub draining: Option<bool>,
    pub retention: Option<Retention>,
}

/// Which dead jobs to bring back.
#[derive(Debug)]
pub struct Redrive {
    ids: Option<Vec<JobId>>,
    attempts: i64,
    max: usize,
}

impl Redrive {
    /// All, or these; `attempts` more tries for each; `max` at most. Errors: `bad_request` outside the bounds.
    pub fn new(ids: Option<Vec<JobId>>, attempts: Option<i64>, max: Option<i64>) -> Result<Redrive> {
        let attempts = within("attempts", attempts.unwrap_or(ATTEMPTS_DEFAULT), 1, ATTEMPTS_MAX)?;
        let max = within("max", max.unwrap_or(MOVED_MAX as i64), 1, MOVED_MAX as i64)?;
        Ok(Redrive { ids, attempts, max: usize::try_from(max).unwrap_or(MOVED_MAX) })
    }

    pub fn max(&self) -> usize {
        self.max
    }

    pub fn ids(&self) -> Option<&[JobId]> {
        self.ids.as_deref()
    }

    /// Of these only.
    pub fn only(&self, ids: Vec<JobId>) -> Redrive {
        Redrive { ids: Some(ids), ..*self }
    }
}

/// How many jobs were moved or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub moved: usize,
    /// There may be more: ask again.
    pub more: bool,
}

pub(super) fn set(tx: &WriteTx<'_>, name: &QueueName, settings: Settings, bell: &mut Bell, now: Millis) -> Result<QueueRow> {
    let (queue, _) = queue_of(tx, name, now)?;
    if let Some(paused) = settings.paused {
        tx.execute(PAUSE, params![queue, paused.then_some(now)])?;
        bell.ring(name, now, now);
    }
    if let Some(draining) = settings.draining {
        tx.execute(DRAIN, params![queue, draining.then_some(now)])?;
    }
    if let Some(retention) = settings.retention {
        retention.set(tx, queue)?;
    }
    queue_row(tx, name)
}

pub(super) fn cancel(tx: &WriteTx<'_>, id: JobId, bell: &mut Bell, now: Millis) -> Result<State> {
    let (standing, queue, limit_key, is_followed) = tx
        .row(FIND, params![id.seq(), id.created_at(), id.salt()], |row| {
            let standing = Standing {
                state: row.get(0)?,
                due_at: row.get(1)?,
                lease_until: row.get(2)?,
                cancelled: row.get(3)?,
                attempt: row.get(4)?,
                max_attempts: row.get(5)?,
            };
            Ok((standing, row.get::<_, i64>(6)?, row.get::<_, Option<String>>(7)?, row.get::<_, bool>(8)?))
        })?
        .ok_or_else(|| not_found(id))?;
    if queue_name(tx, queue)?.is_some_and(|name| name.is_behind()) {
        return Err(own());
    }
    match State::shown(&standing, now) {
        State::Cancelled => Ok(State::Cancelled),
        State::Leased => {
            tx.execute(ASK_TO_STOP, params![id.seq(), now])?;
            Ok(State::Leased)
        }
        state if state.is_finished() => Err(Error::conflict(format!("job {id} is {} and cannot be cancelled any more", state.as_str()))),
        _ => {
            tx.execute(DROP, params![id.seq(), now, now + kept_ms(State::Cancelled)])?;
            if let Some(key) = limit_key
                && unblock(tx, queue, &key, now)?
            {
                bell.ring_number(tx, queue, now, now)?;
            }
            if is_followed {
                workflow::ended(tx, id.seq(), State::Cancelled, bell, now)?;
            }
            Ok(State::Cancelled)
        }
    }
}

pub(super) fn redrive(tx: &WriteTx<'_>, name: &QueueName, redrive: &Redrive, most: usize, bell: &mut Bell, now: Millis) -> Result<usize> {
    let Some(queue) = number(tx, name)? else { return Ok(0) };
    let attempts = redrive.attempts + if name.is_behind() { BEYOND } else { 0 };
    let moved = match &redrive.ids {
        None => tx.execute(REDRIVE, params![queue, now, attempts, most as i64])?,
        Some(ids) => {
            let mut moved = 0;
            for id in ids.iter().take(most) {
                moved += tx.execute(REDRIVE_ONE, params![queue, now, attempts, id.seq(), id.created_at(), id.salt()])?;
            }
            moved
        }
    };
    if moved > 0 {
        bell.ring(name, now, now);
    }
    Ok(moved)
}

/// Only what is finished is history.
pub(super) fn purgeable(state: State) -> Result<()> {
    if state.is_finished() {
        return Ok(());
    }
    Err(Error::bad_request("only done, dead, cancelled and expired jobs can be purged").hint("Cancel the others, one by one."))
}

/// Dead jobs that others wait for are cancelled instead: those are told, and it can be purged as such.
pub(super) fn purge(
    tx: &WriteTx<'_>,
    name: &QueueName,
    state: State,
    ids: Option<&[JobId]>,
    most: usize,
    bell: &mut Bell,
    now: Millis,
) -> Result<usize> {
    let Some(queue) = number(tx, name)? else { return Ok(0) };
    workflow::tell(tx, bell, now)?;
    let Some(ids) = ids else {
        let given_up = if state == State::Dead { give_up(tx, queue, Millis::MAX, most, bell, now)? } else { 0 };
        return Ok(given_up + tx.execute(PURGE, params![state as i64, queue, (most - given_up) as i64])?);
    };
    let mut moved = 0;
    for id in ids.iter().take(most) {
        let place = params![state as i64, queue, id.seq(), id.created_at(), id.salt()];
        moved += match tx.row(PURGING, place, |row| row.get::<_, bool>(0))? {
            None => 0,
            Some(false) => tx.execute(PURGE_ONE, [id.seq()])?,
            Some(true) if state == State::Dead => {
                tx.execute(DROP, params![id.seq(), now, now + kept_ms(State::Cancelled)])?;
                workflow::ended(tx, id.seq(), State::Cancelled, bell, now)?;
                1
            }
            Some(true) => 0,
        };
    }
    Ok(moved)
}

/// Deletes finished jobs whose time is over, `most` at most.
pub(super) fn clear(tx: &WriteTx<'_>, name: &QueueName, most: usize, bell: &mut Bell, now: Millis) -> Result<usize> {
    let Some(queue) = number(tx, name)? else { return Ok(0) };
    workflow::tell(tx, bell, now)?;
    history::clear(tx, queue, most, bell, now)
}

fn number(tx: &WriteTx<'_>, name: &QueueName) -> Result<Option<i64>> {
    tx.row(super::enqueue::QUEUE, [name.as_str()], |row| row.get(0))
}

const PAUSE: &str = "UPDATE queues SET paused_at = iif(?2 IS NULL, NULL, coalesce(paused_at, ?2)) WHERE queue = ?1";

const DRAIN: &str = "UPDATE queues SET drain_at = iif(?2 IS NULL, NULL, coalesce(drain_at, ?2)) WHERE queue = ?1";

const FIND: &str = "SELECT state, due_at, lease_until, cancel_at IS NOT NULL, attempt, max_attempts, queue, limit_key, followed FROM jobs
     WHERE seq = ?1 AND created_at = ?2 AND salt = ?3";

pub(super) const ASK_TO_STOP: &str = "UPDATE jobs SET cancel_at = coalesce(cancel_at, ?2) WHERE seq = ?1";

// A dead job may have outlived its time to live, which would end it again at once. One whose followers have not all been
// told of its death is dead for them.

const REDRIVE: &str =
    "UPDATE jobs SET state = 2, due_at = ?2, since = ?2, max_attempts = attempt + ?3, keep_until = NULL, expires_at = NULL
     WHERE seq IN (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 11 AND queue = ?1 AND keep_until IS NOT NULL
                     AND seq NOT IN (SELECT seq FROM job_endings) ORDER BY keep_until LIMIT ?4)";

const REDRIVE_ONE: &str =
    "UPDATE jobs SET state = 2, due_at = ?2, since = ?2, max_attempts = attempt + ?3, keep_until = NULL, expires_at = NULL
     WHERE seq = ?4 AND created_at = ?5 AND salt = ?6 AND state = 11 AND queue = ?1 AND seq NOT IN (SELECT seq FROM job_endings)";

const PURGE: &str = "DELETE FROM jobs WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = ?1 AND queue = ?2 AND keep_until IS NOT NULL AND NOT followed
      ORDER BY keep_until LIMIT ?3)";

const PURGING: &str = "SELECT followed FROM jobs WHERE state = ?1 AND queue = ?2 AND seq = ?3 AND created_at = ?4 AND salt = ?5";

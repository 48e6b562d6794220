//! History is what is left of finished jobs. It is cleared away a little at a time: by enqueues, more than they add, and by
//! claims that find nothing; so no file is opened or swept for it, and a queue in which nothing happens keeps what it has.
//!
//! How long a job is kept is its queue's [`Retention`], by state. A row's `keep_until` goes by the default, and where the
//! queue says otherwise, clearing looks that much later or earlier: so a retention concerns all jobs from the moment it is
//! set, and finishing a job does not ask for it. A job is kept longer where its unique key is to be held for a time.

use rusqlite::{Row, params};

use super::job::within;
use super::wait::Bell;
use super::{State, workflow};
use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::{WriteTx, has_room};

/// How long a done job's row stays by default, in milliseconds: an hour.
pub const DONE_KEPT_MS: Millis = 3_600_000;

/// How long a dead job's row stays by default, in milliseconds: fourteen days.
pub const DEAD_KEPT_MS: Millis = 14 * 86_400_000;

/// How long a cancelled or an expired job's row stays by default, in milliseconds: a day.
const DROPPED_KEPT_MS: Millis = 86_400_000;

/// The longest that a queue may keep finished jobs, in seconds: a year.
pub const KEPT_MAX_S: i64 = 31_536_000;

/// Finished jobs deleted at once: more than were enqueued since, so that pruning gains on enqueueing.
const PRUNED: usize = 64;

/// One enqueue, or claim that found nothing, in so many deletes them.
const PRUNING: u32 = 16;

/// Done jobs deleted at once to make room.
pub(super) const CLEARED: u32 = 256;

/// Times that room is made for one enqueue before it is refused.
const ROUNDS: u32 = 16;

/// Pages that enqueueing leaves to claims and acknowledgements, at most; a sixteenth of a small file.
const RESERVED_PAGES: u64 = 256;

/// In the order of [`Retention`]'s fields.
const FINISHED: [State; 4] = [State::Done, State::Dead, State::Cancelled, State::Expired];

/// How long the row of a job that ended so stays by default, in milliseconds.
pub fn kept_ms(state: State) -> Millis {
    match state {
        State::Done => DONE_KEPT_MS,
        State::Dead => DEAD_KEPT_MS,
        _ => DROPPED_KEPT_MS,
    }
}

/// How long a queue's finished jobs are kept, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub done_ms: Millis,
    pub dead_ms: Millis,
    pub cancelled_ms: Millis,
    pub expired_ms: Millis,
}

impl Default for Retention {
    fn default() -> Retention {
        let [done_ms, dead_ms, cancelled_ms, expired_ms] = FINISHED.map(kept_ms);
        Retention { done_ms, dead_ms, cancelled_ms, expired_ms }
    }
}

impl Retention {
    /// In seconds; the default for what is not said. Errors: `bad_request` outside 0 to [`KEPT_MAX_S`].
    pub fn new(done_s: Option<i64>, dead_s: Option<i64>, cancelled_s: Option<i64>, expired_s: Option<i64>) -> Result<Retention> {
        let ms = |name, given: Option<i64>, default: Millis| match given {
            Some(s) => within(name, s, 0, KEPT_MAX_S).map(|s| s * 1_000),
            None => Ok(default),
        };
        let default = Retention::default();
        Ok(Retention {
            done_ms: ms("retention.done_s", done_s, default.done_ms)?,
            dead_ms: ms("retention.dead_s", dead_s, default.dead_ms)?,
            cancelled_ms: ms("retention.cancelled_s", cancelled_s, default.cancelled_ms)?,
            expired_ms: ms("retention.expired_s", expired_s, default.expired_ms)?,
        })
    }

    /// From four columns that begin at `at`.
    pub(super) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Retention> {
        let default = Retention::default();
        Ok(Retention {
            done_ms: row.get::<_, Option<_>>(at)?.unwrap_or(default.done_ms),
            dead_ms: row.get::<_, Option<_>>(at + 1)?.unwrap_or(default.dead_ms),
            cancelled_ms: row.get::<_, Option<_>>(at + 2)?.unwrap_or(default.cancelled_ms),
            expired_ms: row.get::<_, Option<_>>(at + 3)?.unwrap_or(default.expired_ms),
        })
    }

    pub(super) fn set(self, tx: &WriteTx<'_>, queue: i64) -> Result<()> {
        tx.execute(SET, params![queue, self.done_ms, self.dead_ms, self.cancelled_ms, self.expired_ms]).map(drop)
    }

    /// What is added to the time by which a finished job would be kept by default.
    fn longer_ms(self, state: State) -> Millis {
        let own = match state {
            State::Done => self.done_ms,
            State::Dead => self.dead_ms,
            State::Expired => self.expired_ms,
            _ => self.cancelled_ms,
        };
        own - kept_ms(state)
    }
}

/// Now and then, by `chance`: clears history of this queue, and of another, so that a queue nobody enqueues to is cleared as
/// well.
pub(super) fn prune(tx: &WriteTx<'_>, queue: i64, chance: u32, bell: &mut Bell, now: Millis) -> Result<()> {
    if !chance.is_multiple_of(PRUNING) {
        return Ok(());
    }
    workflow::tell(tx, bell, now)?;
    let last: i64 = tx.row(LAST_QUEUE, [], |row| row.get(0))?.unwrap_or(queue);
    for queue in [queue, 1 + i64::from(chance / PRUNING) % last.max(1)] {
        clear(tx, queue, PRUNED, bell, now)?;
    }
    Ok(())
}

/// Deletes jobs of a queue whose time is over, `most` at most; how many it got done with.
pub(super) fn clear(tx: &WriteTx<'_>, queue: i64, most: usize, bell: &mut Bell, now: Millis) -> Result<usize> {
    let retention = tx.row(RETENTION, [queue], |row| Retention::read(row, 0))?.unwrap_or_default();
    let mut cleared = 0;
    for state in FINISHED {
        let longer = retention.longer_ms(state);
        if state == State::Dead {
            cleared += give_up(tx, queue, now - longer, most - cleared, bell, now)?;
        }
        let over = params![state as i64, queue, now - longer, (most - cleared) as i64, now, state.bit()];
        for (seq, held_until) in tx.rows(OVER, over, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Millis>>(1)?)))? {
            match held_until {
                Some(until) => tx.execute(PUT_OFF, params![seq, until - longer])?,
                None => tx.execute(DELETE, [seq])?,
            };
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// Dead jobs that somebody waits for are cancelled before they can be deleted: those that would be kept until `until` by
/// default, `most` at most. Their number.
pub(super) fn give_up(tx: &WriteTx<'_>, queue: i64, until: Millis, most: usize, bell: &mut Bell, now: Millis) -> Result<usize> {
    let given_up =
        tx.rows(GIVE_UP, params![queue, until, most as i64, now, now + kept_ms(State::Cancelled)], |row| row.get::<_, i64>(0))?;
    given_up.iter().try_for_each(|seq| workflow::ended(tx, *seq, State::Cancelled, bell, now))?;
    Ok(given_up.len())
}

/// Whether `pages` can be written; deletes done jobs if that helps.
pub(super) fn make_room(tx: &WriteTx<'_>, pages: u64) -> Result<bool> {
    let reserve = RESERVED_PAGES.min(tx.page_bounds().1 / 16);
    for _ in 0..ROUNDS {
        if has_room(tx, pages, reserve)? {
            return Ok(true);
        }
        if tx.execute(CLEAR, [CLEARED])? == 0 {
            return Ok(false);
        }
    }
    has_room(tx, pages, reserve)
}

const LAST_QUEUE: &str = "SELECT max(queue) FROM queues";

const SET: &str = "UPDATE queues SET done_ms = ?2, dead_ms = ?3, cancelled_ms = ?4, expired_ms = ?5 WHERE queue = ?1";

pub(super) const RETENTION: &str = "SELECT done_ms, dead_ms, cancelled_ms, expired_ms FROM queues WHERE queue = ?1";

/// And until when they hold a unique key, if they do. What is followed stays until its followers know of its end.
pub(super) const OVER: &str = "SELECT seq, iif(unique_key IS NOT NULL AND unique_until > ?5 AND unique_states & ?6, unique_until, NULL)
     FROM jobs INDEXED BY jobs_finished WHERE state = ?1 AND queue = ?2 AND keep_until <= ?3 AND NOT followed
     ORDER BY keep_until LIMIT ?4";

/// A job's other rows go with it, by their foreign keys.
pub(super) const DELETE: &str = "DELETE FROM jobs WHERE seq = ?1";

pub(super) const PUT_OFF: &str = "UPDATE jobs SET keep_until = ?2 WHERE seq = ?1";

/// Dead jobs stay: somebody has to look at them.
pub(super) const CLEAR: &str = "DELETE FROM jobs WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 10 AND keep_until IS NOT NULL AND NOT followed LIMIT ?1)";

pub(super) const GIVE_UP: &str = "UPDATE jobs SET state = 12, since = ?4, keep_until = ?5 WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 11 AND queue = ?1 AND keep_until <= ?2 AND followed
      ORDER BY keep_until LIMIT ?3) RETURNING seq";

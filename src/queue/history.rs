//! History is what is left of finished jobs. It is cleared away by enqueues, a little more than they add, and no file
//! ever has to be swept.

use rusqlite::params;

use super::wait::Bell;
use super::{State, workflow};
use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::{WriteTx, has_room};

/// How long a done job's row stays, in milliseconds: an hour.
pub const DONE_KEPT_MS: Millis = 3_600_000;

/// How long a dead job's row stays, in milliseconds: fourteen days.
pub const DEAD_KEPT_MS: Millis = 14 * 86_400_000;

/// How long a cancelled or an expired job's row stays, in milliseconds: a day.
const DROPPED_KEPT_MS: Millis = 86_400_000;

/// Finished jobs deleted at once: more than were enqueued since, so that pruning gains on enqueueing.
const PRUNED: u32 = 64;

/// One enqueue in so many deletes them.
const PRUNING: u32 = 16;

/// Done jobs deleted at once to make room.
pub(super) const CLEARED: u32 = 256;

/// Times that room is made for one enqueue before it is refused.
const ROUNDS: u32 = 16;

/// Pages that enqueueing leaves to claims and acknowledgements, at most; a sixteenth of a small file.
const RESERVED_PAGES: u64 = 256;

const FINISHED: [State; 4] = [State::Done, State::Dead, State::Cancelled, State::Expired];

/// How long the row of a job that ended so stays, in milliseconds.
pub fn kept_ms(state: State) -> Millis {
    match state {
        State::Done => DONE_KEPT_MS,
        State::Dead => DEAD_KEPT_MS,
        _ => DROPPED_KEPT_MS,
    }
}

/// Now and then, by `chance`: deletes history of this queue, and of another, so that a queue nobody enqueues to is
/// cleared as well.
pub(super) fn prune(tx: &WriteTx<'_>, queue: i64, chance: u32, bell: &mut Bell, now: Millis) -> Result<()> {
    if !chance.is_multiple_of(PRUNING) {
        return Ok(());
    }
    workflow::tell(tx, bell, now)?;
    let last: i64 = tx.row(LAST_QUEUE, [], |row| row.get(0))?.unwrap_or(queue);
    for queue in [queue, 1 + i64::from(chance / PRUNING) % last.max(1)] {
        give_up(tx, queue, now, PRUNED, bell, now)?;
        for state in FINISHED {
            tx.execute(PRUNE, params![state as i64, queue, now, PRUNED])?;
        }
    }
    Ok(())
}

/// Dead jobs that somebody waits for are cancelled before they can be deleted: those whose time was over at `until`,
/// `most` at most. Their number.
pub(super) fn give_up(tx: &WriteTx<'_>, queue: i64, until: Millis, most: u32, bell: &mut Bell, now: Millis) -> Result<usize> {
    let given_up = tx.rows(GIVE_UP, params![queue, until, most, now, now + kept_ms(State::Cancelled)], |row| row.get::<_, i64>(0))?;
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

// A job's other rows go with it, by their foreign keys. What is followed stays until its followers know of its end.

pub(super) const PRUNE: &str = "DELETE FROM jobs WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = ?1 AND queue = ?2 AND keep_until <= ?3 AND NOT followed
      ORDER BY keep_until LIMIT ?4)";

/// Dead jobs stay: somebody has to look at them.
pub(super) const CLEAR: &str = "DELETE FROM jobs WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 10 AND keep_until IS NOT NULL AND NOT followed LIMIT ?1)";

pub(super) const GIVE_UP: &str = "UPDATE jobs SET state = 12, since = ?4, keep_until = ?5 WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 11 AND queue = ?1 AND keep_until <= ?2 AND followed
      ORDER BY keep_until LIMIT ?3) RETURNING seq";

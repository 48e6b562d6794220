//! A job may wait for others to end: a chain, a fan-in, the callback of a batch. It is `waiting` then, in no index that a
//! claim looks at, and says in [`OnFailure`] what is to become of it when one of them is not done.
//!
//! - Who waits for whom is a row of `job_followers` until the one waited for has ended and that is counted in
//!   `job_waits`; a job whose count is full is made ready by that transaction. Nothing else is remembered, so nothing
//!   can leak.
//! - A job may only wait for jobs that are there before it, so there are no circles; inside one request the batch sees
//!   to that.
//! - An end concerns any number of followers, and a follower's own end concerns others in turn. So an end is a row of
//!   `job_endings` first; [`TOLD`] followers are told by the transaction in which somebody ended, further ones by claims of
//!   any queue of the file, and by whoever looks into it though nobody claims. What is followed is not deleted before that.

use rusqlite::params;
use serde::Deserialize;

use super::history::kept_ms;
use super::wait::Bell;
use super::{JobId, State};
use crate::clock::Millis;
use crate::error::{Error, Result};
use crate::sqlite::{Reader, WriteTx};

/// Followers told of an end by one transaction.
pub(super) const TOLD: i64 = 256;

/// What becomes of a job when one that it waits for dies, is cancelled or expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is cancelled, and so are those that wait for it.
    #[default]
    Cancel = 0,
    /// It is run when all have ended, whatever became of them.
    Run = 1,
    /// It goes on waiting for a dead one, which may be brought back; otherwise it is cancelled.
    Wait = 2,
}

/// How far those are that a job waits for, or waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Waits {
    pub jobs: i64,
    pub done: i64,
    pub dead: i64,
    pub cancelled: i64,
    pub expired: i64,
}

/// What a job about to be added waits for.
#[derive(Debug, Default)]
pub(super) struct Needs {
    on_failure: OnFailure,
    /// Those that have not ended.
    pending: Vec<i64>,
    waits: Waits,
}

impl Needs {
    /// Of jobs that are there. The inner error is the outcome of the job: `not_found`, or `conflict` when one has ended
    /// otherwise than done and that matters.
    pub(super) fn of(tx: &WriteTx<'_>, mut ids: Vec<JobId>, on_failure: OnFailure) -> Result<Result<Needs>> {
        ids.sort_unstable_by_key(|id| id.seq());
        ids.dedup();
        let mut needs = Needs { on_failure, pending: Vec::new(), waits: Waits { jobs: ids.len() as i64, ..Waits::default() } };
        for id in ids {
            let Some(state) = tx.row(STATE, params![id.seq(), id.created_at(), id.salt()], |row| Ok(State::of(row.get(0)?)))? else {
                return Ok(Err(Error::not_found(format!("depends_on: there is no job {id}"))
                    .hint("It may have been finished and cleared away; then there is nothing to wait for.")));
            };
            if !state.is_finished() || state == State::Dead && on_failure == OnFailure::Wait {
                needs.pending.push(id.seq());
            } else if state == State::Done || on_failure == OnFailure::Run {
                needs.waits.count(state);
            } else {
                let error = Error::conflict(format!("depends_on: job {id} is {}", state.as_str()));
                return Ok(Err(error.detail("job", id.to_string()).hint("With \"on_failure\":\"run\" it does not matter.")));
            }
        }
        Ok(Ok(needs))
    }

    /// One more, which has not ended.
    pub(super) fn push(&mut self, seq: i64) {
        if !self.pending.contains(&seq) {
            self.pending.push(seq);
            self.waits.jobs += 1;
        }
    }

    /// Those that a job still waits for, too.
    pub(super) fn inherit(&mut self, tx: &WriteTx<'_>, seq: i64) -> Result<()> {
        tx.rows(FOLLOWED_BY, [seq], |row| row.get(0))?.into_iter().for_each(|followed| self.push(followed));
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn include(&self, id: JobId) -> bool {
        self.pending.contains(&id.seq())
    }

    /// Pages for the rows that say who waits, with room to spare.
    pub(super) fn pages(&self) -> u64 {
        self.pending.len() as u64 / 32
    }

    /// Has the job that was just added follow those it waits for.
    pub(super) fn follow(&self, tx: &WriteTx<'_>, seq: i64) -> Result<()> {
        let Waits { jobs, done, dead, cancelled, expired } = self.waits;
        if jobs == 0 {
            return Ok(());
        }
        tx.execute(WAIT, params![seq, self.on_failure as i64, jobs, done, dead, cancelled, expired])?;
        for followed in &self.pending {
            tx.execute(FOLLOW, params![followed, self.on_failure == OnFailure::Wait, seq])?;
            tx.execute(MARK_FOLLOWED, [followed])?;
        }
        Ok(())
    }
}

impl Waits {
    fn count(&mut self, state: State) {
        match state {
            State::Done => self.done += 1,
            State::Dead => self.dead += 1,
            State::Cancelled => self.cancelled += 1,
            _ => self.expired += 1,
        }
    }

    /// From five columns that begin at `at`; none where the first is null.
    pub(super) fn read(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<Waits>> {
        let Some(jobs) = row.get(at)? else { return Ok(None) };
        Ok(Some(Waits { jobs, done: row.get(at + 1)?, dead: row.get(at + 2)?, cancelled: row.get(at + 3)?, expired: row.get(at + 4)? }))
    }
}

/// A followed job has ended: tells those that wait for it.
pub(super) fn ended(tx: &WriteTx<'_>, seq: i64, state: State, bell: &mut Bell, now: Millis) -> Result<()> {
    note(tx, seq, state)?;
    tell(tx, bell, now).map(drop)
}

/// A followed job has ended; [`tell`] is called by the same transaction.
pub(super) fn note(tx: &WriteTx<'_>, seq: i64, state: State) -> Result<()> {
    tx.execute(NOTE_END, params![seq, state as i64]).map(drop)
}

/// When the rest of what has ended is to be told: at once, if there is any.
pub(super) fn next_at(reader: &Reader<'_>, now: Millis) -> Result<Option<Millis>> {
    Ok(reader.row(NEXT_END, [], |_| Ok(()))?.map(|()| now))
}

/// Tells followers what has ended, [`TOLD`] at most; whether there are more, which somebody is sure to tell.
pub(super) fn tell(tx: &WriteTx<'_>, bell: &mut Bell, now: Millis) -> Result<bool> {
    let mut left = TOLD;
    let next = |row: &rusqlite::Row<'_>| Ok((JobId::of(row.get(0)?, row.get(1)?, row.get(2)?), State::of(row.get(3)?)));
    while let Some((id, state)) = tx.row(NEXT_END, [], next)? {
        if left == 0 {
            bell.look_at(now);
            return Ok(true);
        }
        let most_patient = i64::from(state != State::Dead);
        let followers =
            tx.rows(FOLLOWERS, params![id.seq(), most_patient, left], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        for (patient, seq) in &followers {
            tx.execute(UNFOLLOW, params![id.seq(), patient, seq])?;
            tell_one(tx, *seq, id, state, bell, now)?;
        }
        let told = followers.len() as i64;
        if told < left {
            tx.execute(FORGET_END, [id.seq()])?;
            tx.execute(UNMARK_FOLLOWED, [id.seq()])?;
        }
        left -= told;
    }
    Ok(false)
}

fn tell_one(tx: &WriteTx<'_>, seq: i64, of: JobId, state: State, bell: &mut Bell, now: Millis) -> Result<()> {
    let counted = tx.rows(COUNT, params![seq, state as i64], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let Some(&(on_failure, left)) = counted.first() else { return Ok(()) };
    if state != State::Done && on_failure != OnFailure::Run as i64 {
        let cancelled = tx.rows(CANCEL, params![seq, now, now + kept_ms(State::Cancelled)], |row| row.get::<_, bool>(0))?;
        if let Some(is_followed) = cancelled.first() {
            tx.execute(WHY, params![seq, now, format!("depends_on: job {of} is {}", state.as_str())])?;
            if *is_followed {
                note(tx, seq, State::Cancelled)?;
            }
        }
    } else if left == 0 {
        for (queue, due_at) in tx.rows(RELEASE, params![seq, now], |row| Ok((row.get(0)?, row.get(1)?)))? {
            bell.ring_number(tx, queue, due_at, now)?;
        }
    }
    Ok(())
}

pub(super) const STATE: &str = "SELECT state FROM jobs WHERE seq = ?1 AND created_at = ?2 AND salt = ?3";

const WAIT: &str = "INSERT INTO job_waits (seq, on_failure, jobs, done, dead, cancelled, expired) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const FOLLOW: &str = "INSERT INTO job_followers (followed, patient, seq) VALUES (?1, ?2, ?3)";

pub(super) const FOLLOWED_BY: &str = "SELECT followed FROM job_followers INDEXED BY job_followers_of WHERE seq = ?1";

pub(super) const MARK_FOLLOWED: &str = "UPDATE jobs SET followed = 1 WHERE seq = ?1 AND NOT followed";

const NOTE_END: &str = "INSERT OR REPLACE INTO job_endings (seq, state) VALUES (?1, ?2)";

pub(super) const NEXT_END: &str = "SELECT j.created_at, j.seq, j.salt, e.state FROM job_endings e CROSS JOIN jobs j ON j.seq = e.seq
     WHERE e.seq > 0 ORDER BY e.seq LIMIT 1";

pub(super) const FOLLOWERS: &str = "SELECT patient, seq FROM job_followers WHERE followed = ?1 AND patient <= ?2
     ORDER BY patient, seq LIMIT ?3";

pub(super) const UNFOLLOW: &str = "DELETE FROM job_followers WHERE followed = ?1 AND patient = ?2 AND seq = ?3";

const FORGET_END: &str = "DELETE FROM job_endings WHERE seq = ?1";

/// Somebody may still wait for a dead one.
pub(super) const UNMARK_FOLLOWED: &str = "UPDATE jobs SET followed = EXISTS (SELECT 1 FROM job_followers f WHERE f.followed = ?1)
     WHERE seq = ?1";

pub(super) const COUNT: &str = "UPDATE job_waits SET done = done + (?2 = 10), dead = dead + (?2 = 11),
         cancelled = cancelled + (?2 = 12), expired = expired + (?2 = 13)
     WHERE seq = ?1 RETURNING on_failure, jobs - done - dead - cancelled - expired";

pub(super) const CANCEL: &str = "UPDATE jobs SET state = 12, since = ?2, keep_until = ?3 WHERE seq = ?1 AND state = 0 RETURNING followed";

const WHY: &str = "INSERT OR REPLACE INTO job_attempts (seq, attempt, started_at, ended_at, outcome, error)
     VALUES (?1, 0, ?2, ?2, 'not_begun', ?3)";

pub(super) const RELEASE: &str = "UPDATE jobs SET state = CASE WHEN due_at > ?2 THEN 1 ELSE 2 END, since = ?2
     WHERE seq = ?1 AND state = 0 RETURNING queue, due_at";

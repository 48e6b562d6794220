//! Writes behind the cache, as the queue sees them: jobs of a queue of the server's own ([`QueueName::behind`]), of which
//! each key has one that waits at most. A new one takes the place of the one that waits, or of the dead one; it waits for the one
//! that is being worked on, which is not tried again then. So what a key's jobs do is done in their order, and the
//! last one is done. Nobody else adds such a job, works on it or cancels it; what is dead can be redriven, until
//! a newer one takes its place.
//!
//! Whoever misses an entry asks whether it is still to be written. [`Known`] has which files hold nothing of that kind, so
//! that only those are looked into of which that is not known.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::params;
use serde_json::value::RawValue;

use super::claim::{Claim, Claimed, claim};
use super::enqueue::{Enqueued, Outcome};
use super::job::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, JobRequest, NewJob, OnConflict, Unique, key};
use super::workflow::OnFailure;
use super::{Batch, JobId, Queue, QueueName, State};
use crate::clock::{Millis, now_ms};
use crate::error::{Error, Result};
use crate::sqlite::{IdempotencyKey, Reader};

/// Writes of one file worked on at once.
pub const AT_ONCE: usize = 4;

/// How long a write is leased, in milliseconds.
const LEASE_MS: Millis = 60_000;

/// Tries that the queue grants beyond those after which who makes the write gives it up, so that its entry goes with it: time
/// alone, and a server that dies at it, end it only after so many.
pub(super) const BEYOND: i64 = ATTEMPTS_MAX - ATTEMPTS_DEFAULT;

/// Files of which it is known whether they hold writes; past that all is forgotten.
const FILES_MAX: usize = 10_000;

impl NewJob {
    /// A write of what `key` names, to be begun after `delay_s`. Errors: `payload_too_large`, `bad_request`.
    pub fn write_behind(key: &str, payload: Box<RawValue>, delay_s: Option<i64>) -> Result<NewJob> {
        let request = JobRequest { delay_s, max_attempts: Some(ATTEMPTS_MAX), ..JobRequest::plain(payload) };
        let holding = State::ALL.into_iter().filter(|state| !state.is_finished() || *state == State::Dead);
        let (key, states) = (self::key("key", key.to_owned())?, holding.map(State::bit).sum());
        let unique = Some(Unique { key, for_ms: None, states, on_conflict: OnConflict::Follow });
        Ok(NewJob { unique, on_failure: Some(OnFailure::Run), ..request.check()? })
    }
}

impl Queue<'_> {
    /// Adds a write for `by`, or finds what an earlier call with `idempotency` added; and whether it did. Errors as an outcome's of
    /// [`Queue::enqueue`].
    pub async fn write_behind(&self, write: NewJob, by: &str, idempotency: Option<IdempotencyKey>) -> Result<(Enqueued, bool)> {
        let made = self.enqueue(&QueueName::behind(), Batch::of_one(write), by, idempotency).await;
        // Before anybody is answered; the bell, which others' writes are marked by, may ring a little later.
        self.waiters.behind.marks(self.file.serial());
        let made = made?;
        match made.outcomes.into_iter().next() {
            Some(Outcome::Enqueued(job)) => Ok((job, made.replayed)),
            Some(Outcome::Refused(error)) => Err(error),
            None => Err(Error::internal("one job has no outcome", &"none")),
        }
    }

    /// What is still to be written for `key`: its last job's payload.
    pub async fn written_behind(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (serial, known) = (self.file.serial(), &self.waiters.behind);
        let (stamp, may) = known.look(serial);
        let may = match may {
            Some(may) => may,
            None => self.waiters.is_seen_to(self.file).await?,
        };
        if may {
            let key = key.to_owned();
            let look = move |reader: &Reader<'_>| {
                reader.snapshot()?;
                let payload = reader.row(PENDING, [&key], |row| row.get::<_, Vec<u8>>(0))?;
                let is_any = payload.is_some() || reader.row(MOMENTS, [], |_| Ok(()))?.is_some();
                Ok((payload, is_any))
            };
            let (payload, is_any) = self.file.read_brief(self.limits, 0, look).await?;
            known.found(serial, is_any, stamp);
            return Ok(payload);
        }
        known.found(serial, false, stamp);
        Ok(None)
    }

    /// Whether this try of a write was the last one of those that it was given.
    pub async fn is_last_try(&self, job: &Claimed) -> Result<bool> {
        let seq = job.id.seq();
        let granted: Option<i64> = self.file.read(self.limits, move |reader| reader.row(GRANTED, [seq], |row| row.get(0))).await?;
        Ok(granted.is_some_and(|granted| job.attempt >= granted - BEYOND))
    }

    /// Dead writes with their payloads: those of `ids` that are, or the `most` that [`Queue::redrive`] brings back first.
    pub async fn dead_writes(&self, ids: Option<Vec<JobId>>, most: usize) -> Result<Vec<(JobId, Vec<u8>)>> {
        let dead = |row: &rusqlite::Row<'_>| Ok((JobId::of(row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?));
        let look = move |reader: &Reader<'_>| match ids {
            None => reader.rows(DEAD, [most as i64], dead),
            Some(ids) => {
                let found = ids.iter().map(|id| reader.row(DEAD_ONE, params![id.seq(), id.created_at(), id.salt()], dead));
                found.filter_map(Result::transpose).collect()
            }
        };
        self.file.read(self.limits, look).await
    }

    /// Claims what is to be written now, `room` jobs at most; `under_way` as for [`Queue::deliveries`].
    pub async fn writes(&self, under_way: &HashMap<QueueName, usize>, room: usize) -> Result<Vec<Claimed>> {
        let most = room.min(AT_ONCE.saturating_sub(busy(under_way)));
        if most == 0 {
            return Ok(Vec::new());
        }
        let next_at: Option<Millis> = self.file.read(self.limits, |reader| reader.row(MOMENTS, [], |row| row.get(0))).await?;
        if next_at.is_none_or(|at| at > now_ms()) {
            return Ok(Vec::new());
        }
        let take = move |tx: &crate::sqlite::WriteTx<'_>, bell: &mut super::wait::Bell, now: Millis| {
            claim(tx, &[QueueName::behind()], Claim::own(most, LEASE_MS), bell, now)
        };
        Ok(self.write(take).await?.jobs)
    }
}

/// When the next write is due, as far as time alone decides; while as many are worked on as may be, that is not asked.
pub(super) fn next_at(reader: &Reader<'_>, under_way: &HashMap<QueueName, usize>) -> Result<Option<Millis>> {
    if busy(under_way) >= AT_ONCE { Ok(None) } else { reader.row(MOMENTS, [], |row| row.get(0)) }
}

fn busy(under_way: &HashMap<QueueName, usize>) -> usize {
    under_way.get(&QueueName::behind()).copied().unwrap_or(0)
}

/// Which files may hold writes, by their openings.
#[derive(Default)]
pub(super) struct Known(Mutex<Files>);

#[derive(Default)]
struct Files {
    /// Rises with each mark.
    now: u64,
    forgotten_at: u64,
    of: HashMap<u64, (u64, bool)>,
}

impl Known {
    /// A write was added, or is due again: a look that began before the commit may not have seen it.
    pub(super) fn marks(&self, file: u64) {
        let mut files = self.files();
        files.now += 1;
        let now = files.now;
        files.note(file, true, now);
    }

    /// Whether the file may hold any, if that is known; and a stamp to say what was found after this.
    fn look(&self, file: u64) -> (u64, Option<bool>) {
        let files = self.files();
        (files.now, files.of.get(&file).map(|(_, any)| *any))
    }

    /// A look found that, which counts if nobody marked the file since it began.
    fn found(&self, file: u64, any: bool, stamp: u64) {
        let mut files = self.files();
        if files.forgotten_at <= stamp && files.of.get(&file).is_none_or(|(marked, known)| *marked <= stamp && *known != any) {
            files.note(file, any, stamp);
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn note(&mut self, file: u64, any: bool, stamp: u64) {
        if self.of.len() >= FILES_MAX && !self.of.contains_key(&file) {
            self.of.clear();
            self.now += 1;
            self.forgotten_at = self.now;
        }
        self.of.insert(file, (stamp, any));
    }
}

pub(super) const PENDING: &str =
    "SELECT b.payload FROM queues q CROSS JOIN jobs j INDEXED BY jobs_unique CROSS JOIN job_bodies b ON b.seq = j.seq
     WHERE q.name = '_behind' AND j.queue = q.queue AND j.unique_key = ?1 AND j.state < 10";

/// In the order in which they are redriven.
pub(super) const DEAD: &str = "SELECT j.created_at, j.seq, j.salt, b.payload
     FROM queues q CROSS JOIN jobs j INDEXED BY jobs_finished CROSS JOIN job_bodies b ON b.seq = j.seq
     WHERE q.name = '_behind' AND j.state = 11 AND j.queue = q.queue AND j.keep_until IS NOT NULL
       AND j.seq NOT IN (SELECT seq FROM job_endings) ORDER BY j.keep_until LIMIT ?1";

const DEAD_ONE: &str = "SELECT j.created_at, j.seq, j.salt, b.payload
     FROM jobs j CROSS JOIN queues q ON q.queue = j.queue CROSS JOIN job_bodies b ON b.seq = j.seq
     WHERE j.seq = ?1 AND j.created_at = ?2 AND j.salt = ?3 AND j.state = 11 AND q.name = '_behind'";

const GRANTED: &str = "SELECT max_attempts FROM jobs WHERE seq = ?1";

/// The first moment, if there is one: each is the first of one partial index. What waits for another job waits for a leased one, or
/// for an end of which it is still to be told.
pub(super) const MOMENTS: &str = "SELECT coalesce(
         (SELECT 0 FROM jobs j INDEXED BY jobs_ready WHERE j.state = 2 AND j.group_key IS NULL AND j.queue = q.queue LIMIT 1),
         (SELECT 0 FROM job_endings WHERE seq > 0 LIMIT 1),
         min(coalesce((SELECT j.due_at FROM jobs j INDEXED BY jobs_due WHERE j.state = 1 AND j.queue = q.queue ORDER BY j.due_at LIMIT 1),
                 9223372036854775807),
             coalesce((SELECT j.lease_until FROM jobs j INDEXED BY jobs_running WHERE j.state = 4 AND j.queue = q.queue
                 ORDER BY j.lease_until LIMIT 1), 9223372036854775807))) AS at
     FROM queues q WHERE q.name = '_behind' AND at < 9223372036854775807";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_marked_during_a_look_is_not_known_to_be_nothing() {
        let known = Known::default();
        assert_eq!(known.look(1).1, None);
        let (stamp, _) = known.look(1);
        known.marks(1);
        known.found(1, false, stamp);
        assert_eq!(known.look(1).1, Some(true));
        let (stamp, _) = known.look(1);
        known.found(1, false, stamp);
        assert_eq!((known.look(1).1, known.look(2).1), (Some(false), None));
        known.marks(1);
        let (stamp, _) = known.look(1);
        for file in 2..=FILES_MAX as u64 + 2 {
            known.marks(file);
        }
        known.found(1, false, stamp);
        assert_eq!(known.look(1).1, None, "it was forgotten meanwhile");
    }
}

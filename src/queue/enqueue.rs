//! Enqueueing. Of several jobs in one request each has its own [`Outcome`], and none of them stands in another's way:
//! what refuses a job is found before anything of it is written, so nothing has to be rolled back.
//!
//! They are added in an order in which each comes after those it waits for ([`Batch`]).
//!
//! A `unique` key is held by at most one job of a queue: an index says so. Whether its holder still holds it is looked at
//! when somebody else wants it, inside the same transaction, so finishing a job costs nothing for it.

use rusqlite::params;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::history::{kept_ms, make_room, prune};
use super::job::{NewJob, OnConflict, Unique};
use super::limit::unblock;
use super::pace::Event;
use super::state::Standing;
use super::wait::Bell;
use super::workflow::{self, Needs, OnFailure};
use super::{Batch, JobId, Made, QueueName, State};
use crate::clock::Millis;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Idempotency, IdempotencyKey, WriteTx};

/// Pages kept free beside a payload's own: for its rows, its index entries and the splits they may cause.
const SPARE_PAGES: u64 = 16;

const ANSWERS: Idempotency = Idempotency::kept_in("idempotency_keys");

/// What became of one job of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    Enqueued(Enqueued),
    /// Nothing was changed for this one.
    Refused(Error),
}

/// A job as it was when it was added.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Enqueued {
    pub id: JobId,
    pub priority: i64,
    pub max_attempts: i64,
    /// The instant from which on it may be claimed.
    pub run_at: Millis,
    pub enqueued_at: Millis,
    /// It was there before and holds the `unique` key; its state now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    existing: Option<i64>,
    /// It waits for others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    waiting: bool,
}

impl Outcome {
    fn id(&self) -> Option<JobId> {
        match self {
            Outcome::Enqueued(made) => Some(made.id),
            Outcome::Refused(_) => None,
        }
    }
}

impl Enqueued {
    pub fn state(&self) -> State {
        match self.existing {
            Some(state) => State::of(state),
            None if self.waiting => State::Waiting,
            None if self.run_at > self.enqueued_at => State::Scheduled,
            None => State::Ready,
        }
    }

    pub fn is_existing(&self) -> bool {
        self.existing.is_some()
    }
}

/// An outcome as it is kept for an `Idempotency-Key`.
#[derive(Deserialize, Serialize)]
enum Kept {
    Enqueued(Enqueued),
    Refused { code: String, message: String, hint: Option<String>, details: Option<serde_json::Value> },
}

pub(super) fn enqueue(
    tx: &WriteTx<'_>,
    queue: &QueueName,
    batch: &Batch,
    by: &str,
    key: Option<&IdempotencyKey>,
    bell: &mut Bell,
    now: Millis,
) -> Result<Made> {
    if let Some(key) = key
        && let Some(answer) = ANSWERS.answered(tx, by, key)?
    {
        let kept: Vec<Kept> = serde_json::from_slice(&answer).map_err(broken)?;
        return Ok(Made::of(kept.into_iter().map(Outcome::from).collect(), batch, true));
    }
    let outcomes = add_all(tx, queue, batch, by, bell, now)?;
    // What was refused whole may be asked for again.
    if let Some(key) = key
        && outcomes.iter().any(|outcome| matches!(outcome, Outcome::Enqueued(_)))
    {
        let kept: Vec<Kept> = outcomes.iter().map(Kept::from).collect();
        ANSWERS.keep(tx, by, key, &serde_json::to_vec(&kept).map_err(broken)?)?;
    }
    Ok(Made::of(outcomes, batch, false))
}

/// An outcome for each job of the batch in its order, then the one of what is to come after them.
pub(super) fn add_all(tx: &WriteTx<'_>, queue: &QueueName, batch: &Batch, by: &str, bell: &mut Bell, now: Millis) -> Result<Vec<Outcome>> {
    let mut line = Line::of(tx, queue, by, bell, now)?;
    let mut order = batch.order();
    let mut outcomes: Vec<_> = batch.jobs.iter().map(|_| None).collect();
    for (place, error) in std::mem::take(&mut order.refused) {
        outcomes[place] = Some(Outcome::Refused(error));
    }
    for &place in &order.places {
        let outcome = match batch.jobs[place].as_ref().map(|job| (job, order.needs(job, &outcomes))) {
            Ok((job, Ok(needs))) => line.add(tx, job, needs, job.on_failure.unwrap_or_default())?,
            Ok((_, Err(error))) => Outcome::Refused(error),
            Err(error) => Outcome::Refused(error.clone()),
        };
        outcomes[place] = Some(outcome);
    }
    if let Some(then) = &batch.then {
        let mut line = Line::of(tx, &then.queue, by, bell, now)?;
        let all: Vec<_> = outcomes.iter().flatten().filter_map(Outcome::id).collect();
        let outcome = match order.needs(&then.job, &outcomes) {
            _ if all.is_empty() => Outcome::Refused(Error::conflict("no job of the batch was added: nothing comes after them")),
            Ok(more) => line.add(tx, &then.job, [all, more].concat(), then.on_failure())?,
            Err(error) => Outcome::Refused(error),
        };
        outcomes.push(Some(outcome));
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// A queue that takes jobs in.
struct Line<'a> {
    name: &'a QueueName,
    number: i64,
    is_drained: bool,
    by: &'a str,
    bell: &'a mut Bell,
    now: Millis,
}

impl<'a> Line<'a> {
    fn of(tx: &WriteTx<'_>, name: &'a QueueName, by: &'a str, bell: &'a mut Bell, now: Millis) -> Result<Line<'a>> {
        let (number, is_drained) = queue_of(tx, name, now)?;
        Ok(Line { name, number, is_drained, by, bell, now })
    }

    fn add(&mut self, tx: &WriteTx<'_>, job: &NewJob, needs: Vec<JobId>, on_failure: OnFailure) -> Result<Outcome> {
        if self.is_drained {
            return Ok(Outcome::Refused(drained(self.name)));
        }
        let (number, now, salt) = (self.number, self.now, Uuid::new_v4().as_u128() as u32);
        prune(tx, number, salt, self.bell, now)?;
        let needs = match Needs::of(tx, needs, on_failure)? {
            Ok(needs) => needs,
            Err(error) => return Ok(Outcome::Refused(error)),
        };
        // An overflow page spends four bytes on the address of the next.
        let pages = (job.payload.len() as u64).div_ceil(tx.page_bounds().0 - 4) + needs.pages() + SPARE_PAGES;
        if !make_room(tx, pages)? {
            return Ok(Outcome::Refused(full()));
        }
        if let Some(unique) = &job.unique
            && let Some(outcome) = self.take_key(tx, unique, &needs)?
        {
            return Ok(outcome);
        }
        let run_at = job.start.at(now);
        let state = match needs.is_waiting() {
            true => State::Waiting,
            false if run_at > now => State::Scheduled,
            false => State::Ready,
        };
        let id = self.insert(tx, job, state, run_at, salt)?;
        needs.follow(tx, id.seq())?;
        self.bell.count(number, Event::Added, 1);
        if state != State::Waiting {
            self.bell.ring(self.name, run_at, now);
        }
        let (priority, max_attempts, waiting) = (job.priority, job.max_attempts, state == State::Waiting);
        Ok(Outcome::Enqueued(Enqueued { id, priority, max_attempts, run_at, enqueued_at: now, existing: None, waiting }))
    }

    fn insert(&self, tx: &WriteTx<'_>, job: &NewJob, state: State, run_at: Millis, salt: u32) -> Result<JobId> {
        tx.execute(
            INSERT_JOB,
            params![
                salt,
                self.number,
                state as i64,
                job.priority,
                run_at,
                job.max_attempts,
                self.now,
                job.ttl_ms.map(|ttl| self.now + ttl),
                job.group,
                job.limit.as_ref().map(|(key, _)| key),
                job.limit.as_ref().map(|(_, max)| max),
                job.unique.as_ref().map(|unique| &unique.key),
                job.unique.as_ref().and_then(|unique| Some(self.now + unique.for_ms?)),
                job.unique.as_ref().map(|unique| unique.states),
                job.rate.as_ref().map(|(key, _)| key),
                job.rate.as_ref().map(|(_, per_s)| per_s),
            ],
        )?;
        let id = JobId::of(self.now, tx.last_insert_rowid(), salt);
        let backoff = job.backoff;
        tx.execute(
            INSERT_BODY,
            params![id.seq(), backoff.kind, backoff.base_ms, backoff.max_ms, job.timeout_ms, self.by, job.payload_type, job.payload],
        )?;
        Ok(id)
    }

    /// Makes the key free, or says what becomes of the job that wants it.
    fn take_key(&mut self, tx: &WriteTx<'_>, unique: &Unique, needs: &Needs) -> Result<Option<Outcome>> {
        let now = self.now;
        let holder = tx.row(HOLDER, params![self.number, unique.key], |row| {
            let standing = Standing {
                state: row.get(5)?,
                due_at: row.get(6)?,
                lease_until: row.get(7)?,
                cancelled: row.get(8)?,
                attempt: row.get(9)?,
                max_attempts: row.get(4)?,
            };
            let state = State::shown(&standing, now);
            let held = row.get::<_, Option<Millis>>(10)?.is_none_or(|until| until > now) && row.get::<_, i64>(11)? & state.bit() != 0;
            let job = Enqueued {
                id: JobId::of(row.get(0)?, row.get(1)?, row.get(2)?),
                priority: row.get(3)?,
                max_attempts: standing.max_attempts,
                run_at: standing.due_at,
                enqueued_at: row.get(0)?,
                existing: Some(state as i64),
                waiting: false,
            };
            Ok((job, state, held, row.get::<_, Option<String>>(12)?, row.get::<_, bool>(13)?))
        })?;
        let Some((job, state, held, limit_key, is_followed)) = holder else { return Ok(None) };
        if held {
            match unique.on_conflict {
                OnConflict::Existing => return Ok(Some(Outcome::Enqueued(job))),
                // One that is waited for is not replaced: its end would come before anybody waits.
                OnConflict::Replace if state != State::Leased && !needs.include(job.id) => {}
                _ => {
                    let error = Error::conflict("another job holds this unique key").detail("job", job.id.to_string());
                    let hint = "That job is in details; on_conflict can be existing, or replace while nobody works on it.";
                    return Ok(Some(Outcome::Refused(error.detail("state", state.as_str()).hint(hint))));
                }
            }
            if !state.is_finished() {
                let keep_until = now + kept_ms(State::Cancelled);
                tx.execute(DROP, params![job.id.seq(), now, keep_until])?;
                if let Some(key) = limit_key
                    && unblock(tx, self.number, &key, now)?
                {
                    self.bell.ring(self.name, now, now);
                }
                if is_followed {
                    workflow::ended(tx, job.id.seq(), State::Cancelled, self.bell, now)?;
                }
            }
        }
        tx.execute(GIVE_UP_KEY, [job.id.seq()])?;
        Ok(None)
    }
}

/// The number of a queue, and whether it is drained; makes the queue if need be.
pub(super) fn queue_of(tx: &WriteTx<'_>, name: &QueueName, now: Millis) -> Result<(i64, bool)> {
    if let Some(queue) = tx.row(QUEUE, [name.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))? {
        return Ok(queue);
    }
    tx.execute(MAKE_QUEUE, params![name.as_str(), now])?;
    Ok((tx.last_insert_rowid(), false))
}

impl From<&Outcome> for Kept {
    fn from(outcome: &Outcome) -> Kept {
        match outcome {
            Outcome::Enqueued(made) => Kept::Enqueued(made.clone()),
            Outcome::Refused(error) => {
                let body = error.body();
                Kept::Refused {
                    code: body.code.to_owned(),
                    message: body.message.to_owned(),
                    hint: body.hint.map(str::to_owned),
                    details: body.details.cloned(),
                }
            }
        }
    }
}

impl From<Kept> for Outcome {
    fn from(kept: Kept) -> Outcome {
        match kept {
            Kept::Enqueued(made) => Outcome::Enqueued(made),
            Kept::Refused { code, message, hint, details } => {
                let code = Code::ALL.into_iter().find(|known| known.as_str() == code).unwrap_or(Code::Conflict);
                let error = Error::new(code, message);
                let error = hint.into_iter().fold(error, Error::hint);
                Outcome::Refused(details.into_iter().fold(error, Error::details))
            }
        }
    }
}

fn broken(cause: serde_json::Error) -> Error {
    Error::internal("an answer kept for an Idempotency-Key", &cause)
}

fn drained(queue: &QueueName) -> Error {
    Error::conflict(format!("the queue {} is drained: it takes no jobs", queue.as_str()))
        .hint("PATCH /v1/queues/{queue} {\"draining\":false} lets it take jobs again.")
}

fn full() -> Error {
    Error::new(Code::QuotaExceeded, "the queue has reached the bytes of the tenant's plan")
        .hint("Claim and finish jobs, which still works, or give the tenant a plan with more queue_bytes.")
}

pub(super) const QUEUE: &str = "SELECT queue, drain_at IS NOT NULL FROM queues WHERE name = ?1";

const MAKE_QUEUE: &str = "INSERT INTO queues (name, created_at) VALUES (?1, ?2)";

const INSERT_JOB: &str = "INSERT INTO jobs (salt, queue, state, priority, due_at, max_attempts, created_at, since, expires_at, group_key,
         limit_key, limit_max, unique_key, unique_until, unique_states, rate_key, rate_per_s)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";

const INSERT_BODY: &str =
    "INSERT INTO job_bodies (seq, backoff, backoff_ms, backoff_max_ms, timeout_ms, enqueued_by, payload_type, payload)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

pub(super) const HOLDER: &str = "SELECT created_at, seq, salt, priority, max_attempts, state, due_at, lease_until, cancel_at IS NOT NULL,
         attempt, unique_until, unique_states, limit_key, followed
     FROM jobs INDEXED BY jobs_unique WHERE queue = ?1 AND unique_key = ?2";

/// Cancels a job that is not finished. A lease it may have had is over.
pub(super) const DROP: &str =
    "UPDATE jobs SET state = 12, since = ?2, keep_until = ?3, lease_token = NULL, lease_until = NULL WHERE seq = ?1";

const GIVE_UP_KEY: &str = "UPDATE jobs SET unique_key = NULL WHERE seq = ?1";

//! A [`Queue`] is a tenant's queue file seen as named queues of jobs. A job is `ready` (or `waiting` for others to end, or
//! `scheduled` for later, or `blocked` by its limit), is `leased` to one worker at a time, and ends `done`, `dead` (out of attempts), `cancelled`
//! or `expired`.
//!
//! - What [`Queue::enqueue`] acknowledged is on the disk: the file commits with a flush.
//! - A lease is a token and an instant. Before that instant nobody else gets the job; from it on the token is
//!   worth nothing, whether or not somebody else has the job by then. A token is random, and new for each try. Who
//!   shows a stale one changes nothing.
//! - A claim takes the highest priority first and within it the oldest; groups of a queue take turns. It looks at as
//!   many rows as it hands out, plus at most [`STAGED`] that fall due, whose lease ended, that expired and that are
//!   over their limit, however many jobs wait.
//! - How many are leased under a limit is counted from the leases themselves, so nothing can leak.
//! - Finished jobs are history: kept for a while by state ([`kept_ms`]), deleted a few at a time by later enqueues, and
//!   done ones earlier when the file is full. A part of the file is kept back from enqueueing, so that a full queue can
//!   still be worked off.
//!
//! Each public method is one transaction or, where it says so, several; the private functions borrow it.

mod batch;
mod claim;
mod control;
mod enqueue;
mod history;
mod id;
mod job;
mod lease;
mod limit;
mod look;
mod name;
mod rate;
mod state;
mod wait;
mod workflow;

use std::sync::Arc;

use uuid::Uuid;

pub use batch::{BATCH_MAX, Batch, DEPENDS_MAX, Then};
pub use claim::{CLAIM_BYTES, CLAIM_MAX, Claim, Claimed, Found, LEASE_MAX_S, QUEUES_MAX, STAGED};
pub use control::{Moved, Redrive, STEP_MAX, Settings};
pub use enqueue::{Enqueued, Outcome};
pub use history::{DEAD_KEPT_MS, DONE_KEPT_MS, kept_ms};
pub use id::JobId;
pub use job::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, DELAY_MAX_S, JobRequest, NewJob, PAYLOAD_BYTES, PRIORITY_MAX};
pub use lease::{ERROR_BYTES, NOTE_BYTES, Nack, Step};
pub use look::{Attempt, COUNTED, Depth, Job, JobDetail, Page, QueueRow};
pub use name::QueueName;
pub use state::State;
pub use wait::{WAITING_MAX, Waiters, Waiting};
pub use workflow::{OnFailure, Waits};

use crate::clock::now_ms;
use crate::error::Result;
use crate::sqlite::{Database, IdempotencyKey, Limits};
use wait::Bell;

/// Transactions of one claim that finds only jobs over their limit or rate, [`STAGED`] at a time.
const ROUNDS: u32 = 16;

/// The queue engine over one file. Borrows the file for a call; the file keeps everything there is to know.
pub struct Queue<'a> {
    file: &'a Arc<Database>,
    waiters: &'a Arc<Waiters>,
    limits: Limits,
}

impl<'a> Queue<'a> {
    /// `waiters` are told what becomes ready.
    pub fn new(file: &'a Arc<Database>, waiters: &'a Arc<Waiters>) -> Self {
        Queue { file, waiters, limits: Limits::default() }
    }

    /// Adds jobs for `by` (the token's subject), each with an outcome of its own, in one transaction; or finds what an
    /// earlier call with `key` came to. Errors: `conflict` when `key` came with another request. An outcome's:
    /// `quota_exceeded` when the plan's bytes are used up, `conflict` for a `unique` key that is held, for a queue
    /// that is drained and for a job to wait for that has failed, `not_found` for one that is not there, and those that
    /// came in.
    pub async fn enqueue(&self, queue: &QueueName, batch: Batch, by: &str, key: Option<IdempotencyKey>) -> Result<Made> {
        let (queue, by, mut bell) = (queue.clone(), by.to_owned(), self.bell());
        self.file.write(self.limits, move |tx| enqueue::enqueue(tx, &queue, &batch, &by, key.as_ref(), &mut bell, now_ms())).await
    }

    /// Leases jobs that are ready, at most as many as `claim` asks for and never more than [`CLAIM_BYTES`] of payloads
    /// unless it is one job; from the first of `queues` as many as it has, then from the next. None is no error.
    pub async fn claim(&self, queues: &[QueueName], claim: Claim) -> Result<Found> {
        let mut round = 0;
        loop {
            let (queues, mut bell) = (queues.to_vec(), self.bell());
            let found = self.file.write(self.limits, move |tx| claim::claim(tx, &queues, claim, &mut bell, now_ms())).await?;
            round += 1;
            // It may have been busy with jobs that are over their limit; each of them is moved once, by whichever claim.
            if !found.jobs.is_empty() || !found.unfinished || round == ROUNDS {
                return Ok(found);
            }
        }
    }

    /// Finishes a job and keeps `result`, JSON; nothing to do if `lease_token` has finished it. Errors: `not_found` for
    /// a job that never was or is long finished, `lease_lost` when `lease_token` is not (or no longer) the one that
    /// holds it.
    pub async fn ack(&self, id: JobId, lease_token: &str, result: Option<String>) -> Result<()> {
        let (token, mut bell) = (lease::token(id, lease_token)?, self.bell());
        self.file.write(self.limits, move |tx| lease::ack(tx, id, token, result.as_deref(), &mut bell, now_ms())).await
    }

    /// The try failed: the job waits for the next one, or is dead. Errors as for [`Queue::ack`].
    pub async fn nack(&self, id: JobId, lease_token: &str, nack: Nack) -> Result<Step> {
        let (token, mut bell, chance) = (lease::token(id, lease_token)?, self.bell(), Uuid::new_v4().as_u128() as u32);
        self.file.write(self.limits, move |tx| lease::nack(tx, id, token, &nack, chance, &mut bell, now_ms())).await
    }

    /// Puts the job off without spending the try. Errors as for [`Queue::ack`].
    pub async fn snooze(&self, id: JobId, lease_token: &str, delay_s: i64) -> Result<Step> {
        let (token, mut bell) = (lease::token(id, lease_token)?, self.bell());
        let delay_ms = job::within("delay_s", delay_s, 1, DELAY_MAX_S)? * 1_000;
        self.file.write(self.limits, move |tx| lease::snooze(tx, id, token, delay_ms, &mut bell, now_ms())).await
    }

    /// Holds the job for `lease_s` from now on, as far as its `timeout_s` goes, and leaves word of how far the work is.
    /// Either may be absent. Errors as for [`Queue::ack`].
    pub async fn extend(&self, id: JobId, lease_token: &str, lease_s: Option<i64>, progress: Option<String>) -> Result<Step> {
        let token = lease::token(id, lease_token)?;
        let lease_ms = lease_s.map(|s| job::within("lease_s", s, 1, LEASE_MAX_S)).transpose()?.map(|s| s * 1_000);
        self.file.write(self.limits, move |tx| lease::extend(tx, id, token, lease_ms, progress.as_deref(), now_ms())).await
    }

    /// Ends a job that nobody has begun; asks the worker of a leased one to stop. Errors: `not_found`; `conflict` for a
    /// job that is finished otherwise.
    pub async fn cancel(&self, id: JobId) -> Result<State> {
        let mut bell = self.bell();
        self.file.write(self.limits, move |tx| control::cancel(tx, id, &mut bell, now_ms())).await
    }

    /// Changes what a queue lets through; makes the queue if need be.
    pub async fn set(&self, queue: &QueueName, settings: Settings) -> Result<QueueRow> {
        let (queue, mut bell) = (queue.clone(), self.bell());
        self.file.write(self.limits, move |tx| control::set(tx, &queue, settings, &mut bell, now_ms())).await
    }

    /// Makes dead jobs ready again, oldest death first, with so many more attempts; in several transactions.
    pub async fn redrive(&self, queue: &QueueName, redrive: Redrive) -> Result<Moved> {
        let redrive = Arc::new(redrive);
        self.in_steps(redrive.max(), |most| {
            let (queue, redrive, mut bell) = (queue.clone(), redrive.clone(), self.bell());
            self.file.write(self.limits, move |tx| control::redrive(tx, &queue, &redrive, most, &mut bell, now_ms()))
        })
        .await
    }

    /// Deletes finished jobs of a state, oldest first; in several transactions. Errors: `bad_request` for a state that
    /// is not an end.
    pub async fn purge(&self, queue: &QueueName, state: State, ids: Option<Vec<JobId>>) -> Result<Moved> {
        control::purgeable(state)?;
        let ids = Arc::new(ids);
        self.in_steps(control::MOVED_MAX, |most| {
            let (queue, ids, mut bell) = (queue.clone(), ids.clone(), self.bell());
            self.file.write(self.limits, move |tx| control::purge(tx, &queue, state, ids.as_ref().as_deref(), most, &mut bell, now_ms()))
        })
        .await
    }

    /// Errors: `not_found`.
    pub async fn job(&self, id: JobId) -> Result<JobDetail> {
        self.file.read(self.limits, move |reader| look::job(reader, id, now_ms())).await
    }

    /// Jobs of a queue in a state, `limit` at most, from where `after` (a page's `next_cursor`) ended.
    pub async fn list(&self, queue: &QueueName, state: State, limit: i64, after: Option<&str>) -> Result<Page> {
        let (queue, after) = (queue.clone(), after.map(look::Cursor::parse).transpose()?);
        self.file.read(self.limits, move |reader| look::list(reader, &queue, state, limit, after, now_ms())).await
    }

    /// How much there is to do. Errors: `not_found`.
    pub async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        let queue = queue.clone();
        self.file.read(self.limits, move |reader| look::depth(reader, &queue, now_ms())).await
    }

    /// The queues by name, `limit` at most, after the name `after`.
    pub async fn queues(&self, limit: i64, after: Option<String>) -> Result<Vec<QueueRow>> {
        self.file.read(self.limits, move |reader| look::queues(reader, limit, after.as_deref().unwrap_or(""))).await
    }

    /// Runs `step` with how many it may move until it moved fewer, or `most` altogether.
    async fn in_steps<F: Future<Output = Result<usize>>>(&self, most: usize, step: impl Fn(usize) -> F) -> Result<Moved> {
        let mut moved = 0;
        loop {
            let asked = STEP_MAX.min(most - moved);
            let now = step(asked).await?;
            moved += now;
            if now < asked || moved >= most {
                return Ok(Moved { moved, more: now == asked });
            }
        }
    }

    fn bell(&self) -> Bell {
        Bell::new(self.waiters, self.file)
    }
}

/// What [`Queue::enqueue`] came to, an outcome for each job in their order.
#[derive(Debug)]
pub struct Made {
    pub outcomes: Vec<Outcome>,
    /// Of what is to come after them.
    pub then: Option<Outcome>,
    /// It is what an earlier call with the same `Idempotency-Key` came to.
    pub replayed: bool,
}

impl Made {
    fn of(mut outcomes: Vec<Outcome>, batch: &Batch, replayed: bool) -> Made {
        let then = if batch.then.is_some() { outcomes.pop() } else { None };
        Made { outcomes, then, replayed }
    }
}

#[cfg(test)]
mod tests;

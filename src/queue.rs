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
//! - Finished jobs are history: kept for a while by state ([`Retention`]), deleted a few at a time by later enqueues and idle
//!   claims, and done ones earlier when the file is full. A part of the file is kept back from enqueueing, so that a full queue can
//!   still be worked off.
//!
//! Each public method is one transaction or, where it says so, several; the private functions borrow it.

mod batch;
mod behind;
mod calendar;
mod claim;
mod control;
mod enqueue;
mod history;
mod id;
mod inbox;
mod job;
mod lease;
mod limit;
mod look;
mod name;
mod pace;
mod rate;
mod schedule;
mod stage;
mod state;
mod wait;
pub mod webhook;
mod workflow;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use uuid::Uuid;

pub use batch::{BATCH_MAX, Batch, DEPENDS_MAX, Then};
pub use behind::AT_ONCE;
pub use claim::{CLAIM_BYTES, CLAIM_MAX, Claim, Claimed, Found, LEASE_MAX_S, QUEUES_MAX};
pub use control::{Moved, Redrive, STEP_MAX, Settings};
pub use enqueue::{Enqueued, Outcome};
pub use history::{DEAD_KEPT_MS, DONE_KEPT_MS, KEPT_MAX_S, Retention, kept_ms};
pub use id::JobId;
pub use inbox::{Letter, Mark, TakenIn};
pub use job::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, DELAY_MAX_S, JobRequest, NewJob, PAYLOAD_BYTES, PRIORITY_MAX};
pub use lease::{ERROR_BYTES, NOTE_BYTES, Nack, Step};
pub use look::{Attempt, COUNTED, Depth, Job, JobDetail, Page, QueueRow};
pub use name::QueueName;
pub use pace::{Paces, PerSecond, Rates};
pub use schedule::{Misfire, NewSchedule, Schedule};
pub use stage::STAGED;
pub use state::State;
pub use wait::{WAITING_MAX, Waiters, Waiting};
pub use webhook::{Delivery, NewWebhook, Post, Secret, Webhook};
pub use workflow::{OnFailure, Waits};

use crate::clock::{Millis, now_ms};
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, IdempotencyKey, Limits, Reader, WriteTx};
use crate::system::secret::random;
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
        let (queue, by) = (queue.clone(), by.to_owned());
        self.write(move |tx, bell, now| enqueue::enqueue(tx, &queue, &batch, &by, key.as_ref(), bell, now)).await
    }

    /// Leases jobs that are ready, at most as many as `claim` asks for and never more than [`CLAIM_BYTES`] of payloads
    /// unless it is one job; from the first of `queues` as many as it has, then from the next. None is no error.
    pub async fn claim(&self, queues: &[QueueName], claim: Claim) -> Result<Found> {
        let mut round = 0;
        loop {
            let queues = queues.to_vec();
            let found = self.write(move |tx, bell, now| claim::claim(tx, &queues, claim, bell, now)).await?;
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
        let token = lease::token(id, lease_token)?;
        self.write(move |tx, bell, now| lease::ack(tx, id, token, result.as_deref(), bell, now)).await
    }

    /// Until when the token holds the job; `None` when it has finished it. Errors as for [`Queue::ack`].
    pub async fn held_until(&self, id: JobId, lease_token: &str) -> Result<Option<Millis>> {
        let token = lease::token(id, lease_token)?;
        self.file.read(self.limits, move |reader| lease::held_until(reader, id, token, now_ms())).await
    }

    /// Parts jobs into those that nobody will work on any more and the others.
    pub async fn are_over(&self, ids: Vec<Uuid>) -> Result<(Vec<Uuid>, Vec<Uuid>)> {
        let is_over = move |reader: &Reader<'_>| {
            let (mut over, mut others) = (Vec::new(), Vec::new());
            for id in ids {
                let is_over = JobId::try_from(id).map_or(Ok(true), |id| lease::is_over(reader, id))?;
                if is_over { over.push(id) } else { others.push(id) }
            }
            Ok((over, others))
        };
        self.file.read(self.limits, is_over).await
    }

    /// The try failed: the job waits for the next one, or is dead. Errors as for [`Queue::ack`].
    pub async fn nack(&self, id: JobId, lease_token: &str, nack: Nack) -> Result<Step> {
        let (token, chance) = (lease::token(id, lease_token)?, Uuid::new_v4().as_u128() as u32);
        self.write(move |tx, bell, now| lease::nack(tx, id, token, &nack, chance, bell, now)).await
    }

    /// Puts the job off without spending the try. Errors as for [`Queue::ack`].
    pub async fn snooze(&self, id: JobId, lease_token: &str, delay_s: i64) -> Result<Step> {
        let token = lease::token(id, lease_token)?;
        let delay_ms = job::within("delay_s", delay_s, 1, DELAY_MAX_S)? * 1_000;
        self.write(move |tx, bell, now| lease::snooze(tx, id, token, delay_ms, bell, now)).await
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
        self.write(move |tx, bell, now| control::cancel(tx, id, bell, now)).await
    }

    /// Changes what a queue lets through and how long it keeps what has ended; makes the queue if need be. What it keeps no
    /// longer is deleted in further transactions, and what they leave by later ones.
    pub async fn set(&self, queue: &QueueName, settings: Settings) -> Result<QueueRow> {
        let name = queue.clone();
        let row = self.write(move |tx, bell, now| control::set(tx, &name, settings, bell, now)).await?;
        if settings.retention.is_some() {
            self.in_steps(control::MOVED_MAX, |most| {
                let queue = queue.clone();
                self.write(move |tx, bell, now| control::clear(tx, &queue, most, bell, now))
            })
            .await?;
        }
        Ok(row)
    }

    /// Makes dead jobs ready again, oldest death first, with so many more attempts; in several transactions.
    pub async fn redrive(&self, queue: &QueueName, redrive: Redrive) -> Result<Moved> {
        let redrive = Arc::new(redrive);
        let moved = self.in_steps(redrive.max(), |most| {
            let (queue, redrive) = (queue.clone(), redrive.clone());
            self.write(move |tx, bell, now| control::redrive(tx, &queue, &redrive, most, bell, now))
        });
        let moved = moved.await;
        if queue.is_behind() {
            self.waiters.behind.marks(self.file.serial());
        }
        moved
    }

    /// Deletes finished jobs of a state, oldest first; in several transactions. Errors: `bad_request` for a state that
    /// is not an end.
    pub async fn purge(&self, queue: &QueueName, state: State, ids: Option<Vec<JobId>>) -> Result<Moved> {
        control::purgeable(state)?;
        let ids = Arc::new(ids);
        self.in_steps(control::MOVED_MAX, |most| {
            let (queue, ids) = (queue.clone(), ids.clone());
            self.write(move |tx, bell, now| control::purge(tx, &queue, state, ids.as_ref().as_deref(), most, bell, now))
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
        let (queue, waiters, owner) = (queue.clone(), self.waiters.clone(), self.file.owner());
        let rates = move |number| waiters.paces().rates(owner, number);
        self.file.read(self.limits, move |reader| look::depth(reader, &queue, rates)).await
    }

    /// The queues by name, `limit` at most, after the name `after`.
    pub async fn queues(&self, limit: i64, after: Option<String>) -> Result<Vec<QueueRow>> {
        self.file.read(self.limits, move |reader| look::queues(reader, limit, after.as_deref().unwrap_or(""))).await
    }

    /// Sets a schedule; what was said before under its name is over at once. Errors: `bad_request` for its name,
    /// `conflict` when there are too many.
    pub async fn schedule(&self, queue: &QueueName, name: &str, new: NewSchedule, by: &str) -> Result<Schedule> {
        let (queue, name, by) = (queue.clone(), name.to_owned(), by.to_owned());
        self.write(move |tx, bell, now| schedule::put(tx, &queue, &name, &new, &by, bell, now)).await
    }

    /// Pauses a schedule or lets it go on. Errors: `not_found`.
    pub async fn pause_schedule(&self, queue: &QueueName, name: &str, paused: bool) -> Result<Schedule> {
        let (queue, name) = (queue.clone(), name.to_owned());
        self.write(move |tx, bell, now| schedule::pause(tx, &queue, &name, paused, bell, now)).await
    }

    /// Errors: `not_found`.
    pub async fn delete_schedule(&self, queue: &QueueName, name: &str) -> Result<()> {
        let (queue, name) = (queue.clone(), name.to_owned());
        self.file.write(self.limits, move |tx| schedule::delete(tx, &queue, &name)).await
    }

    /// Enqueues a schedule's job now, beside its runs. Errors: `not_found`, and those of enqueueing.
    pub async fn run_schedule(&self, queue: &QueueName, name: &str) -> Result<Enqueued> {
        let (queue, name) = (queue.clone(), name.to_owned());
        self.write(move |tx, bell, now| schedule::run_now(tx, &queue, &name, bell, now)).await
    }

    /// Errors: `not_found`.
    pub async fn schedule_of(&self, queue: &QueueName, name: &str) -> Result<Schedule> {
        let (queue, name) = (queue.clone(), name.to_owned());
        self.file.read(self.limits, move |reader| schedule::get(reader, &queue, &name, now_ms())).await
    }

    /// A queue's schedules by name, `limit` at most, after the name `after`.
    pub async fn schedules(&self, queue: &QueueName, limit: i64, after: Option<String>) -> Result<Vec<Schedule>> {
        let queue = queue.clone();
        self.file.read(self.limits, move |reader| schedule::list(reader, &queue, limit, after.as_deref().unwrap_or(""), now_ms())).await
    }

    /// Sets where a queue's jobs are delivered; and the secret, if one was made for it. Errors: `conflict` when there are
    /// too many.
    pub async fn set_webhook(&self, queue: &QueueName, new: NewWebhook) -> Result<(Webhook, Option<Secret>)> {
        let (queue, fresh) = (queue.clone(), Secret::from_bytes(random()?));
        let made = fresh.clone();
        let (webhook, was_taken) = self.write(move |tx, bell, now| webhook::put(tx, &queue, &new, &fresh, bell, now)).await?;
        Ok((webhook, was_taken.then_some(made)))
    }

    /// Gives a webhook another secret; for `overlap_s` the one before signs too. Errors: `not_found`.
    pub async fn rotate_webhook(&self, queue: &QueueName, overlap_s: Option<i64>) -> Result<(Webhook, Secret)> {
        let (queue, fresh, overlap_ms) = (queue.clone(), Secret::from_bytes(random()?), webhook::overlap_ms(overlap_s)?);
        let made = fresh.clone();
        let rotate = move |tx: &WriteTx<'_>| webhook::rotate(tx, &queue, &fresh, overlap_ms, now_ms());
        Ok((self.file.write(self.limits, rotate).await?, made))
    }

    /// Errors: `not_found`.
    pub async fn delete_webhook(&self, queue: &QueueName) -> Result<()> {
        let queue = queue.clone();
        self.file.write(self.limits, move |tx| webhook::delete(tx, &queue)).await
    }

    /// Errors: `not_found`.
    pub async fn webhook(&self, queue: &QueueName) -> Result<Webhook> {
        let queue = queue.clone();
        self.file.read(self.limits, move |reader| webhook::get(reader, &queue, now_ms())).await
    }

    /// Enqueues the runs that are due, and tells of ends that many wait for; in several transactions.
    pub async fn fire(&self) -> Result<()> {
        let next_at = self.file.read(self.limits, schedule::next_at).await?;
        if next_at.is_some_and(|at| at <= now_ms()) {
            while self.write(schedule::fire).await? {}
        }
        while self.file.read(self.limits, |reader| workflow::next_at(reader, now_ms())).await?.is_some() {
            self.write(workflow::tell).await?;
        }
        Ok(())
    }

    /// How far the database's outbox has been taken in.
    pub async fn mark(&self) -> Result<Mark> {
        self.file.read(self.limits, inbox::mark).await
    }

    /// Takes in what stands in the outbox behind `mark`, in its order; the database has all that the mark says.
    pub async fn take_in(&self, mark: i64, letters: Vec<Letter>) -> Result<TakenIn> {
        match self.write(move |tx, bell, now| inbox::take_in(tx, mark, &letters, bell, now)).await {
            // Not for want of room for a job, which is looked at before, but for a row beside it: all of them wait.
            Err(error) if error.code() == Code::QuotaExceeded => self.write(move |tx, bell, now| inbox::leave(tx, mark, bell, now)).await,
            taken => taken,
        }
    }

    /// When the part of the outbox that waits for room is to be taken in again.
    pub async fn outbox_retry_at(&self) -> Result<Option<Millis>> {
        self.file.read(self.limits, inbox::retry_at).await
    }

    /// Claims what is to be delivered now, `room` jobs at most; `under_way` is what is being delivered, by queue.
    pub async fn deliveries(&self, under_way: HashMap<QueueName, usize>, room: usize) -> Result<Vec<Delivery>> {
        self.write(move |tx, bell, now| webhook::take(tx, &under_way, room, bell, now)).await
    }

    /// Writes down what a delivery came to.
    pub async fn delivered(&self, delivery: Delivery, outcome: webhook::Outcome) -> Result<()> {
        let chance = Uuid::new_v4().as_u128() as u32;
        self.write(move |tx, bell, now| webhook::settle(tx, &delivery, &outcome, chance, bell, now)).await
    }

    /// Has what an earlier process of the server left at work begun again now, not when its lease ends. To be asked before
    /// anything is claimed here.
    pub async fn end_left(&self) -> Result<()> {
        self.write(lease::end_left).await
    }

    /// When there is something to do next, though nobody asks; `under_way` as for [`Queue::deliveries`].
    pub async fn moments(&self, under_way: HashMap<QueueName, usize>) -> Result<Moments> {
        let look = move |reader: &Reader<'_>| {
            let fire = schedule::next_at(reader)?.into_iter().chain(workflow::next_at(reader, now_ms())?).min();
            let deliver = webhook::next_at(reader, &under_way, now_ms())?;
            Ok(Moments { fire, deliver, write: behind::next_at(reader, &under_way)? })
        };
        self.file.read(self.limits, look).await
    }

    /// The queues that the server itself works on.
    pub async fn pushed(&self) -> Result<Vec<QueueName>> {
        self.file.read(self.limits, webhook::queues).await
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

    /// Runs `step` in a transaction that says what it makes ready. If somebody has to look at that though nobody asks, it
    /// is undone first, and done again once that is sure to happen.
    async fn write<T: Send + 'static>(
        &self,
        step: impl Fn(&WriteTx<'_>, &mut Bell, Millis) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let (step, to_hold) = (Arc::new(step), Arc::new(AtomicI64::new(Millis::MAX)));
        let mut hold = self.waiters.held(self.file);
        loop {
            to_hold.store(Millis::MAX, SeqCst);
            let (step, missing, mut bell) = (step.clone(), to_hold.clone(), Bell::new(self.waiters, self.file, hold));
            let attempt = move |tx: &WriteTx<'_>| {
                bell.quieten();
                let made = step(tx, &mut bell, now_ms())?;
                let at = bell.not_held(tx)?.unwrap_or(Millis::MAX);
                missing.store(at, SeqCst);
                if at == Millis::MAX {
                    Ok((made, bell.counted()))
                } else {
                    Err(Error::conflict("nobody is sure to look at what this makes ready"))
                }
            };
            let done = self.file.write(self.limits, attempt).await;
            match to_hold.load(SeqCst) {
                Millis::MAX => {
                    let (made, counted) = done?;
                    self.waiters.paces().count(self.file.owner(), counted);
                    return Ok(made);
                }
                at => hold = self.waiters.hold(self.file, at).await?,
            }
        }
    }
}

/// When there is something to do next; `None` for what waits for something else than time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    /// For [`Queue::fire`].
    pub fire: Option<Millis>,
    /// For [`Queue::deliveries`].
    pub deliver: Option<Millis>,
    /// For [`Queue::writes`].
    pub write: Option<Millis>,
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

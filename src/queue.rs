//! A [`Queue`] is a tenant's queue file seen as named queues of jobs. A job is `ready` (or `scheduled` for
//! later), is `leased` to one worker at a time, and ends `done` or, out of attempts, `dead`.
//!
//! - What [`Queue::enqueue`] acknowledged is on the disk: the file commits with a flush.
//! - A lease is a token and an instant. Before that instant nobody else gets the job; from it on the token is
//!   worth nothing, whether or not somebody else has the job by then. A token is random, and new for each try.
//! - A claim takes the highest priority first and within it the oldest. It looks at as many rows as it hands
//!   out, plus at most [`STAGED`] that fall due and [`STAGED`] whose lease ended, however many jobs wait.
//! - Finished jobs are history: kept for [`DONE_KEPT_MS`] and [`DEAD_KEPT_MS`], deleted a few at a time by
//!   later enqueues, and done ones earlier when the file is full. A part of the file is kept back from
//!   enqueueing, so that a full queue can still be worked off.

mod claim;
mod id;
mod job;
mod name;

use std::sync::Arc;

use rusqlite::params;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use claim::{CLAIM_BYTES, CLAIM_MAX, Claim, Claimed, LEASE_MAX_S, STAGED};
pub use id::JobId;
pub use job::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, DELAY_MAX_S, NewJob, PAYLOAD_BYTES, PRIORITY_MAX};
pub use name::QueueName;

use crate::clock::{Millis, now_ms};
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, Idempotency, IdempotencyKey, Limits, WriteTx, has_room};

/// How long a done job's row stays, in milliseconds: an hour.
pub const DONE_KEPT_MS: Millis = 3_600_000;

/// How long a dead job's row stays, in milliseconds: fourteen days.
pub const DEAD_KEPT_MS: Millis = 14 * 86_400_000;

/// Finished jobs deleted at once: more than were enqueued since, so that pruning gains on enqueueing.
const PRUNED: u32 = 64;

/// One enqueue in so many deletes them.
const PRUNING: u32 = 16;

/// Done jobs deleted by one commit that makes room.
const CLEARED: u32 = 256;

/// Commits that make room for one enqueue before it is refused.
const ROUNDS: u32 = 16;

/// Pages kept free beside a payload's own: for its rows, its index entries and the splits they may cause.
const SPARE_PAGES: u64 = 16;

/// Pages that enqueueing leaves to claims and acknowledgements, at most; a sixteenth of a small file.
const RESERVED_PAGES: u64 = 256;

/// The queue engine over one file. Borrows the file for a call; the file keeps everything there is to know.
pub struct Queue<'a> {
    file: &'a Arc<Database>,
    limits: Limits,
}

/// What [`Queue::enqueue`] made, as it was at that instant.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Enqueued {
    pub id: JobId,
    pub priority: i64,
    pub max_attempts: i64,
    /// The instant from which on it may be claimed.
    pub run_at: Millis,
    pub enqueued_at: Millis,
    /// It was made by an earlier call with the same `Idempotency-Key`.
    #[serde(skip)]
    pub replayed: bool,
}

impl Enqueued {
    /// `ready`, or `scheduled` when it was enqueued for later.
    pub fn state(&self) -> &'static str {
        if self.run_at > self.enqueued_at { "scheduled" } else { "ready" }
    }
}

const ANSWERS: Idempotency = Idempotency::kept_in("idempotency_keys");

/// What one commit of [`Queue::enqueue`] came to.
enum Step {
    Enqueued(Enqueued),
    /// History was cleared; there may be room now.
    Cleared,
    /// There is no history left to clear.
    NoRoom,
}

impl<'a> Queue<'a> {
    pub fn new(file: &'a Arc<Database>) -> Self {
        Queue { file, limits: Limits::default() }
    }

    /// Adds a job for `by` (the token's subject), or finds the one that an earlier call with `key` added. Errors:
    /// `quota_exceeded` when the plan's bytes are used up, `conflict` when `key` came with another request.
    pub async fn enqueue(&self, queue: &QueueName, job: NewJob, by: &str, key: Option<IdempotencyKey>) -> Result<Enqueued> {
        let (queue, job, key, by): (_, _, _, Arc<str>) = (queue.clone(), Arc::new(job), Arc::new(key), by.into());
        for _ in 0..ROUNDS {
            let (queue, job, key, by) = (queue.clone(), job.clone(), key.clone(), by.clone());
            match self.file.write(self.limits, move |tx| enqueue(tx, &queue, &job, &by, key.as_ref().as_ref(), now_ms())).await? {
                Step::Enqueued(made) => return Ok(made),
                Step::Cleared => continue,
                Step::NoRoom => break,
            }
        }
        Err(full())
    }

    /// Leases jobs of `queue` that are ready, at most as many as `claim` asks for and never more than
    /// [`CLAIM_BYTES`] of payloads unless it is one job. None is no error.
    pub async fn claim(&self, queue: &QueueName, claim: Claim) -> Result<Vec<Claimed>> {
        let queue = queue.clone();
        self.file.write(self.limits, move |tx| claim::claim(tx, &queue, claim, now_ms())).await
    }

    /// Finishes a job; nothing to do if `lease_token` has finished it. Errors: `not_found` for a job that never was or is long finished, `lease_lost` when
    /// `lease_token` is not (or no longer) the one that holds it.
    pub async fn ack(&self, id: JobId, lease_token: &str) -> Result<()> {
        let token = Uuid::try_parse(lease_token).map_err(|_| lease_lost(id))?;
        self.file.write(self.limits, move |tx| ack(tx, id, token, now_ms())).await
    }
}

fn enqueue(tx: &WriteTx<'_>, queue: &QueueName, job: &NewJob, by: &str, key: Option<&IdempotencyKey>, now: Millis) -> Result<Step> {
    let broken = |cause: serde_json::Error| Error::internal("an answer kept for an Idempotency-Key", &cause);
    if let Some(key) = key
        && let Some(answer) = ANSWERS.answered(tx, by, key)?
    {
        let made: Enqueued = serde_json::from_slice(&answer).map_err(broken)?;
        return Ok(Step::Enqueued(Enqueued { replayed: true, ..made }));
    }
    let salt = Uuid::new_v4().as_u128() as u32;
    let queue = queue_of(tx, queue, now)?;
    if salt.is_multiple_of(PRUNING) {
        prune(tx, queue, salt, now)?;
    }
    let (page_bytes, max_pages) = tx.page_bounds();
    // An overflow page spends four bytes on the address of the next.
    let pages = (job.payload().len() as u64).div_ceil(page_bytes - 4) + SPARE_PAGES;
    if !has_room(tx, pages, RESERVED_PAGES.min(max_pages / 16))? {
        return Ok(if tx.execute(CLEAR, [CLEARED])? > 0 { Step::Cleared } else { Step::NoRoom });
    }
    let (priority, max_attempts, run_at) = (job.priority(), job.max_attempts(), now + job.delay_ms());
    let state = if run_at > now { 1 } else { 2 };
    tx.execute(INSERT_JOB, params![salt, queue, state, priority, run_at, max_attempts, now])?;
    let id = JobId::of(now, tx.last_insert_rowid(), salt);
    tx.execute(INSERT_BODY, params![id.seq(), by, job.payload()])?;
    let made = Enqueued { id, priority, max_attempts, run_at, enqueued_at: now, replayed: false };
    if let Some(key) = key {
        ANSWERS.keep(tx, by, key, &serde_json::to_vec(&made).map_err(broken)?)?;
    }
    Ok(Step::Enqueued(made))
}

/// The number of a queue; makes the queue if need be.
fn queue_of(tx: &WriteTx<'_>, name: &QueueName, now: Millis) -> Result<i64> {
    if let Some(queue) = tx.row(QUEUE, [name.as_str()], |row| row.get(0))? {
        return Ok(queue);
    }
    tx.execute(MAKE_QUEUE, params![name.as_str(), now])?;
    Ok(tx.last_insert_rowid())
}

/// Deletes history of this queue, and of another by chance, so that a queue nobody enqueues to is cleared as well.
fn prune(tx: &WriteTx<'_>, queue: i64, chance: u32, now: Millis) -> Result<()> {
    let last: i64 = tx.row(LAST_QUEUE, [], |row| row.get(0))?.unwrap_or(queue);
    for queue in [queue, 1 + i64::from(chance / PRUNING) % last.max(1)] {
        for history in [PRUNE_DONE, PRUNE_DEAD] {
            tx.execute(history, params![queue, now, PRUNED])?;
        }
    }
    Ok(())
}

fn ack(tx: &WriteTx<'_>, id: JobId, token: Uuid, now: Millis) -> Result<()> {
    let (is_held, is_done): (bool, bool) = tx
        .row(FIND, params![id.seq(), id.created_at(), id.salt(), token.as_bytes(), now], |row| Ok((row.get(0)?, row.get(1)?)))?
        .ok_or_else(|| id::not_found(id))?;
    if is_held {
        tx.execute(FINISH, params![id.seq(), now, now + DONE_KEPT_MS])?;
    }
    if is_held || is_done { Ok(()) } else { Err(lease_lost(id)) }
}

fn lease_lost(id: JobId) -> Error {
    Error::new(Code::LeaseLost, format!("this lease token does not hold job {id} (any more)"))
        .hint("The lease ended, or the job was finished. Drop what was done, or make it safe to do twice; then claim again.")
}

fn full() -> Error {
    Error::new(Code::QuotaExceeded, "the queue has reached the bytes of the tenant's plan")
        .hint("Claim and finish jobs, which still works, or give the tenant a plan with more queue_bytes.")
}

const QUEUE: &str = "SELECT queue FROM queues WHERE name = ?1";

const LAST_QUEUE: &str = "SELECT max(queue) FROM queues";

const MAKE_QUEUE: &str = "INSERT INTO queues (name, created_at) VALUES (?1, ?2)";

// A job's other rows go with it, by their foreign keys.

const PRUNE_DONE: &str = "DELETE FROM jobs WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 10 AND queue = ?1 AND keep_until <= ?2 ORDER BY keep_until LIMIT ?3)";

const PRUNE_DEAD: &str = "DELETE FROM jobs WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 11 AND queue = ?1 AND keep_until <= ?2 ORDER BY keep_until LIMIT ?3)";

/// Dead jobs stay: somebody has to look at them.
const CLEAR: &str = "DELETE FROM jobs WHERE seq IN
     (SELECT seq FROM jobs INDEXED BY jobs_finished WHERE state = 10 AND keep_until IS NOT NULL LIMIT ?1)";

const INSERT_JOB: &str = "INSERT INTO jobs (salt, queue, state, priority, due_at, max_attempts, created_at, updated_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)";

const INSERT_BODY: &str = "INSERT INTO job_bodies (seq, enqueued_by, payload) VALUES (?1, ?2, ?3)";

const FIND: &str = "SELECT lease_token IS ?4 AND lease_until > ?5, done_token IS ?4 FROM jobs
     WHERE seq = ?1 AND created_at = ?2 AND salt = ?3";

const FINISH: &str = "UPDATE jobs SET state = 10, done_token = lease_token, lease_token = NULL, lease_until = NULL,
     updated_at = ?2, keep_until = ?3
     WHERE seq = ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Executor, Level, Sqlite};
    use crate::sqlite::{Engine, Gate, Options, Party};
    use crate::system::schema;

    const T0: Millis = 1_795_214_602_000;

    /// A queue file of its own, and the time in the test's hands.
    struct File {
        db: Arc<Database>,
        _dir: tempfile::TempDir,
    }

    impl File {
        fn new() -> File {
            let dir = tempfile::tempdir().unwrap();
            let options = Options {
                level: Level::Off,
                max_bytes: 0,
                party: Party::SYSTEM,
                migrations: schema().tenant_queue.clone().into(),
                keep_before: None,
                sandboxed: false,
                create: true,
                held: Arc::default(),
            };
            let engine = Engine::start(&Sqlite::default(), &Executor::default());
            File { db: Database::new(&engine, &Gate::new(), dir.path().join("queue.sqlite"), options), _dir: dir }
        }

        async fn tx<T: Send + 'static>(&self, f: impl FnMut(&WriteTx<'_>) -> Result<T> + Send + 'static) -> T {
            self.db.write(Limits::default(), f).await.unwrap()
        }

        async fn add(&self, queue: &'static str, count: usize, delay_s: i64, max_attempts: i64, now: Millis) {
            self.tx(move |tx| {
                for _ in 0..count {
                    let payload = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
                    let job = NewJob::new(payload)?.with_delay_s(delay_s)?.with_max_attempts(max_attempts)?;
                    enqueue(tx, &QueueName::parse(queue)?, &job, "tests", None, now)?;
                }
                Ok(())
            })
            .await
        }

        async fn claim(&self, queue: &'static str, max: i64, now: Millis) -> Vec<Claimed> {
            self.tx(move |tx| claim::claim(tx, &QueueName::parse(queue)?, Claim::new(max, 60)?, now)).await
        }

        /// The number of jobs in a state, and of bodies altogether.
        async fn count(&self, state: i64) -> (i64, i64) {
            let sql = "SELECT count(*) FILTER (WHERE state = ?1), (SELECT count(*) FROM job_bodies) FROM jobs";
            self.tx(move |tx| tx.row(sql, [state], |row| Ok((row.get(0)?, row.get(1)?)))).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_lease_holds_until_its_instant_and_not_one_millisecond_longer() {
        let file = File::new();
        file.add("q", 1, 0, 2, T0).await;
        let job = file.claim("q", 1, T0).await.remove(0);
        assert_eq!((job.attempt, job.lease_until), (1, T0 + 60_000));
        assert!(file.claim("q", 1, T0 + 59_999).await.is_empty());
        let (id, token) = (job.id, job.lease_token);
        let late = file.db.write(Limits::default(), move |tx| ack(tx, id, token, T0 + 60_000)).await;
        assert_eq!(late.unwrap_err().code(), Code::LeaseLost);
        let again = file.claim("q", 1, T0 + 60_000).await.remove(0);
        assert_eq!(again.attempt, 2);
        let token = again.lease_token;
        file.tx(move |tx| ack(tx, id, token, T0 + 119_999)).await;
        assert_eq!(file.count(10).await.0, 1);
        let (before, last) = (job.lease_token, again.lease_token);
        file.tx(move |tx| ack(tx, id, last, T0 + 500_000)).await;
        let before = file.db.write(Limits::default(), move |tx| ack(tx, id, before, T0 + 500_000)).await;
        assert_eq!(before.unwrap_err().code(), Code::LeaseLost);
    }

    #[tokio::test]
    async fn room_is_made_of_done_jobs_however_many_dead_ones_go_before_them() {
        let file = File::new();
        file.add("q", 1, 0, 1, T0).await;
        let job = file.claim("q", 1, T0).await.remove(0);
        let (id, token) = (job.id, job.lease_token);
        file.tx(move |tx| ack(tx, id, token, T0)).await;
        file.add("q", CLEARED as usize, 0, 1, T0).await;
        let died = "UPDATE jobs SET state = 11, keep_until = ?1 WHERE state = 2";
        assert_eq!(file.tx(move |tx| tx.execute(died, [T0])).await, CLEARED as usize);
        assert_eq!(file.tx(|tx| tx.execute(CLEAR, [CLEARED])).await, 1);
        assert_eq!((file.count(10).await.0, file.count(11).await.0), (0, i64::from(CLEARED)));
    }

    #[tokio::test]
    async fn the_last_attempt_whose_lease_ends_leaves_a_dead_job() {
        let file = File::new();
        file.add("q", 1, 0, 1, T0).await;
        assert_eq!(file.claim("q", 1, T0).await.len(), 1);
        assert!(file.claim("q", 1, T0 + 60_000).await.is_empty());
        assert_eq!(file.count(11).await, (1, 1));
    }

    #[tokio::test]
    async fn a_claim_moves_a_bounded_number_of_jobs_and_only_of_its_own_queue() {
        let file = File::new();
        file.add("q", 600, 10, 5, T0).await;
        file.add("other", 5, 10, 5, T0).await;
        assert!(file.claim("q", 100, T0 + 9_999).await.is_empty());
        assert_eq!(file.claim("q", 100, T0 + 10_000).await.len(), 100);
        assert_eq!(file.count(1).await.0, 605 - i64::from(STAGED));
        for _ in 0..5 {
            assert_eq!(file.claim("q", 100, T0 + 10_000).await.len(), 100);
        }
        assert!(file.claim("q", 100, T0 + 10_000).await.is_empty());
        assert_eq!((file.count(1).await.0, file.count(4).await.0), (5, 600));
        assert_eq!(file.claim("other", 100, T0 + 70_000).await.len(), 5);
        assert_eq!(file.count(4).await.0, 605, "the other queue's claim left these leases alone");
    }

    #[tokio::test]
    async fn finished_jobs_are_cleared_away_with_their_bodies_when_their_time_is_over() {
        let file = File::new();
        file.add("q", 3, 0, 5, T0).await;
        for job in file.claim("q", 3, T0).await {
            let (id, token) = (job.id, job.lease_token);
            file.tx(move |tx| ack(tx, id, token, T0)).await;
        }
        // So many that one of them prunes, but for one chance in 10^11.
        file.add("q", 400, 0, 5, T0 + DONE_KEPT_MS - 1).await;
        assert_eq!(file.count(10).await, (3, 403));
        file.add("q", 400, 0, 5, T0 + DONE_KEPT_MS).await;
        assert_eq!(file.count(10).await, (0, 800));
    }
}

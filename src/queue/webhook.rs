//! A [`Webhook`] is where the server itself delivers a queue's jobs: it claims them like any worker, posts each to the
//! URL, and finishes it when the answer is 2xx; any other answer, or none, is a try that failed. What a job is
//! promised elsewhere (its tries, backoff, limits, rates, order) holds here too, and like any worker the server may
//! deliver a job twice.
//!
//! After [`BREAKS_AT`] failures in a row the circuit is open: nothing is delivered, and no job spends a try, until
//! `open_until`; then one job probes. Its success closes the circuit, its failure opens it for twice as long.

pub mod post;
mod public;
mod secret;

use std::collections::HashMap;

use rusqlite::{Row, params};

use super::QueueName;
use super::claim::{CLAIM_MAX, Claim, Claimed, claim};
use super::enqueue::queue_of;
use super::job::within;
use super::lease::{self, Nack};
use super::wait::Bell;
use crate::clock::Millis;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Reader, WriteTx};

pub use post::{Outcome, Post};
pub use secret::Secret;

/// Webhooks of one file.
pub const WEBHOOKS_MAX: i64 = 100;

/// Failures in a row that open the circuit.
pub const BREAKS_AT: i64 = 5;

/// How long the circuit is open at first, and at most, in milliseconds.
const OPEN_MS: Millis = 30_000;
const OPEN_MAX_MS: Millis = 900_000;

/// The longest one delivery may take, in seconds; and when nothing else is said.
pub const TIMEOUT_MAX_S: i64 = 60;
const TIMEOUT_DEFAULT_S: i64 = 15;

/// Deliveries of one webhook at once.
pub const CONCURRENCY_MAX: i64 = 32;
const CONCURRENCY_DEFAULT: i64 = 4;

/// How long the secret before may sign too, in seconds: a week; and when nothing else is said: a day.
pub const OVERLAP_MAX_S: i64 = 7 * 86_400;
const OVERLAP_DEFAULT_S: i64 = 86_400;

/// How long a delivered job is leased beyond its delivery's own bound, in milliseconds: for the commits before and after.
const SLACK_MS: Millis = 30_000;

/// Where to, in its bounds.
#[derive(Debug)]
pub struct NewWebhook {
    url: String,
    secret: Option<Secret>,
    timeout_ms: Millis,
    concurrency: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    Closed,
    Open,
    /// One delivery tries.
    HalfOpen,
}

#[derive(Clone, Debug)]
pub struct Webhook {
    pub queue: String,
    pub url: String,
    pub timeout_ms: Millis,
    pub concurrency: i64,
    pub circuit: Circuit,
    /// In a row.
    pub failures: i64,
    pub open_until: Option<Millis>,
    pub delivered_at: Option<Millis>,
    pub failed_at: Option<Millis>,
    /// Of the last failure.
    pub error: Option<String>,
    /// The secret before signs too until then.
    pub old_secret_until: Option<Millis>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// A job on its way.
#[derive(Debug)]
pub struct Delivery {
    pub job: Claimed,
    pub url: String,
    pub timeout_ms: Millis,
    /// The one in force first.
    pub secrets: Vec<Secret>,
}

impl Circuit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::Open => "open",
            Circuit::HalfOpen => "half_open",
        }
    }

    fn of(failures: i64, open_until: Option<Millis>, now: Millis) -> Circuit {
        match open_until {
            Some(until) if until > now => Circuit::Open,
            _ if failures >= BREAKS_AT => Circuit::HalfOpen,
            _ => Circuit::Closed,
        }
    }

    /// Until when the circuit is open after so many failures in a row.
    fn opened(failures: i64, now: Millis) -> Option<Millis> {
        let times = u32::try_from(failures - BREAKS_AT).ok()?.min(16);
        Some(now + (OPEN_MS << times).min(OPEN_MAX_MS))
    }

    /// How many deliveries there may be at once.
    fn width(self, concurrency: i64) -> usize {
        match self {
            Circuit::Closed => usize::try_from(concurrency).unwrap_or(0),
            Circuit::HalfOpen => 1,
            Circuit::Open => 0,
        }
    }
}

impl NewWebhook {
    /// Errors: `bad_request` outside the bounds and for a URL that `post` would not ask.
    pub fn new(post: &Post, url: String, secret: Option<&str>, timeout_s: Option<i64>, concurrency: Option<i64>) -> Result<NewWebhook> {
        post.check(&url)?;
        Ok(NewWebhook {
            url,
            secret: secret.map(Secret::parse).transpose()?,
            timeout_ms: within("timeout_s", timeout_s.unwrap_or(TIMEOUT_DEFAULT_S), 1, TIMEOUT_MAX_S)? * 1_000,
            concurrency: within("concurrency", concurrency.unwrap_or(CONCURRENCY_DEFAULT), 1, CONCURRENCY_MAX)?,
        })
    }
}

/// Sets it. Its secret is the one that came with it, else the one there is, else `fresh`; whether that was taken.
pub(super) fn put(
    tx: &WriteTx<'_>,
    queue: &QueueName,
    new: &NewWebhook,
    fresh: &Secret,
    bell: &mut Bell,
    now: Millis,
) -> Result<(Webhook, bool)> {
    let (number, _) = queue_of(tx, queue, now)?;
    let before = tx.row(SECRET, [queue.as_str()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?)))?;
    let is_new = before.is_none();
    // Another target gets a secret of its own: with the old one it could sign what the old target takes for ours.
    let before = before.filter(|(_, url)| *url == new.url).map(|(secret, _)| Secret::from_bytes(secret));
    if is_new && tx.row(COUNT, [], |row| row.get::<_, i64>(0))?.unwrap_or(0) >= WEBHOOKS_MAX {
        return Err(
            Error::conflict(format!("there are {WEBHOOKS_MAX} webhooks, the most there can be")).hint("Delete one that is not used.")
        );
    }
    let secret = new.secret.as_ref().or(before.as_ref()).unwrap_or(fresh);
    tx.execute(PUT, params![number, new.url, secret.bytes(), new.timeout_ms, new.concurrency, now])?;
    // What waits already is to be delivered.
    bell.look_at(now);
    Ok((get(tx, queue, now)?, secret == fresh))
}

/// From now on `fresh` signs, and for `overlap_s` the one before too.
pub(super) fn rotate(tx: &WriteTx<'_>, queue: &QueueName, fresh: &Secret, overlap_ms: Millis, now: Millis) -> Result<Webhook> {
    get(tx, queue, now)?;
    tx.execute(ROTATE, params![queue.as_str(), fresh.bytes(), now + overlap_ms, now])?;
    get(tx, queue, now)
}

pub(super) fn overlap_ms(overlap_s: Option<i64>) -> Result<Millis> {
    Ok(within("overlap_s", overlap_s.unwrap_or(OVERLAP_DEFAULT_S), 0, OVERLAP_MAX_S)? * 1_000)
}

pub(super) fn delete(tx: &WriteTx<'_>, queue: &QueueName) -> Result<()> {
    if tx.execute(DELETE, [queue.as_str()])? == 0 { Err(no_webhook(queue)) } else { Ok(()) }
}

pub(super) fn get(reader: &Reader<'_>, queue: &QueueName, now: Millis) -> Result<Webhook> {
    reader.row(ONE, [queue.as_str()], |row| webhook(row, now))?.ok_or_else(|| no_webhook(queue))
}

/// Claims what is to be delivered now, `room` jobs at most; `under_way` is what is being delivered, by queue.
pub(super) fn take(
    tx: &WriteTx<'_>,
    under_way: &HashMap<QueueName, usize>,
    room: usize,
    bell: &mut Bell,
    now: Millis,
) -> Result<Vec<Delivery>> {
    let mut taken = Vec::new();
    for line in tx.rows(LINES, [now], line)? {
        let queue = QueueName::parse(&line.queue)?;
        let width = line.circuit(now).width(line.concurrency).saturating_sub(under_way.get(&queue).copied().unwrap_or(0));
        let most = width.min(room - taken.len()).min(CLAIM_MAX as usize);
        if most == 0 || !line.is_due(now) {
            continue;
        }
        let found = claim(tx, std::slice::from_ref(&queue), Claim::own(most, line.timeout_ms + SLACK_MS), bell, now)?;
        taken.extend(found.jobs.into_iter().map(|job| Delivery {
            job,
            url: line.url.clone(),
            timeout_ms: line.timeout_ms,
            secrets: line.secrets.clone(),
        }));
    }
    Ok(taken)
}

/// The queues that the server itself works on: those with a webhook, and its own.
pub(super) fn queues(reader: &Reader<'_>) -> Result<Vec<QueueName>> {
    let names = reader.rows(QUEUES, [], |row| row.get::<_, String>(0))?;
    names.iter().map(|name| QueueName::parse(name)).collect()
}

/// When the next delivery may be due, as far as time alone decides; queues that deliver as much as they may are left out.
pub(super) fn next_at(reader: &Reader<'_>, under_way: &HashMap<QueueName, usize>, now: Millis) -> Result<Option<Millis>> {
    let mut first = None;
    for line in reader.rows(LINES, [now], line)? {
        let busy = under_way.get(&QueueName::parse(&line.queue)?).copied().unwrap_or(0);
        let is_full = busy > 0 && busy >= line.circuit(now).width(line.concurrency);
        if let Some(at) = line.next_at.filter(|_| !is_full) {
            let at = at.max(line.open_until.unwrap_or(0));
            first = Some(first.map_or(at, |first: Millis| first.min(at)));
        }
    }
    Ok(first)
}

/// Writes down what a delivery came to: of the job, and of its target. A lease that was lost is no concern of the target.
pub(super) fn settle(tx: &WriteTx<'_>, delivery: &Delivery, outcome: &Outcome, chance: u32, bell: &mut Bell, now: Millis) -> Result<()> {
    let Delivery { job, url, .. } = delivery;
    let (id, token, queue) = (job.id, job.lease_token, &job.queue);
    let job = match outcome {
        Outcome::Delivered => lease::ack(tx, id, token, None, bell, now),
        Outcome::Failed { error, retry_after_s } => {
            let nack = Nack::new(*retry_after_s, Some(error.clone()), false)?;
            lease::nack(tx, id, token, &nack, chance, bell, now).map(drop)
        }
    };
    match job {
        Err(error) if !matches!(error.code(), Code::LeaseLost | Code::NotFound) => return Err(error),
        _ => {}
    }
    match outcome {
        Outcome::Delivered => tx.execute(DELIVERED, params![queue.as_str(), url, now])?,
        Outcome::Failed { error, .. } => {
            let failures = tx.row(FAILURES, params![queue.as_str(), url], |row| row.get::<_, i64>(0))?.unwrap_or(0) + 1;
            tx.execute(FAILED, params![queue.as_str(), url, now, failures, Circuit::opened(failures, now), error])?
        }
    };
    Ok(())
}

/// A queue with a webhook that is not paused.
struct Line {
    queue: String,
    url: String,
    timeout_ms: Millis,
    concurrency: i64,
    failures: i64,
    open_until: Option<Millis>,
    secrets: Vec<Secret>,
    /// Of its jobs.
    next_at: Option<Millis>,
}

impl Line {
    fn circuit(&self, now: Millis) -> Circuit {
        Circuit::of(self.failures, self.open_until, now)
    }

    fn is_due(&self, now: Millis) -> bool {
        self.next_at.is_some_and(|at| at <= now)
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let secrets = [row.get::<_, Option<Vec<u8>>>(6)?, row.get(7)?].into_iter().flatten().map(Secret::from_bytes).collect();
    let moments: [Option<Millis>; 5] = [row.get(8)?, row.get(9)?, row.get(10)?, row.get(11)?, row.get(12)?];
    Ok(Line {
        queue: row.get(0)?,
        url: row.get(1)?,
        timeout_ms: row.get(2)?,
        concurrency: row.get(3)?,
        failures: row.get(4)?,
        open_until: row.get(5)?,
        secrets,
        next_at: moments.into_iter().flatten().min(),
    })
}

fn webhook(row: &Row<'_>, now: Millis) -> rusqlite::Result<Webhook> {
    let (failures, open_until) = (row.get(4)?, row.get(5)?);
    Ok(Webhook {
        queue: row.get(0)?,
        url: row.get(1)?,
        timeout_ms: row.get(2)?,
        concurrency: row.get(3)?,
        circuit: Circuit::of(failures, open_until, now),
        failures,
        open_until,
        delivered_at: row.get(6)?,
        failed_at: row.get(7)?,
        error: row.get(8)?,
        old_secret_until: row.get::<_, Option<Millis>>(9)?.filter(|until| *until > now),
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
    })
}

fn no_webhook(queue: &QueueName) -> Error {
    Error::not_found(format!("the queue {} has no webhook", queue.as_str())).hint("PUT /v1/queues/{queue}/webhook gives it one.")
}

const SECRET: &str = "SELECT w.secret, w.url FROM queues q CROSS JOIN webhooks w ON w.queue = q.queue WHERE q.name = ?1";

const COUNT: &str = "SELECT count(*) FROM webhooks";

/// A target that was set anew begins with a closed circuit; a secret that was sent is the only one.
const PUT: &str =
    "INSERT INTO webhooks (queue, url, secret, timeout_ms, concurrency, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
     ON CONFLICT (queue) DO UPDATE SET url = ?2, timeout_ms = ?4, concurrency = ?5, updated_at = ?6, failures = 0, open_until = NULL,
         old_secret = iif(secret = ?3, old_secret, NULL), old_until = iif(secret = ?3, old_until, NULL), secret = ?3";

const ROTATE: &str = "UPDATE webhooks SET old_secret = secret, old_until = ?3, secret = ?2, updated_at = ?4
     WHERE queue = (SELECT queue FROM queues WHERE name = ?1)";

const DELETE: &str = "DELETE FROM webhooks WHERE queue = (SELECT queue FROM queues WHERE name = ?1)";

const ONE: &str =
    "SELECT q.name, w.url, w.timeout_ms, w.concurrency, w.failures, w.open_until, w.delivered_at, w.failed_at, w.error, w.old_until,
         w.created_at, w.updated_at
     FROM queues q CROSS JOIN webhooks w ON w.queue = q.queue WHERE q.name = ?1";

/// Each moment is the first of one partial index; what is ready is due at once, and so are ends that followers wait to
/// be told of, which a claim does.
const LINES: &str = "SELECT q.name, w.url, w.timeout_ms, w.concurrency, w.failures, w.open_until, w.secret,
         iif(w.old_until > ?1, w.old_secret, NULL),
         (SELECT 0 FROM jobs j INDEXED BY jobs_ready WHERE j.state = 2 AND j.group_key IS NULL AND j.queue = w.queue LIMIT 1),
         (SELECT 0 FROM jobs j INDEXED BY jobs_grouped WHERE j.state = 2 AND j.group_key IS NOT NULL AND j.queue = w.queue LIMIT 1),
         (SELECT j.due_at FROM jobs j INDEXED BY jobs_due WHERE j.state = 1 AND j.queue = w.queue ORDER BY j.due_at LIMIT 1),
         (SELECT j.lease_until FROM jobs j INDEXED BY jobs_running WHERE j.state = 4 AND j.queue = w.queue ORDER BY j.lease_until LIMIT 1),
         (SELECT 0 FROM job_endings LIMIT 1)
     FROM webhooks w CROSS JOIN queues q ON q.queue = w.queue WHERE q.paused_at IS NULL ORDER BY w.delivered_at";

const QUEUES: &str = "SELECT q.name FROM webhooks w CROSS JOIN queues q ON q.queue = w.queue
     UNION ALL SELECT name FROM queues WHERE name = '_behind'";

const FAILURES: &str = "SELECT w.failures FROM queues q CROSS JOIN webhooks w ON w.queue = q.queue WHERE q.name = ?1 AND w.url = ?2";

const DELIVERED: &str = "UPDATE webhooks SET failures = 0, open_until = NULL, delivered_at = ?3
     WHERE queue = (SELECT queue FROM queues WHERE name = ?1) AND url = ?2";

const FAILED: &str = "UPDATE webhooks SET failures = ?4, open_until = ?5, failed_at = ?3, error = ?6
     WHERE queue = (SELECT queue FROM queues WHERE name = ?1) AND url = ?2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circuit_opens_at_the_fifth_failure_for_longer_and_longer() {
        let open = |failures| Circuit::opened(failures, 1_000).map(|until| until - 1_000);
        assert_eq!([open(1), open(4)], [None; 2]);
        assert_eq!([open(5), open(6), open(9), open(10), open(99)], [30_000, 60_000, 480_000, 900_000, 900_000].map(Some));
        assert_eq!(Circuit::of(4, None, 0), Circuit::Closed);
        assert_eq!((Circuit::of(5, Some(10), 9), Circuit::of(5, Some(10), 10)), (Circuit::Open, Circuit::HalfOpen));
        assert_eq!([Circuit::Closed, Circuit::HalfOpen, Circuit::Open].map(|circuit| circuit.width(4)), [4, 1, 0]);
    }
}

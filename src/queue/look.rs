//! Looking at a queue, on a reader: one job with all that happened to it, the jobs of a state page by page, how deep a
//! queue is. What is counted is counted up to [`COUNTED`], so that a look costs the same however much waits.

use rusqlite::{Row, params, params_from_iter};

use super::id::not_found;
use super::state::Standing;
use super::workflow::Waits;
use super::{JobId, QueueName, Rates, Retention, State};
use crate::clock::Millis;
use crate::error::{Error, Result};
use crate::sqlite::Reader;

/// Jobs that are counted, of each state; more are "at least so many".
pub const COUNTED: i64 = 100_000;

/// Jobs that one page of a state without an order by time looks at.
const LOOKED_AT: i64 = 10_000;

/// The newest tries of a job that are shown.
const ATTEMPTS_SHOWN: i64 = 100;

/// A job without what it carries.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub queue: String,
    pub state: State,
    pub priority: i64,
    pub attempt: i64,
    pub max_attempts: i64,
    pub run_at: Millis,
    /// In this state.
    pub since: Millis,
    pub lease_until: Option<Millis>,
    pub expires_at: Option<Millis>,
    pub cancel_requested_at: Option<Millis>,
    pub group: Option<String>,
    pub limit: Option<(String, i64)>,
    pub unique_key: Option<String>,
    /// Of its last try that failed.
    pub error: Option<String>,
}

#[derive(Clone, Debug)]
pub struct JobDetail {
    pub job: Job,
    pub enqueued_by: Option<String>,
    pub timeout_ms: Option<Millis>,
    /// `None` for JSON.
    pub payload_type: Option<String>,
    pub payload: Vec<u8>,
    /// Of a job that waits or waited for others.
    pub waits: Option<Waits>,
    /// JSON, as its worker sent it.
    pub progress: Option<String>,
    pub result: Option<String>,
    /// Those that did not finish it, oldest first.
    pub attempts: Vec<Attempt>,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub attempt: i64,
    pub started_at: Millis,
    pub ended_at: Millis,
    pub outcome: String,
    pub error: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub jobs: Vec<Job>,
    /// Where to go on; a page may have few jobs or none and be followed by more.
    pub next: Option<String>,
}

#[derive(Clone, Debug)]
pub struct QueueRow {
    pub name: String,
    pub paused_at: Option<Millis>,
    pub drain_at: Option<Millis>,
    pub retention: Retention,
}

/// How much there is to do in a queue.
#[derive(Clone, Debug)]
pub struct Depth {
    pub queue: QueueRow,
    /// By state; at most [`COUNTED`] each. What time alone has moved counts where it stood.
    pub counts: Vec<(State, i64)>,
    /// When the oldest ready job was added.
    pub oldest_ready: Option<Millis>,
    pub rates: Rates,
}

/// Where a page ended: what it is ordered by, and the place among equals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    by: i64,
    seq: i64,
}

impl Cursor {
    /// Errors: `bad_request`.
    pub(super) fn parse(text: &str) -> Result<Cursor> {
        let numbers = text.split_once('.').and_then(|(by, seq)| Some(Cursor { by: by.parse().ok()?, seq: seq.parse().ok()? }));
        numbers.ok_or_else(|| Error::bad_request("after is no cursor").hint("Take next_cursor from the page before."))
    }
}

pub(super) fn job(reader: &Reader<'_>, id: JobId, now: Millis) -> Result<JobDetail> {
    reader.snapshot()?;
    let job = reader.row(ONE, params![id.seq(), id.created_at(), id.salt()], |row| job_row(row, now))?.ok_or_else(|| not_found(id))?;
    let attempts = reader.rows(ATTEMPTS, params![id.seq(), ATTEMPTS_SHOWN], |row| {
        Ok(Attempt { attempt: row.get(0)?, started_at: row.get(1)?, ended_at: row.get(2)?, outcome: row.get(3)?, error: row.get(4)? })
    })?;
    let detail = reader.row(BODY, [id.seq()], |row| {
        Ok(JobDetail {
            job,
            enqueued_by: row.get(0)?,
            timeout_ms: row.get(1)?,
            payload_type: row.get(2)?,
            payload: row.get(3)?,
            waits: Waits::read(row, 6)?,
            progress: row.get(4)?,
            result: row.get(5)?,
            attempts: attempts.into_iter().rev().collect(),
        })
    })?;
    detail.ok_or_else(|| not_found(id))
}

pub(super) fn list(reader: &Reader<'_>, queue: &QueueName, state: State, limit: i64, after: Option<Cursor>, now: Millis) -> Result<Page> {
    reader.snapshot()?;
    let Some(queue) = reader.row(NUMBER, [queue.as_str()], |row| row.get::<_, i64>(0))? else {
        return Ok(Page { jobs: Vec::new(), next: None });
    };
    let found = |row: &Row<'_>| Ok((job_row(row, now)?, row.get::<_, i64>(ORDER_COLUMN)?));
    let from =
        after.unwrap_or(if state.is_finished() { Cursor { by: i64::MAX, seq: i64::MAX } } else { Cursor { by: i64::MIN, seq: i64::MIN } });
    let rows = match state {
        State::Scheduled => reader.rows(BY_DUE, params![queue, from.by, from.seq, limit], found)?,
        State::Leased => reader.rows(BY_LEASE, params![queue, from.by, from.seq, limit], found)?,
        State::Waiting | State::Ready | State::Blocked => return in_order_of_arrival(reader, queue, state, limit, after, now),
        finished => reader.rows(BY_END, params![queue, from.by, from.seq, limit, finished as i64], found)?,
    };
    let next = rows.last().filter(|_| rows.len() as i64 >= limit).map(|(job, by)| format!("{by}.{}", job.id.seq()));
    Ok(Page { jobs: rows.into_iter().map(|(job, _)| job).collect(), next })
}

/// Those that wait stand in the order in which they are claimed, which is no order to page by; so they are picked out of
/// all jobs, a bounded number at a time.
fn in_order_of_arrival(reader: &Reader<'_>, queue: i64, state: State, limit: i64, after: Option<Cursor>, now: Millis) -> Result<Page> {
    let from = after.map_or(0, |cursor| cursor.seq);
    let last: Option<i64> = reader.row(WINDOW_END, params![from, LOOKED_AT], |row| row.get(0))?;
    let jobs = reader.rows(WINDOW, params![queue, from, last.unwrap_or(i64::MAX), limit, state as i64], |row| job_row(row, now))?;
    let full = jobs.len() as i64 >= limit;
    let next = if full { jobs.last().map(|job| job.id.seq()) } else { last };
    Ok(Page { jobs, next: next.map(|seq| format!("0.{seq}")) })
}

/// `rates` says how fast the queue with this number is.
pub(super) fn depth(reader: &Reader<'_>, name: &QueueName, rates: impl FnOnce(i64) -> Rates) -> Result<Depth> {
    reader.snapshot()?;
    let queue = queue_row(reader, name)?;
    let number: i64 = reader.row(NUMBER, [name.as_str()], |row| row.get(0))?.unwrap_or_default();
    let count = |sql: &str, more: Option<i64>| -> Result<(i64, Option<i64>)> {
        let params = [number, COUNTED].into_iter().chain(more);
        let counted = reader.row(sql, params_from_iter(params), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(counted.unwrap_or_default())
    };
    let (ungrouped, oldest) = count(COUNT_READY, None)?;
    let (grouped, oldest_grouped) = count(COUNT_GROUPED, None)?;
    let mut counts = vec![
        (State::Waiting, count(COUNT_WAITING, None)?.0),
        (State::Ready, (ungrouped + grouped).min(COUNTED)),
        (State::Scheduled, count(COUNT_DUE, None)?.0),
        (State::Blocked, count(COUNT_BLOCKED, None)?.0),
        (State::Leased, count(COUNT_RUNNING, None)?.0),
    ];
    for state in State::ALL.into_iter().filter(|state| state.is_finished()) {
        counts.push((state, count(COUNT_FINISHED, Some(state as i64))?.0));
    }
    let oldest_ready = match [oldest, oldest_grouped].into_iter().flatten().min() {
        Some(seq) => reader.row(CREATED_AT, [seq], |row| row.get(0))?,
        None => None,
    };
    Ok(Depth { queue, counts, oldest_ready, rates: rates(number) })
}

pub(super) fn queue_row(reader: &Reader<'_>, name: &QueueName) -> Result<QueueRow> {
    reader.row(QUEUE, [name.as_str()], row_of_queue)?.ok_or_else(|| {
        Error::not_found(format!("there is no queue {}", name.as_str())).hint("A queue exists from its first job or setting on.")
    })
}

pub(super) fn queues(reader: &Reader<'_>, limit: i64, after: &str) -> Result<Vec<QueueRow>> {
    reader.rows(QUEUES, params![after, limit], row_of_queue)
}

fn row_of_queue(row: &Row<'_>) -> rusqlite::Result<QueueRow> {
    Ok(QueueRow { name: row.get(0)?, paused_at: row.get(1)?, drain_at: row.get(2)?, retention: Retention::read(row, 3)? })
}

fn job_row(row: &Row<'_>, now: Millis) -> rusqlite::Result<Job> {
    let standing = Standing {
        state: row.get(4)?,
        due_at: row.get(5)?,
        lease_until: row.get(6)?,
        cancelled: row.get::<_, Option<Millis>>(7)?.is_some(),
        attempt: row.get(8)?,
        max_attempts: row.get(9)?,
    };
    Ok(Job {
        id: JobId::of(row.get(0)?, row.get(1)?, row.get(2)?),
        queue: row.get(3)?,
        state: State::shown(&standing, now),
        run_at: standing.due_at,
        lease_until: standing.lease_until,
        cancel_requested_at: row.get(7)?,
        attempt: standing.attempt,
        max_attempts: standing.max_attempts,
        priority: row.get(10)?,
        since: row.get(11)?,
        expires_at: row.get(12)?,
        group: row.get(13)?,
        limit: row.get::<_, Option<String>>(14)?.zip(row.get(15)?),
        unique_key: row.get(16)?,
        error: row.get(17)?,
    })
}

/// What [`job_row`] reads, then one column more to order by.
macro_rules! jobs {
    ($order:literal, $rest:literal) => {
        concat!(
            "SELECT j.created_at, j.seq, j.salt, (SELECT name FROM queues q WHERE q.queue = j.queue), j.state, j.due_at, j.lease_until,
                 j.cancel_at, j.attempt, j.max_attempts, j.priority, j.since, j.expires_at, j.group_key, j.limit_key, j.limit_max,
                 j.unique_key, (SELECT error FROM job_attempts a WHERE a.seq = j.seq ORDER BY attempt DESC LIMIT 1), ",
            $order,
            " FROM jobs j ",
            $rest
        )
    };
}

const ORDER_COLUMN: usize = 18;

const ONE: &str = jobs!("0", "WHERE j.seq = ?1 AND j.created_at = ?2 AND j.salt = ?3");

const BY_DUE: &str = jobs!(
    "j.due_at",
    "INDEXED BY jobs_due WHERE j.state = 1 AND j.queue = ?1 AND (j.due_at, j.seq) > (?2, ?3) ORDER BY j.due_at, j.seq LIMIT ?4"
);

const BY_LEASE: &str = jobs!(
    "j.lease_until",
    "INDEXED BY jobs_running WHERE j.state = 4 AND j.queue = ?1 AND (j.lease_until, j.seq) > (?2, ?3)
     ORDER BY j.lease_until, j.seq LIMIT ?4"
);

/// The newest first.
const BY_END: &str = jobs!(
    "j.keep_until",
    "INDEXED BY jobs_finished WHERE j.state = ?5 AND j.keep_until IS NOT NULL AND j.queue = ?1 AND (j.keep_until, j.seq) < (?2, ?3)
     ORDER BY j.keep_until DESC, j.seq DESC LIMIT ?4"
);

const WINDOW: &str = jobs!("0", "WHERE j.seq > ?2 AND j.seq <= ?3 AND j.queue = ?1 AND j.state = ?5 ORDER BY j.seq LIMIT ?4");

const WINDOW_END: &str = "SELECT seq FROM jobs WHERE seq > ?1 ORDER BY seq LIMIT 1 OFFSET ?2";

const BODY: &str =
    "SELECT b.enqueued_by, b.timeout_ms, b.payload_type, b.payload, n.progress, n.result, w.jobs, w.done, w.dead, w.cancelled, w.expired
     FROM job_bodies b LEFT JOIN job_notes n ON n.seq = b.seq LEFT JOIN job_waits w ON w.seq = b.seq WHERE b.seq = ?1";

const ATTEMPTS: &str =
    "SELECT attempt, started_at, ended_at, outcome, error FROM job_attempts WHERE seq = ?1 ORDER BY attempt DESC LIMIT ?2";

const NUMBER: &str = "SELECT queue FROM queues WHERE name = ?1";

const QUEUE: &str = "SELECT name, paused_at, drain_at, done_ms, dead_ms, cancelled_ms, expired_ms FROM queues WHERE name = ?1";

const QUEUES: &str = "SELECT name, paused_at, drain_at, done_ms, dead_ms, cancelled_ms, expired_ms FROM queues
     WHERE name > ?1 ORDER BY name LIMIT ?2";

const CREATED_AT: &str = "SELECT created_at FROM jobs WHERE seq = ?1";

const COUNT_READY: &str = "SELECT count(*), min(seq) FROM
     (SELECT seq FROM jobs INDEXED BY jobs_ready WHERE state = 2 AND group_key IS NULL AND queue = ?1 LIMIT ?2)";

const COUNT_GROUPED: &str = "SELECT count(*), min(seq) FROM
     (SELECT seq FROM jobs INDEXED BY jobs_grouped WHERE state = 2 AND group_key IS NOT NULL AND queue = ?1 LIMIT ?2)";

const COUNT_WAITING: &str =
    "SELECT count(*), NULL FROM (SELECT 1 FROM jobs INDEXED BY jobs_waiting WHERE state = 0 AND queue = ?1 LIMIT ?2)";

const COUNT_DUE: &str = "SELECT count(*), NULL FROM (SELECT 1 FROM jobs INDEXED BY jobs_due WHERE state = 1 AND queue = ?1 LIMIT ?2)";

const COUNT_BLOCKED: &str =
    "SELECT count(*), NULL FROM (SELECT 1 FROM jobs INDEXED BY jobs_blocked WHERE state = 3 AND queue = ?1 LIMIT ?2)";

const COUNT_RUNNING: &str =
    "SELECT count(*), NULL FROM (SELECT 1 FROM jobs INDEXED BY jobs_running WHERE state = 4 AND queue = ?1 LIMIT ?2)";

const COUNT_FINISHED: &str = "SELECT count(*), NULL FROM
     (SELECT 1 FROM jobs INDEXED BY jobs_finished WHERE state = ?3 AND keep_until IS NOT NULL AND queue = ?1 LIMIT ?2)";

//! Looking: a job with all that happened to it, jobs by state, queues and how deep they are.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{payload_json, require_either};
use crate::auth::scope::Scope;
use crate::clock::{now_ms, rfc3339};
use crate::error::{Error, Result};
use crate::http::extract::Query;
use crate::http::guard::Caller;
use crate::http::unread::Unread;
use crate::queue::{Attempt, COUNTED, Depth, Job, JobDetail, JobId, Queue, QueueName, QueueRow, Rates, Retention, State, Waiters, Waits};

const PAGE_MAX: i64 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    state: String,
    limit: Option<i64>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    pub(super) limit: Option<i64>,
    pub(super) after: Option<String>,
}

#[derive(Serialize)]
struct JobsReply {
    jobs: Vec<JobFields>,
    next_cursor: Option<String>,
}

/// A job without what it carries. What it has not is null.
#[derive(Serialize)]
struct JobFields {
    id: JobId,
    queue: String,
    state: &'static str,
    priority: i64,
    attempt: i64,
    max_attempts: i64,
    run_at: String,
    enqueued_at: String,
    since: String,
    lease_until: Option<String>,
    expires_at: Option<String>,
    cancel_requested_at: Option<String>,
    group: Option<String>,
    limit: Option<LimitReply>,
    unique_key: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct LimitReply {
    key: String,
    max: i64,
}

#[derive(Serialize)]
struct DetailReply {
    job: JobFields,
    enqueued_by: Option<String>,
    timeout_s: Option<i64>,
    payload_type: Option<String>,
    payload: Box<RawValue>,
    waits_for: Option<Waits>,
    progress: Option<Box<RawValue>>,
    result: Option<Box<RawValue>>,
    attempts: Vec<AttemptReply>,
}

#[derive(Serialize)]
struct AttemptReply {
    attempt: i64,
    started_at: String,
    ended_at: String,
    outcome: String,
    error: Option<String>,
}

#[derive(Serialize)]
pub(super) struct QueueReply {
    name: String,
    paused: bool,
    draining: bool,
    retention: RetentionReply,
}

#[derive(Serialize)]
struct RetentionReply {
    done_s: i64,
    dead_s: i64,
    cancelled_s: i64,
    expired_s: i64,
}

impl QueueReply {
    pub(super) fn of(row: QueueRow) -> QueueReply {
        let Retention { done_ms, dead_ms, cancelled_ms, expired_ms } = row.retention;
        let [done_s, dead_s, cancelled_s, expired_s] = [done_ms, dead_ms, cancelled_ms, expired_ms].map(|ms| ms / 1_000);
        let retention = RetentionReply { done_s, dead_s, cancelled_s, expired_s };
        QueueReply { name: row.name, paused: row.paused_at.is_some(), draining: row.drain_at.is_some(), retention }
    }
}

#[derive(Serialize)]
struct QueuesReply {
    queues: Vec<QueueReply>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct DepthReply {
    queue: QueueReply,
    jobs: serde_json::Map<String, serde_json::Value>,
    /// Every count is exact: none has reached the bound to which is counted.
    exact: bool,
    oldest_ready_ms: Option<i64>,
    per_s: Rates,
}

/// `GET /v1/jobs/{id}`.
pub async fn job(call: Caller, id: Path<String>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    require_either(&call.claims)?;
    let id = JobId::parse(&id)?;
    let lease = call.lease().await?;
    let job = Queue::new(lease.queue(), &waiters).job(id).await?;
    // Its payload is SQL, with what is written.
    if QueueName::parse(&job.job.queue)?.is_behind() {
        call.sql_caller()?.scopes.require(Scope::SqlWrite)?;
    }
    let detail = detail(job)?;
    let body = serde_json::to_vec(&detail).map_err(|error| Error::internal("a job could not be written as JSON", &error))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(Unread::hold(&lease, body)?))
}

/// `GET /v1/queues/{queue}/jobs?state=`.
pub async fn list(call: Caller, queue: Path<String>, query: Query<ListQuery>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    require_either(&call.claims)?;
    let ListQuery { state, limit, after } = query.0;
    let (queue, state, limit) = (QueueName::parse(&queue)?, State::parse(&state)?, page(limit)?);
    let lease = call.lease().await?;
    let page = Queue::new(lease.queue(), &waiters).list(&queue, state, limit, after.as_deref()).await?;
    let reply = JobsReply { jobs: page.jobs.into_iter().map(fields).collect(), next_cursor: page.next };
    let body = serde_json::to_vec(&reply).map_err(|error| Error::internal("jobs could not be written as JSON", &error))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(Unread::hold(&lease, body)?))
}

/// `GET /v1/queues`.
pub async fn queues(call: Caller, query: Query<PageQuery>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    require_either(&call.claims)?;
    let limit = page(query.0.limit)?;
    let rows = Queue::new(call.lease().await?.queue(), &waiters).queues(limit, query.0.after).await?;
    let next_cursor = rows.last().filter(|_| rows.len() as i64 >= limit).map(|row| row.name.clone());
    Ok(HttpResponse::Ok().json(QueuesReply { queues: rows.into_iter().map(QueueReply::of).collect(), next_cursor }))
}

/// `GET /v1/queues/{queue}`.
pub async fn depth(call: Caller, queue: Path<String>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    require_either(&call.claims)?;
    let queue = QueueName::parse(&queue)?;
    let Depth { queue, counts, oldest_ready, rates } = Queue::new(call.lease().await?.queue(), &waiters).depth(&queue).await?;
    Ok(HttpResponse::Ok().json(DepthReply {
        queue: QueueReply::of(queue),
        exact: counts.iter().all(|(_, count)| *count < COUNTED),
        jobs: counts.into_iter().map(|(state, count)| (state.as_str().to_owned(), count.into())).collect(),
        oldest_ready_ms: oldest_ready.map(|at| (now_ms() - at).max(0)),
        per_s: rates,
    }))
}

pub(super) fn page(limit: Option<i64>) -> Result<i64> {
    match limit.unwrap_or(100) {
        limit if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        limit => Err(Error::bad_request(format!("limit is {limit}, but must lie between 1 and {PAGE_MAX}"))),
    }
}

fn fields(job: Job) -> JobFields {
    JobFields {
        id: job.id,
        queue: job.queue,
        state: job.state.as_str(),
        priority: job.priority,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        run_at: rfc3339(job.run_at),
        enqueued_at: rfc3339(job.id.created_at()),
        since: rfc3339(job.since),
        lease_until: job.lease_until.map(rfc3339),
        expires_at: job.expires_at.map(rfc3339),
        cancel_requested_at: job.cancel_requested_at.map(rfc3339),
        group: job.group,
        limit: job.limit.map(|(key, max)| LimitReply { key, max }),
        unique_key: job.unique_key,
        error: job.error,
    }
}

fn detail(detail: JobDetail) -> Result<DetailReply> {
    let note = |json: Option<String>| {
        let json = json.map(RawValue::from_string).transpose();
        json.map_err(|error| Error::internal("a note is not the JSON it was", &error))
    };
    Ok(DetailReply {
        job: fields(detail.job),
        enqueued_by: detail.enqueued_by,
        timeout_s: detail.timeout_ms.map(|ms| ms / 1_000),
        payload: payload_json(detail.payload_type.as_deref(), detail.payload)?,
        payload_type: detail.payload_type,
        waits_for: detail.waits,
        progress: note(detail.progress)?,
        result: note(detail.result)?,
        attempts: detail.attempts.into_iter().map(attempt).collect(),
    })
}

fn attempt(attempt: Attempt) -> AttemptReply {
    AttemptReply {
        attempt: attempt.attempt,
        started_at: rfc3339(attempt.started_at),
        ended_at: rfc3339(attempt.ended_at),
        outcome: attempt.outcome,
        error: attempt.error,
    }
}

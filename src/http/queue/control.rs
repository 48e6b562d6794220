//! What those do who look after a queue: pause, drain, cancel, redrive, purge.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lease::{JobReply, JobStep};
use super::look::QueueReply;
use crate::auth::scope::Scope;
use crate::cache::{Cache, Memory};
use crate::error::{Error, Result};
use crate::http::cache::behind;
use crate::http::extract::Json;
use crate::http::guard::Caller;
use crate::queue::{JobId, Moved, Queue, QueueName, Redrive, Retention, STEP_MAX, Settings, State, Waiters};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsBody {
    paused: Option<bool>,
    draining: Option<bool>,
    retention: Option<RetentionBody>,
}

/// What it leaves out is as by default.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RetentionBody {
    done_s: Option<i64>,
    dead_s: Option<i64>,
    cancelled_s: Option<i64>,
    expired_s: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedriveBody {
    ids: Option<Vec<String>>,
    attempts: Option<i64>,
    max: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeBody {
    state: String,
    ids: Option<Vec<String>>,
}

#[derive(Serialize)]
struct MovedReply {
    jobs: usize,
    more: bool,
}

/// `PATCH /v1/queues/{queue}`.
pub async fn set(call: Caller, queue: Path<String>, body: Json<SettingsBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let details = json!(body.0);
    let retention = |body: RetentionBody| Retention::new(body.done_s, body.dead_s, body.cancelled_s, body.expired_s);
    let settings = Settings { paused: body.0.paused, draining: body.0.draining, retention: body.0.retention.map(retention).transpose()? };
    let (queue, lease) = (QueueName::parse_open(&queue)?, call.lease().await?);
    let engine = Queue::new(lease.queue(), &waiters);
    let row = call.changing("queue.set", queue.as_str().to_owned(), details, engine.set(&queue, settings)).await?;
    Ok(HttpResponse::Ok().json(QueueReply::of(row)))
}

/// `POST /v1/jobs/{id}/cancel`: for whoever adds jobs.
pub async fn cancel(call: Caller, id: Path<String>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueProduce)?;
    let id = JobId::parse(&id)?;
    let state = Queue::new(call.lease().await?.queue(), &waiters).cancel(id).await?;
    let asked_to_stop = (state == State::Leased).then_some(true);
    Ok(HttpResponse::Ok().json(JobReply { job: JobStep { cancelled: asked_to_stop, ..JobStep::at(id, state) } }))
}

/// `POST /v1/queues/{queue}/redrive`.
pub async fn redrive(
    call: Caller,
    queue: Path<String>,
    body: Json<RedriveBody>,
    waiters: Data<Waiters>,
    memory: Data<Memory>,
) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (queue, redrive) = (QueueName::parse(&queue)?, Redrive::new(ids(body.0.ids)?, body.0.attempts, body.0.max)?);
    admit(&call, &queue)?;
    let lease = call.lease().await?;
    let engine = Queue::new(lease.queue(), &waiters);
    if queue.is_behind() {
        return behind::redrive(&engine, &Cache::new(lease.cache(), &memory), redrive).await.map(moved);
    }
    call.changing("queue.redrive", queue.as_str().to_owned(), json!({}), engine.redrive(&queue, redrive)).await.map(moved)
}

/// `POST /v1/queues/{queue}/purge`.
pub async fn purge(call: Caller, queue: Path<String>, body: Json<PurgeBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (queue, state, ids) = (QueueName::parse(&queue)?, State::parse(&body.0.state)?, ids(body.0.ids)?);
    admit(&call, &queue)?;
    let (lease, details) = (call.lease().await?, json!({ "state": body.0.state }));
    let engine = Queue::new(lease.queue(), &waiters);
    call.changing("queue.purge", queue.as_str().to_owned(), details, engine.purge(&queue, state, ids)).await.map(moved)
}

/// To bring writes of the database back, or to clear them away, is for whoever may write there.
fn admit(call: &Caller, queue: &QueueName) -> Result<()> {
    if queue.is_behind() { call.sql_caller()?.scopes.require(Scope::SqlWrite) } else { Ok(()) }
}

fn ids(ids: Option<Vec<String>>) -> Result<Option<Vec<JobId>>> {
    let Some(ids) = ids else { return Ok(None) };
    if !(1..=STEP_MAX).contains(&ids.len()) {
        return Err(Error::bad_request(format!("ids are not 1 to {STEP_MAX}")).hint("Leave them out for all jobs."));
    }
    ids.iter().map(|id| JobId::parse(id)).collect::<Result<_>>().map(Some)
}

fn moved(moved: Moved) -> HttpResponse {
    HttpResponse::Ok().json(MovedReply { jobs: moved.moved, more: moved.more })
}

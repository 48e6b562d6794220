//! What those do who look after a queue: pause, drain, cancel, redrive, purge.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};

use super::lease::{JobReply, JobStep};
use super::look::QueueReply;
use crate::auth::scope::Scope;
use crate::error::{Error, Result};
use crate::http::extract::Json;
use crate::http::guard::Caller;
use crate::queue::{JobId, Moved, Queue, QueueName, Redrive, Retention, STEP_MAX, Settings, State, Waiters};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsBody {
    paused: Option<bool>,
    draining: Option<bool>,
    retention: Option<RetentionBody>,
}

/// What it leaves out is as by default.
#[derive(Deserialize)]
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
    let retention = |body: RetentionBody| Retention::new(body.done_s, body.dead_s, body.cancelled_s, body.expired_s);
    let settings = Settings { paused: body.0.paused, draining: body.0.draining, retention: body.0.retention.map(retention).transpose()? };
    let row = Queue::new(call.lease().await?.queue(), &waiters).set(&QueueName::parse(&queue)?, settings).await?;
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
pub async fn redrive(call: Caller, queue: Path<String>, body: Json<RedriveBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let redrive = Redrive::new(ids(body.0.ids)?, body.0.attempts, body.0.max)?;
    Ok(moved(Queue::new(call.lease().await?.queue(), &waiters).redrive(&QueueName::parse(&queue)?, redrive).await?))
}

/// `POST /v1/queues/{queue}/purge`.
pub async fn purge(call: Caller, queue: Path<String>, body: Json<PurgeBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (state, ids) = (State::parse(&body.0.state)?, ids(body.0.ids)?);
    Ok(moved(Queue::new(call.lease().await?.queue(), &waiters).purge(&QueueName::parse(&queue)?, state, ids).await?))
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

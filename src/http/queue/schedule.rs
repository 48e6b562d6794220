//! `/v1/queues/{queue}/schedules/…`: jobs that the calendar adds.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::look::{PageQuery, page};
use super::{enqueued, require_either};
use crate::auth::scope::Scope;
use crate::clock::{now_ms, rfc3339};
use crate::error::{Error, Result};
use crate::http::extract::{Json, Query};
use crate::http::guard::Caller;
use crate::queue::{Misfire, NewSchedule, Queue, QueueName, Schedule, Waiters};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutBody {
    cron: String,
    #[serde(default = "utc")]
    time_zone: String,
    #[serde(default)]
    misfire: Misfire,
    #[serde(default)]
    paused: bool,
    job: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchBody {
    paused: bool,
}

/// What it has not is null.
#[derive(Serialize)]
struct ScheduleReply {
    queue: String,
    name: String,
    cron: String,
    time_zone: String,
    misfire: &'static str,
    paused: bool,
    job: Box<RawValue>,
    set_by: String,
    next_runs: Vec<String>,
    last_run: Option<String>,
    last_job: Option<String>,
    last_error: Option<Box<RawValue>>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct SchedulesReply {
    schedules: Vec<ScheduleReply>,
    next_cursor: Option<String>,
}

/// `PUT …/{name}`: 200 with the schedule; from here on nothing goes by what it said before.
pub async fn put(call: Caller, path: Path<(String, String)>, body: Json<PutBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueProduce)?;
    let (queue, name) = path.into_inner();
    let PutBody { cron, time_zone, misfire, paused, job } = body.0;
    let new = NewSchedule::new(cron, time_zone, misfire, paused, &job, now_ms())?;
    let (queue, lease) = (QueueName::parse_open(&queue)?, call.lease().await?);
    let engine = Queue::new(lease.queue(), &waiters);
    answer(changing(&call, "schedule.set", &queue, &name, engine.schedule(&queue, &name, new, &call.claims.sub)).await?)
}

/// `PATCH …/{name} {"paused"}`.
pub async fn patch(call: Caller, path: Path<(String, String)>, body: Json<PatchBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueProduce)?;
    let (queue, name) = path.into_inner();
    let (queue, lease, paused) = (QueueName::parse_open(&queue)?, call.lease().await?, body.0.paused);
    let engine = Queue::new(lease.queue(), &waiters);
    let action = if paused { "schedule.pause" } else { "schedule.resume" };
    answer(changing(&call, action, &queue, &name, engine.pause_schedule(&queue, &name, paused)).await?)
}

/// `DELETE …/{name}`: 204.
pub async fn delete(call: Caller, path: Path<(String, String)>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueProduce)?;
    let (queue, name) = path.into_inner();
    let (queue, lease) = (QueueName::parse_open(&queue)?, call.lease().await?);
    let engine = Queue::new(lease.queue(), &waiters);
    changing(&call, "schedule.delete", &queue, &name, engine.delete_schedule(&queue, &name)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST …/{name}/run`: 201 with a job that is enqueued now, beside those of the calendar.
pub async fn run(call: Caller, path: Path<(String, String)>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueProduce)?;
    let (queue, name) = path.into_inner();
    let (queue, lease) = (QueueName::parse_open(&queue)?, call.lease().await?);
    let engine = Queue::new(lease.queue(), &waiters);
    let made = changing(&call, "schedule.run", &queue, &name, engine.run_schedule(&queue, &name)).await?;
    Ok(HttpResponse::Created().json(enqueued(&queue, &made)))
}

/// `GET …/{name}`.
pub async fn get(call: Caller, path: Path<(String, String)>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    require_either(&call.claims)?;
    let (queue, name) = path.into_inner();
    answer(Queue::new(call.lease().await?.queue(), &waiters).schedule_of(&QueueName::parse_open(&queue)?, &name).await?)
}

/// `GET /v1/queues/{queue}/schedules`.
pub async fn list(call: Caller, queue: Path<String>, query: Query<PageQuery>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    require_either(&call.claims)?;
    let limit = page(query.0.limit)?;
    let found = Queue::new(call.lease().await?.queue(), &waiters).schedules(&QueueName::parse_open(&queue)?, limit, query.0.after).await?;
    let next_cursor = found.last().filter(|_| found.len() as i64 >= limit).map(|schedule| schedule.name.clone());
    Ok(HttpResponse::Ok().json(SchedulesReply { schedules: found.into_iter().map(reply).collect::<Result<_>>()?, next_cursor }))
}

/// [`Caller::changing`] of one schedule.
async fn changing<T>(
    call: &Caller,
    action: &'static str,
    queue: &QueueName,
    name: &str,
    change: impl Future<Output = Result<T>>,
) -> Result<T> {
    call.changing(action, format!("{}/{name}", queue.as_str()), json!({}), change).await
}

fn answer(schedule: Schedule) -> Result<HttpResponse> {
    Ok(HttpResponse::Ok().json(reply(schedule)?))
}

fn reply(schedule: Schedule) -> Result<ScheduleReply> {
    let json = |text| RawValue::from_string(text).map_err(|error| Error::internal("a schedule's JSON is not what it was", &error));
    Ok(ScheduleReply {
        queue: schedule.queue,
        name: schedule.name,
        cron: schedule.cron,
        time_zone: schedule.time_zone,
        misfire: schedule.misfire.as_str(),
        paused: schedule.paused_at.is_some(),
        job: json(schedule.job)?,
        set_by: schedule.set_by,
        next_runs: schedule.next_runs.into_iter().map(rfc3339).collect(),
        last_run: schedule.last_at.map(rfc3339),
        last_job: schedule.last_job,
        last_error: schedule.last_error.map(json).transpose()?,
        created_at: rfc3339(schedule.created_at),
        updated_at: rfc3339(schedule.updated_at),
    })
}

fn utc() -> String {
    "UTC".to_owned()
}

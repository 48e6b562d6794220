//! `POST /v1/jobs/{id}/…` for the worker that holds the job: each shows the lease's token, and a stale one is 409
//! `lease_lost` and changes nothing.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::effect;
use crate::auth::scope::Scope;
use crate::clock::rfc3339;
use crate::error::{Code, Error, Result};
use crate::http::extract::Json;
use crate::http::guard::Caller;
use crate::queue::{JobId, NOTE_BYTES, Nack, Queue, State, Step, Waiters};
use crate::sql::Statement;
use crate::tenant::lease::Files;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckBody {
    lease_token: String,
    result: Option<Box<RawValue>>,
    /// Applied to the tenant's database, once for the job.
    statements: Option<Vec<Statement>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NackBody {
    lease_token: String,
    delay_s: Option<i64>,
    error: Option<String>,
    #[serde(default)]
    dead: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendBody {
    lease_token: String,
    lease_s: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressBody {
    lease_token: String,
    progress: Box<RawValue>,
    lease_s: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnoozeBody {
    lease_token: String,
    delay_s: i64,
}

#[derive(Serialize)]
pub(super) struct JobReply {
    pub job: JobStep,
}

/// Where a job stands after what was asked.
#[derive(Serialize)]
pub(super) struct JobStep {
    pub id: JobId,
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<String>,
    /// Of a leased job: somebody asked its worker to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<bool>,
    /// Whether the statements of an `ack` ran now; they had before if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
}

impl JobStep {
    pub fn at(id: JobId, state: State) -> JobStep {
        JobStep { id, state: state.as_str(), run_at: None, lease_until: None, cancelled: None, applied: None }
    }
}

/// 200 when the job is done by this lease, now or before.
pub async fn ack(call: Caller, id: Path<String>, body: Json<AckBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (id, AckBody { lease_token, result, statements }) = (JobId::parse(&id)?, body.0);
    let result = result.map(|result| note("result", result)).transpose()?;
    let caller = statements.is_some().then(|| call.sql_caller()).transpose()?;
    let files = call.lease().await?;
    let queue = Queue::new(files.queue(), &waiters);
    let applied = match (statements.zip(caller), &files) {
        (Some((statements, caller)), Files::Tenant(lease)) => {
            Some(effect::ack(caller, lease, &queue, (id, &lease_token), result, statements).await?)
        }
        _ => queue.ack(id, &lease_token, result).await.map(|()| None)?,
    };
    Ok(HttpResponse::Ok().json(JobReply { job: JobStep { applied, ..JobStep::at(id, State::Done) } }))
}

pub async fn nack(call: Caller, id: Path<String>, body: Json<NackBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (id, NackBody { lease_token, delay_s, error, dead }) = (JobId::parse(&id)?, body.0);
    let nack = Nack::new(delay_s, error, dead)?;
    Ok(stepped(id, Queue::new(call.lease().await?.queue(), &waiters).nack(id, &lease_token, nack).await?))
}

pub async fn extend(call: Caller, id: Path<String>, body: Json<ExtendBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (id, ExtendBody { lease_token, lease_s }) = (JobId::parse(&id)?, body.0);
    Ok(stepped(id, Queue::new(call.lease().await?.queue(), &waiters).extend(id, &lease_token, Some(lease_s), None).await?))
}

pub async fn progress(call: Caller, id: Path<String>, body: Json<ProgressBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (id, ProgressBody { lease_token, progress, lease_s }) = (JobId::parse(&id)?, body.0);
    let progress = Some(note("progress", progress)?);
    Ok(stepped(id, Queue::new(call.lease().await?.queue(), &waiters).extend(id, &lease_token, lease_s, progress).await?))
}

pub async fn snooze(call: Caller, id: Path<String>, body: Json<SnoozeBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let (id, SnoozeBody { lease_token, delay_s }) = (JobId::parse(&id)?, body.0);
    Ok(stepped(id, Queue::new(call.lease().await?.queue(), &waiters).snooze(id, &lease_token, delay_s).await?))
}

fn stepped(id: JobId, step: Step) -> HttpResponse {
    let job = JobStep {
        run_at: step.run_at.map(rfc3339),
        lease_until: step.lease_until.map(rfc3339),
        cancelled: (step.state == State::Leased).then_some(step.cancelled),
        ..JobStep::at(id, step.state)
    };
    HttpResponse::Ok().json(JobReply { job })
}

fn note(field: &str, json: Box<RawValue>) -> Result<String> {
    let text = Box::<str>::from(json).into_string();
    if text.len() > NOTE_BYTES {
        return Err(Error::new(Code::PayloadTooLarge, format!("{field} has at most {NOTE_BYTES} bytes"))
            .hint("Keep large data elsewhere, and its address here."));
    }
    Ok(text)
}

//! `/v1/queues/…`, `/v1/claim` and `/v1/jobs/…`: a tenant's queue over HTTP. A payload is JSON that nobody here reads:
//! its bytes are stored as they come and go out as they were.

pub mod control;
pub(super) mod effect;
pub mod lease;
pub mod look;
pub mod schedule;
pub mod webhook;

use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::extract::{Json, JsonText, idempotency_key, parse};
use super::guard::Caller;
use super::unread::Unread;
use crate::auth::Claims;
use crate::auth::scope::Scope;
use crate::clock::rfc3339;
use crate::error::{Body, Error, Result};
use crate::queue::{Batch, Claim, Claimed, Enqueued, JobId, JobRequest, Outcome, QUEUES_MAX, Queue, QueueName, Then, Waiters};

/// The longest that a claim waits for a job, in seconds.
const WAIT_MAX_S: u64 = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    jobs: Vec<JobRequest>,
    then: Option<ThenBody>,
}

/// What comes when all of a batch have ended; in the same queue unless it names another.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThenBody {
    queue: Option<String>,
    job: JobRequest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimBody {
    #[serde(default = "one")]
    max: i64,
    #[serde(default = "a_minute")]
    lease_s: i64,
    #[serde(default)]
    wait_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeveralBody {
    queues: Vec<String>,
    #[serde(default = "one")]
    max: i64,
    #[serde(default = "a_minute")]
    lease_s: i64,
    #[serde(default)]
    wait_s: u64,
}

#[derive(Serialize)]
pub(super) struct EnqueuedReply<'a> {
    id: JobId,
    queue: &'a str,
    state: &'static str,
    priority: i64,
    max_attempts: i64,
    run_at: String,
    enqueued_at: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    existing: bool,
}

#[derive(Serialize)]
struct BatchReply<'a> {
    results: Vec<ResultReply<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<ResultReply<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ResultReply<'a> {
    Job(EnqueuedReply<'a>),
    Error(Body<'a>),
}

/// `POST /v1/queues/{queue}/jobs`: 201, and the job is on the disk; or 200 with a result for each of `jobs`.
pub async fn enqueue(
    call: Caller,
    request: HttpRequest,
    queue: Path<String>,
    body: JsonText,
    waiters: Data<Waiters>,
) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueProduce)?;
    let queue = QueueName::parse_open(&queue)?;
    let key = idempotency_key(&request, &[queue.as_str().as_bytes(), b"\n", &body.0])?;
    let (batch, is_one) = batch(&body.0, &queue)?;
    let then_queue = batch.then.as_ref().map_or(&queue, |then| &then.queue).clone();
    let lease = call.lease().await?;
    let made = Queue::new(lease.queue(), &waiters).enqueue(&queue, batch, &call.claims.sub, key).await?;
    let replayed = made.replayed;
    let answer = |mut reply: actix_web::HttpResponseBuilder| {
        if replayed {
            reply.insert_header(("idempotent-replayed", "true"));
        }
        reply
    };
    if !is_one {
        let results = made.outcomes.iter().map(|outcome| result(&queue, outcome)).collect();
        let then = made.then.as_ref().map(|outcome| result(&then_queue, outcome));
        return Ok(answer(HttpResponse::Ok()).json(BatchReply { results, then }));
    }
    match one_of(made.outcomes)? {
        Outcome::Enqueued(made) if made.is_existing() => Ok(answer(HttpResponse::Ok()).json(enqueued(&queue, &made))),
        Outcome::Enqueued(made) => Ok(answer(HttpResponse::Created()).json(enqueued(&queue, &made))),
        Outcome::Refused(error) => Err(error),
    }
}

/// `POST /v1/queues/{queue}/claim`: 200 with the jobs, none when nothing is ready.
pub async fn claim(call: Caller, queue: Path<String>, body: Json<ClaimBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    let ClaimBody { max, lease_s, wait_s } = body.0;
    claim_from(call, vec![QueueName::parse_open(&queue)?], Claim::new(max, lease_s)?, wait_s, waiters).await
}

/// `POST /v1/claim`: the same from several queues, the first one first.
pub async fn claim_of_several(call: Caller, body: Json<SeveralBody>, waiters: Data<Waiters>) -> Result<HttpResponse> {
    let SeveralBody { queues, max, lease_s, wait_s } = body.0;
    if queues.is_empty() || queues.len() > QUEUES_MAX {
        return Err(Error::bad_request(format!("queues are not 1 to {QUEUES_MAX}")));
    }
    let mut names: Vec<QueueName> = Vec::with_capacity(queues.len());
    for name in &queues {
        let name = QueueName::parse_open(name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    claim_from(call, names, Claim::new(max, lease_s)?, wait_s, waiters).await
}

async fn claim_from(call: Caller, queues: Vec<QueueName>, claim: Claim, wait_s: u64, waiters: Data<Waiters>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    if wait_s > WAIT_MAX_S {
        return Err(Error::bad_request(format!("wait_s is {wait_s}, but must lie between 0 and {WAIT_MAX_S}")));
    }
    let until = Instant::now() + Duration::from_secs(wait_s);
    let mut waiting = None;
    loop {
        // Not held while waiting: the tenant can be suspended, and its files closed, meanwhile.
        let lease = call.lease().await?;
        lease.answers().admit()?;
        if wait_s > 0 && waiting.is_none() {
            waiting = Some(waiters.join(lease.queue(), &queues)?);
        }
        let found = Queue::new(lease.queue(), &waiters).claim(&queues, claim).await?;
        if found.jobs.is_empty()
            && let Some(waiting) = &mut waiting
        {
            drop(lease);
            if waiting.woken(found.next_at, until).await {
                continue;
            }
            return Ok(HttpResponse::Ok().content_type(ContentType::json()).body(claim_json(&[])?));
        }
        return Ok(HttpResponse::Ok().content_type(ContentType::json()).body(Unread::keep(&lease, claim_json(&found.jobs)?)));
    }
}

/// Who may look at jobs: whoever makes them or works on them.
fn require_either(claims: &Claims) -> Result<()> {
    if claims.scopes.has(Scope::QueueProduce) { Ok(()) } else { claims.require(Scope::QueueConsume) }
}

/// What a body asks for, and whether it is one job, not a list. The body of one job is read once.
fn batch(body: &[u8], queue: &QueueName) -> Result<(Batch, bool)> {
    #[derive(Deserialize)]
    struct HasJobs {
        #[serde(rename = "jobs")]
        _jobs: IgnoredAny,
    }

    match parse::<JobRequest>(body) {
        Ok(job) => Ok((Batch::of_one(job.check()?), true)),
        Err(_) if serde_json::from_slice::<HasJobs>(body).is_ok() => {
            let BatchBody { jobs, then } = parse::<BatchBody>(body)?;
            let then = match then {
                None => None,
                Some(ThenBody { queue: None, job }) => Some(Then { queue: queue.clone(), job: job.check()? }),
                Some(ThenBody { queue: Some(other), job }) => Some(Then { queue: QueueName::parse_open(&other)?, job: job.check()? }),
            };
            Ok((Batch::new(jobs.into_iter().map(JobRequest::check).collect(), then)?, false))
        }
        Err(error) => Err(error),
    }
}

fn result<'a>(queue: &'a QueueName, outcome: &'a Outcome) -> ResultReply<'a> {
    match outcome {
        Outcome::Enqueued(made) => ResultReply::Job(enqueued(queue, made)),
        Outcome::Refused(error) => ResultReply::Error(error.body()),
    }
}

fn one_of<T>(all: Vec<T>) -> Result<T> {
    all.into_iter().next().ok_or_else(|| Error::internal("one job has no outcome", &"none"))
}

pub(super) fn enqueued<'a>(queue: &'a QueueName, made: &Enqueued) -> EnqueuedReply<'a> {
    EnqueuedReply {
        id: made.id,
        queue: queue.as_str(),
        state: made.state().as_str(),
        priority: made.priority,
        max_attempts: made.max_attempts,
        run_at: rfc3339(made.run_at),
        enqueued_at: rfc3339(made.enqueued_at),
        existing: made.is_existing(),
    }
}

fn one() -> i64 {
    1
}

fn a_minute() -> i64 {
    60
}

/// Writes the answer around the payloads, since parsing them again only to print them would be most of the work.
fn claim_json(jobs: &[Claimed]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(16 + jobs.iter().map(|job| job.payload.len() + 288).sum::<usize>());
    out.extend_from_slice(b"{\"jobs\":[");
    let (mut id_text, mut token_text) = (Uuid::encode_buffer(), Uuid::encode_buffer());
    for (i, job) in jobs.iter().enumerate() {
        let (id, token) = (Uuid::from(job.id), job.lease_token);
        // JSON escapes nothing of these texts.
        let texts: [(&str, &str); 5] = [
            (if i > 0 { ",{\"id\":\"" } else { "{\"id\":\"" }, id.as_hyphenated().encode_lower(&mut id_text)),
            ("\",\"queue\":\"", job.queue.as_str()),
            ("\",\"lease_token\":\"", token.as_hyphenated().encode_lower(&mut token_text)),
            ("\",\"lease_until\":\"", &rfc3339(job.lease_until)),
            ("\",\"enqueued_at\":\"", &rfc3339(job.enqueued_at())),
        ];
        for (name, text) in texts {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        member(&mut out, "\",\"attempt\":", &job.attempt)?;
        if let Some(payload_type) = &job.payload_type {
            member(&mut out, ",\"payload_type\":", payload_type)?;
        }
        if let Some(waited_for) = &job.waited_for {
            member(&mut out, ",\"waited_for\":", waited_for)?;
        }
        out.extend_from_slice(b",\"payload\":");
        match job.payload_type {
            None => out.extend_from_slice(&job.payload),
            Some(_) => out.extend_from_slice(base64_json(&job.payload).as_bytes()),
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn member(out: &mut Vec<u8>, name: &str, value: &impl Serialize) -> Result<()> {
    out.extend_from_slice(name.as_bytes());
    serde_json::to_writer(out, value).map_err(|e| Error::internal("a claimed job could not be written as JSON", &e))
}

/// Bytes as `{"base64":"…"}`.
fn base64_json(bytes: &[u8]) -> String {
    format!("{{\"base64\":\"{}\"}}", BASE64.encode(bytes))
}

/// A stored payload as JSON.
fn payload_json(payload_type: Option<&str>, payload: Vec<u8>) -> Result<Box<RawValue>> {
    let broken = |cause: &dyn std::fmt::Display| Error::internal("a payload is not the JSON it was", cause);
    let text = match payload_type {
        None => String::from_utf8(payload).map_err(|error| broken(&error))?,
        Some(_) => base64_json(&payload),
    };
    RawValue::from_string(text).map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_go_out_byte_for_byte_inside_valid_json() {
        let job = |payload: &str| Claimed {
            id: JobId::parse("0190a5c6-0000-7000-8000-000100000000").unwrap(),
            queue: QueueName::parse("q").unwrap(),
            attempt: 2,
            lease_token: Uuid::nil(),
            lease_until: 1_000,
            payload_type: None,
            payload: payload.into(),
            waited_for: None,
        };
        let odd = r#"{ "b":1,"a" : [1.50, "ü\u00e4"] }"#;
        let text = String::from_utf8(claim_json(&[job(odd), job("null")]).unwrap()).unwrap();
        assert!(text.contains(odd));
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["jobs"][0]["payload"]["b"], 1);
        assert_eq!(parsed["jobs"][0]["attempt"], 2);
        assert_eq!(parsed["jobs"][1]["lease_until"], "1970-01-01T00:00:01.000Z");
        assert_eq!(claim_json(&[]).unwrap(), b"{\"jobs\":[]}");
    }
}

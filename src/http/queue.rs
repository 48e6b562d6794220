//! `/v1/queues/…` and `/v1/jobs/…`: a tenant's queue over HTTP. A payload is JSON that nobody here reads: its
//! bytes are stored as they come and go out as they were.

use actix_web::http::header::ContentType;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::extract::{Json, JsonBytes, idempotency_key};
use super::guard::TenantCall;
use super::unread::UnreadAnswers;
use crate::auth::scope::Scope;
use crate::clock::rfc3339;
use crate::error::{Error, Result};
use crate::queue::{Claim, Claimed, JobId, NewJob, Queue, QueueName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnqueueBody {
    payload: Box<RawValue>,
    priority: Option<i64>,
    delay_s: Option<i64>,
    max_attempts: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimBody {
    #[serde(default = "one")]
    max: i64,
    #[serde(default = "a_minute")]
    lease_s: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckBody {
    lease_token: String,
}

#[derive(Serialize)]
struct EnqueuedReply<'a> {
    id: JobId,
    queue: &'a str,
    state: &'static str,
    priority: i64,
    max_attempts: i64,
    run_at: String,
    enqueued_at: String,
}

#[derive(Serialize)]
struct AckReply {
    job: JobReply,
}

#[derive(Serialize)]
struct JobReply {
    id: JobId,
    state: &'static str,
}

/// `POST /v1/queues/{queue}/jobs`: 201, and the job is on the disk.
pub async fn enqueue(call: TenantCall, request: HttpRequest, queue: Path<String>, body: JsonBytes<EnqueueBody>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueProduce)?;
    let queue = QueueName::parse(&queue)?;
    let key = idempotency_key(&request, &[queue.as_str().as_bytes(), b"\n", &body.bytes])?;
    let body = body.value;
    let mut job = NewJob::new(body.payload)?;
    if let Some(priority) = body.priority {
        job = job.with_priority(priority)?;
    }
    if let Some(delay_s) = body.delay_s {
        job = job.with_delay_s(delay_s)?;
    }
    if let Some(max_attempts) = body.max_attempts {
        job = job.with_max_attempts(max_attempts)?;
    }
    let made = Queue::new(call.lease().await?.queue()).enqueue(&queue, job, &call.claims.sub, key).await?;
    let mut reply = HttpResponse::Created();
    if made.replayed {
        reply.insert_header(("idempotent-replayed", "true"));
    }
    Ok(reply.json(EnqueuedReply {
        id: made.id,
        queue: queue.as_str(),
        state: made.state(),
        priority: made.priority,
        max_attempts: made.max_attempts,
        run_at: rfc3339(made.run_at),
        enqueued_at: rfc3339(made.enqueued_at),
    }))
}

/// `POST /v1/queues/{queue}/claim`: 200 with the jobs, none when nothing is ready.
pub async fn claim(call: TenantCall, queue: Path<String>, body: Json<ClaimBody>, unread: Data<UnreadAnswers>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let claim = Claim::new(body.0.max, body.0.lease_s)?;
    let lease = call.lease().await?;
    unread.admit(&lease)?;
    let jobs = Queue::new(lease.queue()).claim(&QueueName::parse(&queue)?, claim).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(unread.keep(&lease, claim_json(&jobs)?)))
}

/// `POST /v1/jobs/{id}/ack`: 200 when the job is done by this lease, now or before, 409 `lease_lost` when it is not.
pub async fn ack(call: TenantCall, id: Path<String>, body: Json<AckBody>) -> Result<HttpResponse> {
    call.claims.require(Scope::QueueConsume)?;
    let id = JobId::parse(&id)?;
    Queue::new(call.lease().await?.queue()).ack(id, &body.0.lease_token).await?;
    Ok(HttpResponse::Ok().json(AckReply { job: JobReply { id, state: "done" } }))
}

fn one() -> i64 {
    1
}

fn a_minute() -> i64 {
    60
}

/// Writes the answer around the payloads, since parsing them again only to print them would be most of the work.
fn claim_json(jobs: &[Claimed]) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Head {
        id: JobId,
        attempt: i64,
        lease_token: Uuid,
        lease_until: String,
        enqueued_at: String,
    }

    let mut out = Vec::with_capacity(16 + jobs.iter().map(|job| job.payload.len() + 256).sum::<usize>());
    out.extend_from_slice(b"{\"jobs\":[");
    for (i, job) in jobs.iter().enumerate() {
        let head = Head {
            id: job.id,
            attempt: job.attempt,
            lease_token: job.lease_token,
            lease_until: rfc3339(job.lease_until),
            enqueued_at: rfc3339(job.enqueued_at()),
        };
        if i > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, &head).map_err(|e| Error::internal("a claimed job could not be written as JSON", &e))?;
        out.pop();
        out.extend_from_slice(b",\"payload\":");
        out.extend_from_slice(&job.payload);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_go_out_byte_for_byte_inside_valid_json() {
        let job = |payload: &str| Claimed {
            id: JobId::parse("0190a5c6-0000-7000-8000-000100000000").unwrap(),
            attempt: 2,
            lease_token: Uuid::nil(),
            lease_until: 1_000,
            payload: payload.into(),
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

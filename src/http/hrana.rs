//! Hrana, the libSQL clients' protocol: `GET /v2`, `/v3`, `POST /v2/pipeline`, `/v3/pipeline`, `/v3/cursor`, and the
//! WebSocket on `/` ([`socket`]). Over HTTP a stream lasts from one request to the next by its baton.

mod cursor;
mod frame;
mod job;
pub mod socket;
mod upgrade;

use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::Data;

use super::extract::{Body, parse};
use super::guard::TenantCall;
use super::unread::Unread;
use super::watch::SlowLog;
use crate::error::{Code, Error, Result};
use crate::hrana::proto::{self, CursorReqBody, PipelineReqBody, StreamRequest, StreamResponse};
use crate::hrana::{Context, Owner, Streams};
use crate::sqlite::Taken;
use crate::tenant::Lease;

/// That this version is spoken here.
pub async fn version() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("Hrana over HTTP\n")
}

/// Clients differ in the Content-Type they send, so it is not looked at.
pub async fn pipeline(call: TenantCall, body: Body, streams: Data<Streams>, slow: Data<SlowLog>) -> Result<HttpResponse> {
    let PipelineReqBody { baton, requests } = parse(&body.0)?;
    drop(body);
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let streams = streams.into_inner();
    let cx = context(&call, &lease, &streams)?;
    let mut held = streams.take(call.owner(), baton.as_deref())?;
    let (began, count) = (Instant::now(), requests.len());
    let mut closed = false;
    let mut out = b"{\"results\":[".to_vec();
    // Kept until the whole is counted: the statements that follow may take their time.
    let mut taken = Vec::new();
    for request in requests {
        if out.last() != Some(&b'[') {
            out.push(b',');
        }
        let closes = request == StreamRequest::Close;
        let outcome = match in_time(&lease, began) {
            Err(late) if !closes => Err(late),
            _ => held.stream.run(&cx, request).await,
        };
        closed |= closes;
        taken.extend(result(&mut out, outcome));
    }
    slow.note(call.tenant.id.uuid(), "database", "hrana", began.elapsed(), count, call.request_id);
    let baton = if closed { None } else { streams.give_back(call.owner(), held) };
    out.push(b']');
    end(&mut out, baton.as_deref());
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json"))).body(Unread::keep(&lease, out)))
}

/// A batch whose result is told entry by entry. It has ended before the first one is sent: a client that reads slowly
/// holds up nobody, and what it has not read is bounded like any answer.
pub async fn cursor(call: TenantCall, body: Body, streams: Data<Streams>, slow: Data<SlowLog>) -> Result<HttpResponse> {
    let CursorReqBody { baton, batch } = parse(&body.0)?;
    drop(body);
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let streams = streams.into_inner();
    let cx = context(&call, &lease, &streams)?;
    let mut held = streams.take(call.owner(), baton.as_deref())?;
    let (began, count) = (Instant::now(), batch.steps.len());
    let outcome = held.stream.run(&cx, StreamRequest::Batch(batch)).await;
    slow.note(call.tenant.id.uuid(), "database", "hrana", began.elapsed(), count, call.request_id);
    let baton = streams.give_back(call.owner(), held);
    let mut out = b"{".to_vec();
    end(&mut out, baton.as_deref());
    out.push(b'\n');
    write_entries(&mut out, outcome);
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))).body(Unread::keep(&lease, out)))
}

impl TenantCall {
    fn owner(&self) -> Owner<'_> {
        Owner { tenant: self.tenant.id.uuid(), subject: &self.claims.sub }
    }
}

fn context(call: &TenantCall, lease: &Lease, streams: &Streams) -> Result<Context> {
    Ok(Context::new(lease.database().clone(), lease.plan().clone(), call.sql_scopes()?, streams.transactions()))
}

/// Whether a pipeline that has run since `began` may go on: the plan's time is for all of it, like for any request.
fn in_time(lease: &Lease, began: Instant) -> Result<()> {
    match lease.plan().statement_ms {
        ms if ms > 0 && began.elapsed() >= Duration::from_millis(ms) => {
            Err(Error::new(Code::StatementTimeout, "the pipeline has run for as long as one may; this request was not begun")
                .hint("The plan's bound is statement_ms. Send fewer requests at once."))
        }
        _ => Ok(()),
    }
}

/// Appends a request's outcome; what its rows have taken.
fn result(out: &mut Vec<u8>, outcome: Result<StreamResponse>) -> Vec<Taken> {
    let taken = match outcome {
        Ok(response) => {
            out.extend_from_slice(b"{\"type\":\"ok\",\"response\":");
            response.write(out);
            response.into_taken()
        }
        Err(error) => {
            out.extend_from_slice(b"{\"type\":\"error\",\"error\":");
            proto::Error::from(&error).write(out);
            Vec::new()
        }
    };
    out.push(b'}');
    taken
}

fn write_entries(out: &mut Vec<u8>, outcome: Result<StreamResponse>) {
    match outcome {
        Ok(StreamResponse::Batch(result)) => result.write_entries(out),
        Ok(_) => {}
        Err(error) => {
            out.extend_from_slice(b"{\"type\":\"error\",\"error\":");
            proto::Error::from(&error).write(out);
            out.extend_from_slice(b"}\n");
        }
    }
}

/// The members that an answer ends with. A baton is URL-safe base64 and needs no escape.
fn end(out: &mut Vec<u8>, baton: Option<&str>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    match baton {
        Some(baton) => out.extend_from_slice(format!("\"baton\":\"{baton}\",\"base_url\":null}}").as_bytes()),
        None => out.extend_from_slice(b"\"baton\":null,\"base_url\":null}"),
    }
}

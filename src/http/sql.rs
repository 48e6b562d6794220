//! `POST /v1/sql`.

use std::time::Instant;

use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::extract::{JsonBytes, idempotency_key};
use super::guard::TenantCall;
use super::unread::Unread;
use super::watch::SlowLog;
use crate::error::Result;
use crate::sql::{self, Caller, Request};

pub async fn run(call: TenantCall, request: HttpRequest, body: JsonBytes<Request>, slow: Data<SlowLog>) -> Result<HttpResponse> {
    let key = idempotency_key(&request, &[&body.bytes])?;
    let caller = Caller { subject: call.claims.sub.clone(), scopes: call.sql_scopes()? };
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let began = Instant::now();
    let outcome = sql::run(lease.database(), lease.plan(), caller, body.value, key).await;
    let (took, statements) = outcome.as_ref().map_or_else(|_| (began.elapsed(), 1), |answer| (answer.took, answer.statements));
    slow.note(call.tenant.id.uuid(), "database", "sql", took, statements, call.request_id);
    let answer = outcome?;
    let mut reply = HttpResponse::Ok();
    reply.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    if answer.replayed {
        reply.insert_header(("idempotent-replayed", "true"));
    }
    let body = if answer.wrote { Unread::keep(&lease, answer.body) } else { Unread::hold(&lease, answer.body)? };
    Ok(reply.body(body))
}

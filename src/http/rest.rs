//! `/rest/v1/`: a tenant's tables in PostgREST's dialect.

use actix_web::http::header::{ACCEPT, ALLOW, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use std::sync::Arc;
use std::time::Instant;

use super::extract::Body;
use super::guard::TenantCall;
use super::unread::UnreadAnswers;
use super::watch::SlowLog;
use crate::error::Result;
use crate::rest::{self, Answer, Caller, Request, Schemas, Setting, Task, Unindexed, Verb};
use crate::tenant::Lease;

/// Every method of `/rest/v1/{table}`.
pub async fn rows(
    call: TenantCall,
    request: HttpRequest,
    body: Body,
    schemas: Data<Schemas>,
    unindexed: Data<Unindexed>,
    slow: Data<SlowLog>,
    unread: Data<UnreadAnswers>,
) -> Result<HttpResponse> {
    let task = Task::read(&asked(&request, &body.0))?;
    let lease = call.lease().await?;
    unread.admit(&lease)?;
    let began = Instant::now();
    let outcome = rest::run(lease.database(), setting(&call, &lease, &schemas, &unindexed), task).await;
    slow.note(call.tenant.id.uuid(), "database", "rest", began.elapsed(), 1, call.request_id);
    answered(outcome?, &lease, &unread)
}

/// `OPTIONS /rest/v1/{table}`: the methods it takes.
pub async fn options(call: TenantCall, request: HttpRequest, schemas: Data<Schemas>, unindexed: Data<Unindexed>) -> Result<HttpResponse> {
    let lease = call.lease().await?;
    let allowed = rest::allowed(lease.database(), setting(&call, &lease, &schemas, &unindexed), table(&request)).await?;
    Ok(HttpResponse::Ok().insert_header((ALLOW, allowed)).finish())
}

/// `GET /rest/v1/`: the tables, as an OpenAPI document.
pub async fn root(
    call: TenantCall,
    schemas: Data<Schemas>,
    unindexed: Data<Unindexed>,
    unread: Data<UnreadAnswers>,
) -> Result<HttpResponse> {
    let lease = call.lease().await?;
    unread.admit(&lease)?;
    let document = rest::describe(lease.database(), setting(&call, &lease, &schemas, &unindexed)).await?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/openapi+json; charset=utf-8")).body(unread.hold(&lease, document)?))
}

fn setting(call: &TenantCall, lease: &Lease, schemas: &Data<Schemas>, unindexed: &Unindexed) -> Setting {
    Setting {
        caller: Caller { claims: call.claims.clone() },
        plan: lease.plan().clone(),
        schemas: Arc::clone(schemas),
        unindexed: *unindexed,
    }
}

fn asked<'r>(request: &'r HttpRequest, body: &'r [u8]) -> Request<'r> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (verb, profile) = match *request.method() {
        Method::POST => (Verb::Post, "content-profile"),
        Method::PATCH => (Verb::Patch, "content-profile"),
        Method::PUT => (Verb::Put, "content-profile"),
        Method::DELETE => (Verb::Delete, "content-profile"),
        _ => (Verb::Get, "accept-profile"),
    };
    Request {
        verb,
        table: table(request),
        query: request.query_string(),
        accept: header(ACCEPT),
        profile: header(HeaderName::from_static(profile)),
        prefer: request.headers().get_all("prefer").filter_map(|value| value.to_str().ok()).collect(),
        range: header(RANGE),
        content_type: header(CONTENT_TYPE),
        body,
    }
}

/// The table's name as the client sent it.
fn table(request: &HttpRequest) -> &str {
    request.uri().path().rsplit('/').next().unwrap_or_default()
}

fn answered(answer: Answer, lease: &Lease, unread: &UnreadAnswers) -> Result<HttpResponse> {
    let mut reply = HttpResponse::build(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK));
    let named = [
        (CONTENT_TYPE, answer.content_type.map(str::to_owned)),
        (CONTENT_RANGE, answer.content_range),
        (LOCATION, answer.location),
        (HeaderName::from_static("preference-applied"), answer.preference_applied),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            reply.insert_header((name, value));
        }
    }
    if answer.content_type.is_none() {
        return Ok(reply.finish());
    }
    Ok(reply.body(if answer.wrote { unread.keep(lease, answer.body) } else { unread.hold(lease, answer.body)? }))
}

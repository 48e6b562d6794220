//! `/rest/v1/`: a tenant's tables in PostgREST's dialect.

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::header::{ACCEPT, ALLOW, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::extract::{Body, JsonText, idempotency_key};
use super::guard::TenantCall;
use super::unread::Unread;
use super::watch::SlowLog;
use crate::error::Result;
use crate::rest::{self, Answer, Batch, Call, Caller, Dialect, InForce, Request, Setting, Task, Verb};
use crate::sqlite::Database;
use crate::tenant::Lease;

/// Every method of `/rest/v1/{table}`.
pub async fn rows(call: TenantCall, request: HttpRequest, body: Body, rules: Data<InForce>, slow: Data<SlowLog>) -> Result<HttpResponse> {
    let task = Task::read(&asked(&request, &body.0))?;
    run(&call, &rules.now(), &slow, "rest", async |database, setting| rest::run(database, setting, task).await).await
}

/// `OPTIONS /rest/v1/{table}`: the methods it takes.
pub async fn options(call: TenantCall, request: HttpRequest, rules: Data<InForce>) -> Result<HttpResponse> {
    let lease = call.lease().await?;
    let allowed = rest::allowed(lease.database(), setting(&call, &lease, &rules.now()), table(&request)).await?;
    Ok(HttpResponse::Ok().insert_header((ALLOW, allowed)).finish())
}

/// `/rest/v1/rpc/{name}`
pub async fn call(call: TenantCall, request: HttpRequest, body: Body, rules: Data<InForce>, slow: Data<SlowLog>) -> Result<HttpResponse> {
    let (dialect, caller) = (rules.now(), Caller { claims: call.claims.clone() });
    let called = Call::read(&asked(&request, &body.0), &dialect.functions, &caller)?;
    run(&call, &dialect, &slow, "rpc", async |database, setting| rest::call(database, setting, called).await).await
}

/// `POST /rest/v1/`: several requests in one transaction.
pub async fn batch(
    call: TenantCall,
    request: HttpRequest,
    body: JsonText,
    rules: Data<InForce>,
    slow: Data<SlowLog>,
) -> Result<HttpResponse> {
    let key = idempotency_key(&request, &[request.path().as_bytes(), &body.0])?;
    let dialect = rules.now();
    let batch = Batch::read(&body.0, key, &dialect.functions, &Caller { claims: call.claims.clone() })?;
    run(&call, &dialect, &slow, "rest batch", async |database, setting| rest::run_batch(database, setting, batch).await).await
}

/// `OPTIONS /rest/v1/rpc/{name}`: the methods it takes.
pub async fn callable(call: TenantCall, request: HttpRequest, rules: Data<InForce>) -> Result<HttpResponse> {
    let allowed = rest::callable(&rules.now().functions, &Caller { claims: call.claims.clone() }, table(&request))?;
    Ok(HttpResponse::Ok().insert_header((ALLOW, allowed)).finish())
}

/// `GET /rest/v1/`: the tables, as an OpenAPI document.
pub async fn root(call: TenantCall, rules: Data<InForce>) -> Result<HttpResponse> {
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let document = rest::describe(lease.database(), setting(&call, &lease, &rules.now())).await?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/openapi+json; charset=utf-8")).body(Unread::hold(&lease, document)?))
}

/// What `work` answers of the tenant's database; `operation` is its name in the log of slow ones.
async fn run(
    call: &TenantCall,
    dialect: &Arc<Dialect>,
    slow: &SlowLog,
    operation: &str,
    work: impl AsyncFnOnce(&Arc<Database>, Setting) -> Result<Answer>,
) -> Result<HttpResponse> {
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let began = Instant::now();
    let outcome = work(lease.database(), setting(call, &lease, dialect)).await;
    slow.note(call.tenant.id.uuid(), "database", operation, began.elapsed(), 1, call.request_id);
    answered(outcome?, &lease)
}

fn setting(call: &TenantCall, lease: &Lease, dialect: &Arc<Dialect>) -> Setting {
    Setting::new(Caller { claims: call.claims.clone() }, lease.plan().clone(), dialect.clone())
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
        range: header(RANGE).filter(|_| *request.method() == Method::GET),
        content_type: header(CONTENT_TYPE),
        body,
    }
}

/// The table's name as the client sent it.
fn table(request: &HttpRequest) -> &str {
    request.uri().path().rsplit('/').next().unwrap_or_default()
}

fn answered(answer: Answer, lease: &Lease) -> Result<HttpResponse> {
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
    if answer.replayed {
        reply.insert_header(("idempotent-replayed", "true"));
    }
    if answer.content_type.is_none() {
        return Ok(reply.finish());
    }
    Ok(reply.body(if answer.wrote { Unread::keep(lease, answer.body) } else { Unread::hold(lease, answer.body)? }))
}

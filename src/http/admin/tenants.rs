//! `/admin/v1/tenants`: the tenants and their lives.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{limit, once, page, respond, wrong_cursor};
use crate::error::{Error, Result};
use crate::http::extract::{Json, Query};
use crate::http::guard::Operator;
use crate::system::app::{Filter, Patch, State, TenantRow};
use crate::system::audit::By;
use crate::tenant::lifecycle::Wish;
use crate::tenant::{Lifecycle, Registry, TenantId};

/// The longest text that is searched for, in bytes.
const SEARCH_MAX: usize = 800;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    state: Option<String>,
    q: Option<String>,
    slug: Option<String>,
    #[serde(alias = "cursor")]
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    tenants: Vec<Wish>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchBody {
    name: Option<String>,
    plan: Option<String>,
    state: Option<String>,
}

/// `POST /admin/v1/tenants`: 201, and the tenant can be used.
pub async fn create(operator: Operator, request: HttpRequest, body: Json<Wish>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let once = once(&request, &operator, "POST /admin/v1/tenants", &body.0)?;
    lifecycle.provision(By::from(&operator), body.0, once).await.map(respond)
}

/// `POST /admin/v1/tenants:batch`: 200 with a result for each.
pub async fn create_batch(
    operator: Operator,
    request: HttpRequest,
    body: Json<BatchBody>,
    lifecycle: Data<Lifecycle>,
) -> Result<HttpResponse> {
    let once = once(&request, &operator, "POST /admin/v1/tenants:batch", &body.0)?;
    lifecycle.provision_batch(By::from(&operator), body.0.tenants, once).await.map(respond)
}

/// `GET /admin/v1/tenants`: a page, in the order they were made. Deleted ones only with `state=deleted`.
pub async fn list(_operator: Operator, query: Query<ListQuery>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let Query(query) = query;
    let limit = limit(query.limit)?;
    if query.q.as_ref().is_some_and(|q| q.len() > SEARCH_MAX) {
        return Err(Error::bad_request(format!("`q` is longer than {SEARCH_MAX} bytes")));
    }
    let states = match query.state.as_deref() {
        None => vec![State::Provisioning, State::Active, State::Suspended],
        Some(state) => vec![State::parse(state).ok_or_else(|| unknown_state(state, &State::ALL))?],
    };
    let after = query.after.as_deref().map(TenantId::parse).transpose().map_err(|_| wrong_cursor())?;
    let after = after.map(TenantId::uuid);
    let rows = lifecycle.list(Filter { states, search: query.q, slug: query.slug, after, limit: limit + 1 }).await?;
    let (rows, next_cursor) = page(rows, limit, |row| row.id.to_string());
    let tenants: Vec<_> = rows.iter().map(TenantRow::to_json).collect();
    Ok(HttpResponse::Ok().json(json!({ "tenants": tenants, "next_cursor": next_cursor })))
}

/// `GET /admin/v1/tenants/{id}`: with its files.
pub async fn get(_operator: Operator, id: Path<String>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let details = lifecycle.details(TenantId::parse(&id)?).await?;
    Ok(tenant(details.to_json()))
}

/// `PATCH /admin/v1/tenants/{id}`: name, plan, state.
pub async fn patch(operator: Operator, id: Path<String>, body: Json<PatchBody>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    const STATES: [State; 2] = [State::Active, State::Suspended];
    let id = TenantId::parse(&id)?;
    let Json(PatchBody { name, plan, state }) = body;
    let state = match state {
        None => None,
        Some(text) => Some(State::parse(&text).filter(|state| STATES.contains(state)).ok_or_else(|| unknown_state(&text, &STATES))?),
    };
    if name.is_none() && plan.is_none() && state.is_none() {
        return Err(Error::bad_request("nothing to change").hint("Give at least one of `name`, `plan` and `state`."));
    }
    let row = lifecycle.patch(By::from(&operator), id, Patch { name, plan, state }).await?;
    Ok(tenant(row.to_json()))
}

/// `DELETE /admin/v1/tenants/{id}`: to the trash.
pub async fn delete(operator: Operator, id: Path<String>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let row = lifecycle.delete(By::from(&operator), TenantId::parse(&id)?).await?;
    Ok(tenant(row.to_json()))
}

/// `POST /admin/v1/tenants/{id}/undelete`: out of the trash.
pub async fn undelete(operator: Operator, id: Path<String>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let row = lifecycle.undelete(By::from(&operator), TenantId::parse(&id)?).await?;
    Ok(tenant(row.to_json()))
}

/// `POST /admin/v1/tenants/{id}/purge`: for good. The answer has the tenant as it last was.
pub async fn purge(operator: Operator, id: Path<String>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let row = lifecycle.purge(By::from(&operator), TenantId::parse(&id)?).await?;
    Ok(tenant(row.to_json()))
}

/// `GET /admin/v1/plans`: the named limits.
pub async fn plans(_operator: Operator, registry: Data<Registry>) -> HttpResponse {
    let plans: std::collections::BTreeMap<_, _> = registry.plans().iter().map(|(name, plan)| (name, &**plan)).collect();
    HttpResponse::Ok().json(json!({ "plans": plans }))
}

fn tenant(tenant: Value) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "tenant": tenant }))
}

fn unknown_state(given: &str, known: &[State]) -> Error {
    let known: Vec<_> = known.iter().map(|state| state.as_str()).collect();
    let given: String = given.chars().take(40).collect();
    Error::bad_request(format!("`state` cannot be {given:?}")).hint(format!("It is one of: {}.", known.join(", ")))
}

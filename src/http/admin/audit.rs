//! `/admin/v1/audit`: what operators did, and whether the record of it is whole.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Deserialize;
use serde_json::json;

use super::{limit, page, wrong_cursor};
use crate::error::Result;
use crate::http::extract::Query;
use crate::http::guard::Operator;
use crate::system::Systems;
use crate::system::audit::{Entry, Filter};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    actor: Option<String>,
    action: Option<String>,
    target: Option<String>,
    #[serde(alias = "cursor")]
    after: Option<String>,
    limit: Option<u32>,
}

/// `GET /admin/v1/audit`: a page, newest first.
pub async fn list(_operator: Operator, query: Query<ListQuery>, systems: Data<Systems>) -> Result<HttpResponse> {
    let Query(ListQuery { actor, action, target, after, limit: asked }) = query;
    let limit = limit(asked)?;
    let before = after.as_deref().map(str::parse).transpose().map_err(|_| wrong_cursor())?;
    let entries = systems.audit.list(Filter { actor, action, target, before, limit: limit + 1 }).await?;
    let (entries, next_cursor) = page(entries, limit, |entry| entry.seq.to_string());
    let entries: Vec<_> = entries.iter().map(Entry::to_json).collect();
    Ok(HttpResponse::Ok().json(json!({ "entries": entries, "next_cursor": next_cursor })))
}

/// `GET /admin/v1/audit/verify`: walks the whole chain.
pub async fn verify(_operator: Operator, systems: Data<Systems>) -> Result<HttpResponse> {
    let verified = systems.audit.verify().await?;
    Ok(HttpResponse::Ok().json(verified.to_json()))
}

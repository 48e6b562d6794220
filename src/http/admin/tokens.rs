//! `/admin/v1/tenants/{id}/tokens`: the tokens that were signed for a tenant.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{limit, once, page, respond, wrong_cursor};
use crate::auth::Scopes;
use crate::error::{Error, Result};
use crate::http::extract::{Json, Query};
use crate::http::guard::Operator;
use crate::system::app::TokenRow;
use crate::system::audit::By;
use crate::tenant::lifecycle::TokenWish;
use crate::tenant::{Lifecycle, TenantId};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    role: String,
    sub: String,
    scopes: Vec<String>,
    expires_in_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(alias = "cursor")]
    after: Option<String>,
    limit: Option<u32>,
}

/// `POST /admin/v1/tenants/{id}/tokens`: 201 with the token, shown this once.
pub async fn create(
    operator: Operator,
    id: Path<String>,
    request: HttpRequest,
    body: Json<TokenBody>,
    lifecycle: Data<Lifecycle>,
) -> Result<HttpResponse> {
    let id = TenantId::parse(&id)?;
    let once = once(&request, &operator, &format!("POST /admin/v1/tenants/{id}/tokens"), &body.0)?;
    let Json(TokenBody { role, sub, scopes, expires_in_s }) = body;
    let scopes = Scopes::parse(scopes.iter().map(String::as_str))?;
    let wish = TokenWish { sub, role, scopes, expires_in_s };
    lifecycle.token_create(By::from(&operator), id, wish, once).await.map(respond)
}

/// `GET /admin/v1/tenants/{id}/tokens`: a page, in the order they were made.
pub async fn list(_operator: Operator, id: Path<String>, query: Query<ListQuery>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let limit = limit(query.0.limit)?;
    let after = query.0.after.as_deref().map(Uuid::try_parse).transpose().map_err(|_| wrong_cursor())?;
    let rows = lifecycle.tokens(TenantId::parse(&id)?, after, limit + 1).await?;
    let (rows, next_cursor) = page(rows, limit, |row| row.jti.to_string());
    let tokens: Vec<_> = rows.iter().map(TokenRow::to_json).collect();
    Ok(HttpResponse::Ok().json(json!({ "tokens": tokens, "next_cursor": next_cursor })))
}

/// `DELETE /admin/v1/tenants/{id}/tokens/{jti}`: refused everywhere from now on.
pub async fn revoke(operator: Operator, path: Path<(String, String)>, lifecycle: Data<Lifecycle>) -> Result<HttpResponse> {
    let (id, jti) = path.into_inner();
    let id = TenantId::parse(&id)?;
    let jti =
        Uuid::try_parse(&jti).map_err(|_| Error::bad_request("this is not a token's id").hint("It is `jti` of the token, a UUID."))?;
    let row = lifecycle.token_revoke(By::from(&operator), id, jti).await?;
    Ok(HttpResponse::Ok().json(json!({ "token": row.to_json() })))
}

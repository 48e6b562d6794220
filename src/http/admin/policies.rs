//! `/admin/v1/tenants/{id}/policies/test`: what the policies make of a caller.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::Verifier;
use crate::error::{Error, Result};
use crate::http::extract::Json;
use crate::http::guard::Operator;
use crate::rest::{self, Caller, Dialect, Setting};
use crate::tenant::registry::Registry;
use crate::tenant::{TenantId, Triples};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    table: String,
    /// A token of the tenant's.
    token: Option<String>,
    /// What a token would say: `sub`, `role` and whatever policies ask for.
    claims: Option<Map<String, Value>>,
}

/// `POST /admin/v1/tenants/{id}/policies/test`
pub async fn test(
    _operator: Operator,
    id: Path<String>,
    body: Json<Body>,
    verifier: Data<Verifier>,
    registry: Data<Registry>,
    triples: Data<Triples>,
    dialect: Data<Dialect>,
) -> Result<HttpResponse> {
    let id = TenantId::parse(&id)?;
    let Json(Body { table, token, claims }) = body;
    let caller = match (token, claims) {
        (Some(token), None) => Caller { claims: verifier.verify(&token).await? },
        (None, Some(claims)) => rest::caller(id.uuid(), &claims),
        _ => return Err(Error::bad_request("who calls is said by `token` or by `claims`").hint("One of the two.")),
    };
    if caller.claims.tenant != id.uuid() {
        return Err(Error::bad_request("the token is another tenant's"));
    }
    let tenant = registry.active(id).await?;
    let lease = triples.into_inner().lease(id, &tenant.plan).await?;
    let setting = Setting::new(caller, lease.plan().clone(), dialect.into_inner());
    Ok(HttpResponse::Ok().json(rest::verdict(lease.database(), setting, table).await?))
}

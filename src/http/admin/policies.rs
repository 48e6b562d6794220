//! `/admin/v1/policies` and `/admin/v1/tenants/{id}/policies/test`: what is declared, and what it makes of a caller.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::auth::Verifier;
use crate::error::{Error, Result};
use crate::http::extract::Json;
use crate::http::guard::Operator;
use crate::rest::{self, Caller, InForce, Setting};
use crate::sqlite::Engine;
use crate::system::Systems;
use crate::system::audit::By;
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
    rules: Data<InForce>,
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
    let setting = Setting::new(caller, lease.plan().clone(), rules.now());
    Ok(HttpResponse::Ok().json(rest::verdict(lease.database(), setting, table).await?))
}

/// `POST /admin/v1/policies:reload`: reads policies and functions anew; requests that begin from now on are held to them.
pub async fn reload(operator: Operator, engine: Data<Engine>, rules: Data<InForce>, systems: Data<Systems>) -> Result<HttpResponse> {
    let by = By::from(&operator);
    let (rules, audit, who) = (rules.into_inner(), systems.audit.clone(), by.clone());
    let reload = async move {
        audit.record(who.begun("policies.reload", None, json!({}))).await?;
        let read = engine.blocking(move || rules.read_anew()).await?;
        let counts =
            json!({ "policies": read.policies, "grants": read.grants, "functions": read.functions, "problems": read.problems.len() });
        audit.record(who.did("policies.reload", None, counts)).await?;
        Ok(read)
    };
    let read = systems.audit.attempt(&by, "policies.reload", None, reload).await?;
    Ok(HttpResponse::Ok().json(read))
}

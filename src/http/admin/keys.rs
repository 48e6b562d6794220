//! `/admin/v1/keys`: the keys that our own tokens are signed with.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;

use crate::auth::KeyRing;
use crate::error::Result;
use crate::http::guard::Operator;
use crate::system::Systems;
use crate::system::audit::By;

/// `POST /admin/v1/keys:rotate`: from now on a new key signs; what the old one signed stays good.
pub async fn rotate(operator: Operator, ring: Data<KeyRing>, systems: Data<Systems>) -> Result<HttpResponse> {
    let by = By::from(&operator);
    let (ring, audit, who) = (ring.into_inner(), systems.audit.clone(), by.clone());
    let rotate = async move {
        let kid = ring.rotate().await?;
        audit.record(who.did("keys.rotate", Some(kid.clone()), json!({ "kid": kid }))).await?;
        Ok(kid)
    };
    let kid = systems.audit.attempt(&by, "keys.rotate", None, rotate).await?;
    Ok(HttpResponse::Ok().json(json!({ "kid": kid })))
}

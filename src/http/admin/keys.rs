//! `/admin/v1/keys`: the keys that our own tokens are signed with.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Deserialize;
use serde_json::json;

use crate::auth::KeyRing;
use crate::error::Result;
use crate::http::extract::{Body, parse};
use crate::http::guard::Operator;
use crate::system::Systems;
use crate::system::audit::By;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateBody {
    /// Whether the older keys are deleted: tokens that they signed are refused from then on. Their number does not
    /// matter.
    #[serde(default)]
    retire_older: bool,
}

/// `POST /admin/v1/keys:rotate`: from now on a new key signs; what the old one signed stays good, unless older keys
/// are retired with it. The body may be left out.
pub async fn rotate(operator: Operator, body: Body, ring: Data<KeyRing>, systems: Data<Systems>) -> Result<HttpResponse> {
    let body: RotateBody = if body.0.is_empty() { RotateBody::default() } else { parse(&body.0)? };
    let by = By::from(&operator);
    let (ring, audit, who) = (ring.into_inner(), systems.audit.clone(), by.clone());
    let rotate = async move {
        audit.record(who.begun("keys.rotate", None, json!({ "retire_older": body.retire_older }))).await?;
        let (kid, retired) = match body.retire_older {
            true => ring.replace_all().await?,
            false => (ring.rotate().await?, Vec::new()),
        };
        let done = json!({ "kid": kid, "retired": retired });
        audit.record(who.did("keys.rotate", Some(kid), done.clone())).await?;
        Ok(done)
    };
    let done = systems.audit.attempt(&by, "keys.rotate", None, rotate).await?;
    Ok(HttpResponse::Ok().json(done))
}

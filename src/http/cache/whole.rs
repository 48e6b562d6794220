//! `/v1/cache`: the cache as a whole: what is in it, and throwing away what has something in common.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::{Deserialize, Serialize};

use super::super::extract::Query;
use super::super::guard::Caller;
use super::namespace;
use crate::auth::scope::Scope;
use crate::cache::{Cache, Counts, Memory, Stats, Tag, Thrown};
use crate::error::{Error, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrowQuery {
    namespace: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Serialize)]
struct StatsReply {
    entries: i64,
    bytes: i64,
    #[serde(flatten)]
    counts: Counts,
}

/// `DELETE ?tag=`, `?prefix=` (with `namespace`, or in the default one), `?namespace=` or `?all=true`: 204.
pub async fn throw(call: Caller, query: Query<ThrowQuery>, memory: Data<Memory>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let what = match query.0 {
        ThrowQuery { tag: Some(tag), namespace: None, prefix: None, all: false } => Thrown::Tag(Tag::parse(&tag)?),
        ThrowQuery { tag: None, namespace: name, prefix: Some(prefix), all: false } => {
            Thrown::Prefix(namespace(name.as_deref())?.prefix(&prefix)?)
        }
        ThrowQuery { tag: None, namespace: Some(name), prefix: None, all: false } => Thrown::namespace(&namespace(Some(&name))?),
        ThrowQuery { tag: None, namespace: None, prefix: None, all: true } => Thrown::Everything,
        _ => {
            return Err(Error::bad_request("say one thing to throw away")
                .hint("One of tag=…, prefix=… (in the default namespace, or with namespace=…), namespace=…, all=true."));
        }
    };
    Cache::new(call.lease().await?.cache(), &memory).throw(what).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET`: how much there is, and what the tiers did.
pub async fn stats(call: Caller, memory: Data<Memory>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let Stats { entries, bytes, counts } = Cache::new(call.lease().await?.cache(), &memory).stats().await?;
    Ok(HttpResponse::Ok().json(StatsReply { entries, bytes, counts }))
}

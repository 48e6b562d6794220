//! `/v1/locks/{name}`: a tenant's locks over HTTP.

use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::extract::{Json, idempotency_key};
use super::guard::Caller;
use crate::auth::scope::Scope;
use crate::clock::rfc3339;
use crate::error::{Error, Result};
use crate::locks::{Key, Lock, LockName, Locks, Mine, Taken, WaitingForLocks};

/// The longest that a request waits for a lock, in seconds.
const WAIT_MAX_S: u64 = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeBody {
    ttl_s: i64,
    #[serde(default)]
    wait_s: u64,
    owner: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendBody {
    token: Uuid,
    ttl_s: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBody {
    token: Uuid,
}

#[derive(Serialize)]
struct LockReply<'a> {
    name: &'a str,
    /// Told only to who has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Uuid>,
    fence: i64,
    owner: &'a str,
    taken_at: String,
    until: String,
}

/// `POST`: 200 and the lock is the caller's, on the disk; 409 when somebody else has it, and had it for all of `wait_s`.
pub async fn take(
    call: Caller,
    request: HttpRequest,
    name: Path<String>,
    waiting: Data<WaitingForLocks>,
    body: Json<TakeBody>,
) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let (name, TakeBody { ttl_s, wait_s, owner }) = (LockName::parse(&name)?, body.0);
    if wait_s > WAIT_MAX_S {
        return Err(Error::bad_request(format!("wait_s is {wait_s}, but must lie between 0 and {WAIT_MAX_S}")));
    }
    let owner = owner.as_deref().unwrap_or(&call.claims.sub);
    // How long one waits for it makes no other request of it.
    let key =
        idempotency_key(&request, &[b"lock\n", name.as_str().as_bytes(), b"\n", ttl_s.to_string().as_bytes(), b"\n", owner.as_bytes()])?;
    let key = key.map(|key| Key { by: call.claims.sub.clone(), key });
    let until = Instant::now() + Duration::from_secs(wait_s);
    let mut turn = None;
    loop {
        // Not held while waiting: the tenant can be suspended, and its files closed, meanwhile.
        let lease = call.lease().await?;
        if wait_s > 0 && turn.is_none() {
            turn = Some(waiting.join(lease.queue(), &name)?);
        }
        match Locks::new(lease.queue(), &waiting).take(&name, owner, ttl_s, key.clone()).await? {
            Taken::Mine(Mine { token, lock, replayed }) => {
                let mut answer = HttpResponse::Ok();
                if replayed {
                    answer.insert_header(("idempotent-replayed", "true"));
                }
                return Ok(answer.json(reply(&name, Some(token), &lock)));
            }
            Taken::Theirs(lock) => {
                drop(lease);
                let again = match &turn {
                    Some(turn) => turn.worth_trying(lock.until, until).await,
                    None => false,
                };
                if !again {
                    return Err(taken(&name, &lock));
                }
            }
        }
    }
}

/// `GET`: who has it; 404 when nobody does.
pub async fn look(call: Caller, name: Path<String>, waiting: Data<WaitingForLocks>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let name = LockName::parse(&name)?;
    let lock = Locks::new(call.lease().await?.queue(), &waiting).look(&name).await?;
    let lock = lock.ok_or_else(|| Error::not_found(format!("nobody has the lock {}", name.as_str())))?;
    Ok(HttpResponse::Ok().json(reply(&name, None, &lock)))
}

/// `POST …/extend`: 200 with the lock, now until later; 409 when the token does not hold it.
pub async fn extend(call: Caller, name: Path<String>, waiting: Data<WaitingForLocks>, body: Json<ExtendBody>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let (name, ExtendBody { token, ttl_s }) = (LockName::parse(&name)?, body.0);
    let lock = Locks::new(call.lease().await?.queue(), &waiting).extend(&name, token, ttl_s).await?;
    Ok(HttpResponse::Ok().json(reply(&name, Some(token), &lock)))
}

/// `POST …/release`: 204; 409 when the token does not hold it.
pub async fn release(call: Caller, name: Path<String>, waiting: Data<WaitingForLocks>, body: Json<ReleaseBody>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let name = LockName::parse(&name)?;
    Locks::new(call.lease().await?.queue(), &waiting).release(&name, body.0.token).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn reply<'a>(name: &'a LockName, token: Option<Uuid>, lock: &'a Lock) -> LockReply<'a> {
    LockReply {
        name: name.as_str(),
        token,
        fence: lock.fence,
        owner: &lock.owner,
        taken_at: rfc3339(lock.taken_at),
        until: rfc3339(lock.until),
    }
}

fn taken(name: &LockName, lock: &Lock) -> Error {
    Error::conflict(format!("somebody else has the lock {}", name.as_str()))
        .hint("Ask with wait_s, or again later.")
        .detail("owner", lock.owner.as_str())
        .detail("fence", lock.fence)
        .detail("until", rfc3339(lock.until))
}

//! Writing through the cache: statements on the tenant's database, and then the entry, or the remembered answer, that was
//! made of what they changed. The statements are a request of `/v1/sql`, under its rules; what becomes of the cache
//! is said in headers of the answer and never undoes them.

use actix_web::http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::super::extract::{JsonBytes, Query, idempotency_key};
use super::super::guard::TenantCall;
use super::super::unread::Unread;
use super::super::watch::SlowLog;
use super::entry::EntryBody;
use super::{CACHE_STATUS, KeyQuery, behind, key};
use crate::auth::scope::Scope;
use crate::cache::{Cache, Etag, Memory};
use crate::error::{Error, Result};
use crate::queue::Waiters;
use crate::sql::{self, Answer, Caller, Integers, Mode, Request, Statement};
use crate::sqlite::IdempotencyKey;
use crate::tenant::Lease;

pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThroughBody {
    statements: Vec<Statement>,
    #[serde(default)]
    integers: Integers,
    entry: EntryBody,
}

/// What is written to the database, and by whom.
pub(super) struct Written {
    pub caller: Caller,
    pub statements: Vec<Statement>,
    pub integers: Integers,
    pub key: Option<IdempotencyKey>,
}

impl Written {
    /// Commits it. Errors: those of `/v1/sql`.
    pub async fn commit(self, lease: &Lease, slow: &SlowLog, call: &TenantCall) -> Result<Answer> {
        self.caller.scopes.require(Scope::SqlWrite)?;
        let Written { caller, statements, integers, key } = self;
        let request = Request { statements: Some(statements), script: None, transaction: Some(Mode::Write), integers };
        let answer = sql::run(lease.database(), lease.plan(), caller, request, key).await?;
        slow.note(call.tenant.id.uuid(), "database", "through", answer.took, answer.statements, call.request_id);
        Ok(answer)
    }
}

/// `PUT /v1/cache/{key}/through`: what the statements gave, as `/v1/sql` answers; with an `ETag` if the entry is set.
pub async fn put(
    call: TenantCall,
    request: HttpRequest,
    query: Query<KeyQuery>,
    (memory, waiters, slow): (Data<Memory>, Data<Waiters>, Data<SlowLog>),
    body: JsonBytes<ThroughBody>,
) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let caller = call.sql_caller()?;
    let key = key(&request, query.0.namespace.as_deref())?;
    let ThroughBody { statements, integers, entry } = body.value;
    let idempotency_key = idempotency_key(&request, &[b"through", key.as_bytes(), b"\n", &body.bytes])?;
    let (put, written) = (entry.put(key.clone())?, Written { caller, statements, integers, key: idempotency_key });
    written.caller.scopes.require(Scope::SqlWrite)?;
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let (memory, waiters, slow) = (memory.into_inner(), waiters.into_inner(), slow.into_inner());
    // It goes on when the client hangs up: nobody may fill the entry before the commit that is on its way.
    let through = actix_web::rt::spawn(async move {
        let cache = Cache::new(lease.cache(), &memory);
        let change = cache.begin_change(key.clone()).await?;
        if behind::pending(lease.queue(), &waiters, &key).await?.is_some() {
            return Err(is_behind());
        }
        let answer = written.commit(&lease, &slow, &call).await?;
        // What was written long ago may not be what is there now.
        let set = if answer.replayed { Err(replayed()) } else { cache.settle(change, put).await };
        Ok::<_, Error>((lease, answer, set))
    });
    let (lease, answer, set) = through.await.map_err(|error| Error::internal("a write-through ended early", &error))??;
    let mut reply = HttpResponse::Ok();
    reply.insert_header((CONTENT_TYPE, "application/json")).insert_header((CACHE_STATUS, stored(&set)));
    if let Ok(Some(etag)) = &set {
        reply.insert_header((ETAG, etag.to_string()));
    }
    if answer.replayed {
        reply.insert_header((REPLAYED, "true"));
    }
    Ok(reply.body(Unread::keep(&lease, answer.body)))
}

/// RFC 9211: whether the entry was set, and why not.
pub(super) fn stored(set: &Result<Option<Etag>>) -> HeaderValue {
    match set {
        Ok(None) => HeaderValue::from_static("tenantry; fwd=method; detail=not-stored"),
        Ok(Some(_)) => HeaderValue::from_static("tenantry; fwd=method; stored"),
        Err(error) => {
            let text = format!("tenantry; fwd=method; detail={}", error.code().as_str());
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("tenantry; fwd=method"))
        }
    }
}

fn is_behind() -> Error {
    Error::conflict("an earlier write of this key is still to be made behind the cache")
        .hint("It would undo this one. Wait until it is made, or write this one behind the cache too: it takes the other one's place.")
}

pub(super) fn replayed() -> Error {
    Error::conflict("the statements were committed by an earlier request")
}

//! `POST /v1/cache/{key}/remember`: a query on the tenant's database, answered as `/v1/sql` does, from the cache while no
//! later commit has written what it reads; with `PUT` after statements that write it.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::extract::{Json, JsonBytes, Query, idempotency_key};
use super::super::guard::TenantCall;
use super::super::unread::Unread;
use super::super::watch::SlowLog;
use super::through::{REPLAYED, Written};
use super::{CACHE_STATUS, KeyQuery, answer, namespace, segment};
use crate::auth::scope::Scope;
use crate::cache::{Cache, Conditions, Key, Making, Memory, QueryId, Recalled, Seconds, Tag, Terms, Wanted};
use crate::error::{Error, Result};
use crate::sql::{self, Caller, Integers, Params, Statement};
use crate::sqlite::Limits;
use crate::tenant::Lease;

/// How long one waits for others to make the answer before one makes it oneself.
const WAIT: Duration = Duration::from_secs(10);

/// How often one waits, where what the others made was old again at once.
const WAITS: u32 = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RememberBody {
    sql: String,
    #[serde(default)]
    params: Params,
    #[serde(default)]
    integers: Integers,
    ttl: Option<i64>,
    jitter: Option<i64>,
    #[serde(default)]
    tags: Vec<String>,
    /// Of a `PUT`: what is written before.
    #[serde(default)]
    statements: Vec<Statement>,
}

/// What is asked, and how the answer is kept.
struct Asked {
    caller: Caller,
    key: Key,
    query: Arc<sql::Query>,
    id: QueryId,
    terms: Terms,
    lasting: bool,
    statements: Option<Vec<Statement>>,
}

/// `POST`: the answer, remembered or made now.
pub async fn remember(
    call: TenantCall,
    request: HttpRequest,
    query: Query<KeyQuery>,
    memory: Data<Memory>,
    slow: Data<SlowLog>,
    body: Json<RememberBody>,
) -> Result<HttpResponse> {
    let asked = Asked::new(allowed(&call)?, remembered(&request, &query.0)?, body.0)?;
    if asked.statements.is_some() {
        return Err(Error::bad_request("a query is asked with statements").hint("PUT runs them first."));
    }
    asked.answer(&call, &request, &memory, &slow).await
}

/// `PUT`: the answer after statements that are committed first. Errors: those of the statements, with nothing written; any
/// other says `committed` in its details.
pub async fn write(
    call: TenantCall,
    request: HttpRequest,
    query: Query<KeyQuery>,
    memory: Data<Memory>,
    slow: Data<SlowLog>,
    body: JsonBytes<RememberBody>,
) -> Result<HttpResponse> {
    let key = remembered(&request, &query.0)?;
    let idempotency_key = idempotency_key(&request, &[b"remember", key.as_bytes(), b"\n", &body.bytes])?;
    let mut asked = Asked::new(allowed(&call)?, key, body.value)?;
    let statements = asked.statements.take().ok_or_else(|| Error::bad_request("statements are missing").hint("POST asks without them."))?;
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let integers = asked.query.integers;
    let written = Written { caller: asked.caller.clone(), statements, integers, key: idempotency_key };
    let committed = written.commit(&lease, &slow, &call).await?;
    drop(lease);
    let answer = asked.answer(&call, &request, &memory, &slow).await;
    let mut answer = answer.map_err(|error| error.detail("committed", true))?;
    if committed.replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

fn allowed(call: &TenantCall) -> Result<Caller> {
    call.claims.require(Scope::Cache)?;
    let caller = call.sql_caller()?;
    caller.scopes.require(Scope::SqlRead)?;
    Ok(caller)
}

/// `DELETE`: 204, whether or not an answer was there.
pub async fn forget(call: TenantCall, request: HttpRequest, query: Query<KeyQuery>, memory: Data<Memory>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let key = remembered(&request, &query.0)?;
    Cache::new(call.lease().await?.cache(), &memory).delete(key, Conditions::default()).await?;
    Ok(HttpResponse::NoContent().finish())
}

impl Asked {
    fn new(caller: Caller, key: Key, body: RememberBody) -> Result<Asked> {
        let RememberBody { sql, params, integers, ttl, jitter, tags, statements } = body;
        let statements = (!statements.is_empty()).then_some(statements);
        let seconds = |what, given: Option<i64>| given.map(|given| Seconds::new(what, given)).transpose();
        let tags = tags.iter().map(|tag| Tag::parse(tag)).collect::<Result<_>>()?;
        let terms = Terms::new(Wanted { ttl: seconds("ttl", ttl)?, jitter: seconds("jitter", jitter)?, tags, ..Wanted::default() })?;
        let query = sql::Query { sql, params, integers };
        let spelled = serde_json::to_vec(&query).map_err(|error| Error::internal("a query cannot be spelled out", &error))?;
        Ok(Asked { caller, key, id: QueryId::of(&spelled), query: Arc::new(query), terms, lasting: ttl.is_none(), statements })
    }

    async fn answer(self, call: &TenantCall, request: &HttpRequest, memory: &Arc<Memory>, slow: &SlowLog) -> Result<HttpResponse> {
        let until = Instant::now() + WAIT;
        for _ in 0..WAITS {
            // Not held while waiting: the tenant can be suspended, and its files closed, meanwhile.
            let lease = call.lease().await?;
            let cache = Cache::new(lease.cache(), memory);
            match cache.recall(&self.key, self.id, lease.database(), Limits::of(lease.plan())).await? {
                Recalled::Found(found) => return answer(request, &lease, &found),
                Recalled::Mine(making) => return self.make(call, &lease, memory, slow, Some(making)).await,
                Recalled::Theirs(waiting) => {
                    drop(lease);
                    waiting.over(until).await;
                }
            }
        }
        self.make(call, &call.lease().await?, memory, slow, None).await
    }

    /// Asks the database, and keeps the answer where `making` entitles to.
    async fn make(
        self,
        call: &TenantCall,
        lease: &Lease,
        memory: &Arc<Memory>,
        slow: &SlowLog,
        making: Option<Making>,
    ) -> Result<HttpResponse> {
        lease.answers().admit()?;
        let made = self.query.make(lease.database(), lease.plan(), self.caller, self.lasting).await?;
        slow.note(call.tenant.id.uuid(), "database", "remember", made.took, 1, call.request_id);
        let (body, taken) = (Bytes::from(made.body.bytes), made.body.taken);
        let kept = match (making, made.seen) {
            (Some(making), Some(seen)) => {
                Cache::new(lease.cache(), memory).keep(making, self.key, self.id, seen, body.clone(), self.terms).await
            }
            _ => None,
        };
        let mut answer = HttpResponse::Ok();
        answer
            .insert_header((CONTENT_TYPE, "application/json"))
            .insert_header((CACHE_CONTROL, "private, no-cache"))
            .insert_header((AGE, 0));
        match kept {
            Some(etag) => answer.insert_header((ETAG, etag.to_string())).insert_header((CACHE_STATUS, "tenantry; fwd=miss; stored")),
            None => answer.insert_header((CACHE_STATUS, "tenantry; fwd=miss")),
        };
        Ok(answer.body(Unread::hold(lease, (body, taken))?))
    }
}

fn remembered(request: &HttpRequest, query: &KeyQuery) -> Result<Key> {
    namespace(query.namespace.as_deref())?.remembered(&segment(request)?)
}

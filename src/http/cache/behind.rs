//! Writing behind the cache: the entry is set now, and the statements that bring it into the tenant's database are a job of
//! the tenant's queue, which is on the disk before anybody is answered. The server runs it, once, after the key's earlier ones.
//!
//! - Until it has run, the job is what the key holds: a reader who misses the entry is answered with the job's, and nobody gets
//!   a fill. So what was acknowledged does not vanish into what the database had before.
//! - When it has run, an entry that is not the job's goes. When it comes to nothing for good, the entry goes first, and then
//!   the job is dead, with the reason.

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::super::extract::{JsonBytes, Query, idempotency_key, parse};
use super::super::guard::{TenantCall, may_send_sql};
use super::super::queue::{effect, enqueued};
use super::super::unread::{Audience, Unread};
use super::entry::EntryBody;
use super::through::{REPLAYED, replayed, stored};
use super::{CACHE_STATUS, KeyQuery, namespace, segment};
use crate::auth::scope::{Scope, Scopes};
use crate::cache::{Cache, Key, Memory, Put};
use crate::error::{Code, Error, Result};
use crate::queue::{Claimed, ERROR_BYTES, Moved, Nack, NewJob, Queue, QueueName, Redrive, Waiters};
use crate::rest::Policies;
use crate::sql::once::{self, Once};
use crate::sql::{Caller, STATEMENTS_MAX, Statement};
use crate::sqlite::Database;
use crate::tenant::Lease;

/// Dead writes that are brought back in one step: so many payloads are in memory then.
const REDRIVEN: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BehindBody {
    statements: Vec<Statement>,
    entry: EntryBody,
    delay_s: Option<i64>,
}

/// What of a body goes into the job as it came.
#[derive(Deserialize)]
struct AsSent {
    statements: Box<RawValue>,
    entry: Box<RawValue>,
}

/// The job's payload.
#[derive(Deserialize, Serialize)]
struct Write {
    namespace: Option<String>,
    key: String,
    subject: String,
    /// Without one it is no role's that policies let through.
    #[serde(default)]
    role: String,
    scopes: Scopes,
    statements: Box<RawValue>,
    entry: Box<RawValue>,
}

/// `PUT /v1/cache/{key}/behind`: 202 once the job is on the disk; with an `ETag` if the entry is set.
pub async fn put(
    call: TenantCall,
    request: HttpRequest,
    query: Query<KeyQuery>,
    memory: Data<Memory>,
    waiters: Data<Waiters>,
    body: JsonBytes<BehindBody>,
) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let Caller { subject, scopes } = call.sql_caller()?;
    scopes.require(Scope::SqlWrite)?;
    let BehindBody { statements, entry, delay_s } = body.value;
    if !(1..=STATEMENTS_MAX).contains(&statements.len()) {
        return Err(Error::bad_request(format!("statements are not 1 to {STATEMENTS_MAX}")));
    }
    let (name, namespace) = (String::from_utf8_lossy(&segment(&request)?).into_owned(), query.0.namespace);
    let key = super::key(&request, namespace.as_deref())?;
    let idempotency_key = idempotency_key(&request, &[b"behind", key.as_bytes(), b"\n", &body.bytes])?;
    let put = entry.put(key.clone())?;
    let AsSent { statements, entry } = parse(&body.bytes)?;
    let role = call.claims.role.clone();
    let write = Write { namespace, key: name, subject: subject.clone(), role, scopes, statements, entry };
    let payload = serde_json::value::to_raw_value(&write).map_err(|error| Error::internal("a write cannot be spelled out", &error))?;
    let job = NewJob::write_behind(&name_of(&key), payload, delay_s)?;
    let lease = call.lease().await?;
    let (memory, waiters) = (memory.into_inner(), waiters.into_inner());
    // It goes on when the client hangs up: an entry that is thrown away is set again, or the job is there to answer.
    let behind = actix_web::rt::spawn(async move {
        let (cache, queue) = (Cache::new(lease.cache(), &memory), Queue::new(lease.queue(), &waiters));
        let change = cache.begin_change(key).await?;
        let (job, was_there) = queue.write_behind(job, &subject, idempotency_key).await?;
        let set = if was_there { Err(replayed()) } else { cache.settle(change, put).await };
        Ok::<_, Error>((job, was_there, set))
    });
    let (job, was_there, set) = behind.await.map_err(|error| Error::internal("a write-behind ended early", &error))??;
    let mut reply = HttpResponse::Accepted();
    reply.insert_header((CACHE_STATUS, stored(&set)));
    if let Ok(Some(etag)) = &set {
        reply.insert_header((ETAG, etag.to_string()));
    }
    if was_there {
        reply.insert_header((REPLAYED, "true"));
    }
    Ok(reply.json(enqueued(&QueueName::behind(), &job)))
}

/// What is still to be written for `key`, as its entry.
pub(super) async fn pending(queue: &Arc<Database>, waiters: &Arc<Waiters>, key: &Key) -> Result<Option<Put>> {
    match Queue::new(queue, waiters).written_behind(&name_of(key)).await? {
        Some(payload) => Write::read(&payload)?.put().map(Some),
        None => Ok(None),
    }
}

/// The answer to who asks for an entry that is still to be written.
pub(super) fn answer(of: &impl Audience, put: Put) -> Result<HttpResponse> {
    let mut answer = if put.value.is_some() { HttpResponse::Ok() } else { HttpResponse::NoContent() };
    answer
        .insert_header((CACHE_CONTROL, "private, no-cache"))
        .insert_header((CACHE_STATUS, HeaderValue::from_static("tenantry; hit; detail=behind")));
    let Some(value) = put.value else { return Ok(answer.finish()) };
    let content_type = put.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    Ok(answer.insert_header((CONTENT_TYPE, content_type)).insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff")).body(Unread::hold(of, value)?))
}

/// Makes a write that was claimed. What cannot be done now is tried again later, as often as it was given tries; what never can
/// be is dead at once.
pub async fn write(lease: &Lease, memory: &Arc<Memory>, waiters: &Arc<Waiters>, policies: &Policies, job: Claimed) -> Result<()> {
    let (queue, cache) = (Queue::new(lease.queue(), waiters), Cache::new(lease.cache(), memory));
    let (write, key) = match Write::read(&job.payload).and_then(|write| write.key().map(|key| (write, key))) {
        Ok(read) => read,
        // Nobody can say whose entry it brought.
        Err(error) => return come_to_nothing(lease, &queue, &job, &error).await,
    };
    // The database's old truth may not be filled in while it changes.
    let change = cache.begin_late_change(key);
    let once = Once { job: job.id.into(), until: job.lease_until };
    let applied = match write.admitted(policies) {
        Ok((put, statements)) => {
            let applied = once::apply(lease.database(), lease.plan(), write.caller(), statements, once).await;
            applied.map(|applied| applied.map(|applied| (applied, put)))
        }
        Err(error) => Err(error),
    };
    let outcome = match applied {
        // Somebody else has it by now.
        Ok(None) => return Ok(()),
        Ok(Some((applied, put))) => cache.confirm(&change, &put).await.map(|()| applied),
        Err(error) if is_for_good(&error) || queue.is_last_try(&job).await? => {
            cache.retract(&change).await?;
            return come_to_nothing(lease, &queue, &job, &error).await;
        }
        Err(error) => Err(error),
    };
    let token = job.lease_token.to_string();
    match outcome {
        Ok(applied) => {
            settled(queue.ack(job.id, &token, None).await)?;
            if applied.doubtful.is_empty() { Ok(()) } else { effect::forget(lease, &queue, applied.doubtful).await }
        }
        Err(error) => settled(queue.nack(job.id, &token, failed(&error, false)?).await.map(drop)),
    }
}

async fn come_to_nothing(lease: &Lease, queue: &Queue<'_>, job: &Claimed, error: &Error) -> Result<()> {
    tracing::warn!(tenant = %lease.id(), job = %uuid::Uuid::from(job.id), %error, "a write behind a cache came to nothing");
    settled(queue.nack(job.id, &job.lease_token.to_string(), failed(error, true)?).await.map(drop))
}

/// Brings dead writes back. The entries of their keys go first, and nobody fills them: from then on the jobs are what those hold.
pub(in crate::http) async fn redrive(queue: &Queue<'_>, cache: &Cache<'_>, redrive: Redrive) -> Result<Moved> {
    let mut left = redrive.ids().map(<[_]>::to_vec);
    let mut moved = 0;
    while moved < redrive.max() {
        let ids: Option<Vec<_>> = left.as_mut().map(|left| left.drain(..left.len().min(REDRIVEN)).collect());
        if ids.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Moved { moved, more: false });
        }
        let mut dead = queue.dead_writes(ids, REDRIVEN).await?;
        dead.truncate(redrive.max() - moved);
        let mut changes = Vec::with_capacity(dead.len());
        for (_, payload) in &dead {
            // One that cannot be read is brought back to die again.
            if let Ok(key) = Write::read(payload).and_then(|write| write.key()) {
                changes.push(cache.begin_change(key).await?);
            }
        }
        let ids: Vec<_> = dead.into_iter().map(|(id, _)| id).collect();
        let now = if ids.is_empty() { 0 } else { queue.redrive(&QueueName::behind(), redrive.only(ids)).await?.moved };
        if now == 0 && left.is_none() {
            return Ok(Moved { moved, more: false });
        }
        moved += now;
    }
    Ok(Moved { moved, more: true })
}

impl Write {
    fn read(payload: &[u8]) -> Result<Write> {
        serde_json::from_slice(payload).map_err(|error| Error::internal("a write is not what it was", &error))
    }

    fn key(&self) -> Result<Key> {
        namespace(self.namespace.as_deref())?.key(self.key.as_bytes())
    }

    fn put(&self) -> Result<Put> {
        parse::<EntryBody>(self.entry.get().as_bytes())?.put(self.key()?)
    }

    /// What it brings and what it does, if who sent it still may: policies may have come since.
    fn admitted(&self, policies: &Policies) -> Result<(Put, Vec<Statement>)> {
        may_send_sql(policies, &self.role)?;
        Ok((self.put()?, parse(self.statements.get().as_bytes())?))
    }

    fn caller(&self) -> Caller {
        Caller { subject: self.subject.clone(), scopes: self.scopes }
    }
}

/// What jobs of the key are found by.
fn name_of(key: &Key) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether another try would end as this one did.
fn is_for_good(error: &Error) -> bool {
    use Code::{BadRequest, ConstraintViolation, Forbidden, PayloadTooLarge, ResultTooLarge, SqlDenied, SqlError};
    matches!(error.code(), BadRequest | ConstraintViolation | Forbidden | PayloadTooLarge | ResultTooLarge | SqlDenied | SqlError)
}

fn failed(error: &Error, dead: bool) -> Result<Nack> {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(ERROR_BYTES));
    Nack::new(None, Some(text), dead)
}

/// A lease that ended meanwhile is no trouble: whoever has the job next finds what was done.
fn settled(outcome: Result<()>) -> Result<()> {
    outcome.or_else(|error| if matches!(error.code(), Code::LeaseLost | Code::NotFound) { Ok(()) } else { Err(error) })
}

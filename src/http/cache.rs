//! `/v1/cache/…`: a tenant's cache over HTTP. The key is one path segment; what it holds goes out as it
//! came in, with its content type, and is never taken for anything else by a browser.

pub mod batch;
pub mod behind;
mod entry;
pub mod remember;
pub mod through;
pub mod whole;

use std::time::Duration;

use actix_web::http::header::{
    AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::extract::{Body, Json, Query};
use super::guard::Caller;
use super::unread::{Audience, Unread};
use crate::auth::scope::Scope;
use crate::cache::{
    Answer, CONTENT_TYPE_BYTES, Cache, Conditions, Etag, Etags, FILL_MAX_S, FillLease, Found, Key, Memory, Namespace, Put, Seconds, Tag,
    Terms, Wanted,
};
use crate::clock::rfc3339;
use crate::error::{Error, Result};
use crate::queue::Waiters;

/// The longest that a request waits for somebody else's fill, in seconds.
const WAIT_MAX_S: u64 = 20;

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What entitles to put an entry that is being filled.
const FILL_TOKEN: HeaderName = HeaderName::from_static("fill-token");
const FILL_UNTIL: HeaderName = HeaderName::from_static("fill-until");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutQuery {
    namespace: Option<String>,
    ttl: Option<String>,
    sliding: Option<String>,
    swr: Option<String>,
    sie: Option<String>,
    jitter: Option<String>,
    /// Separated by commas.
    tags: Option<String>,
    #[serde(default)]
    absent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetQuery {
    namespace: Option<String>,
    /// Seconds for which the caller would make a missing entry.
    fill: Option<String>,
    /// Seconds to wait for somebody else who does.
    #[serde(default)]
    wait: u64,
    stale: Option<Stale>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stale {
    IfError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyQuery {
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncrementBody {
    #[serde(default = "one")]
    by: i64,
    #[serde(default)]
    initial: i64,
    ttl: Option<i64>,
}

#[derive(Serialize)]
struct IncrementReply {
    value: i64,
}

/// `PUT` with any bytes: 204 and the new `ETag`, whether or not the key was there; or, without one, that it is not stored.
pub async fn put(call: Caller, request: HttpRequest, query: Query<PutQuery>, memory: Data<Memory>, body: Body) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let key = key(&request, query.0.namespace.as_deref())?;
    let content_type = content_type(request.headers())?;
    if query.0.absent && !body.0.is_empty() {
        return Err(Error::bad_request("absent says that there is nothing, but the request has a body"));
    }
    let value = (!query.0.absent).then_some(body.0);
    let put = Put::new(key, value, content_type, terms(&query.0)?)?.only_if(conditions(request.headers()));
    let token = fill_token(&request)?;
    let etag = Cache::new(call.lease().await?.cache(), &memory).put(put, token).await?;
    Ok(HttpResponse::NoContent().insert_header(stored(etag)).finish())
}

/// `GET`: the bytes; 204 for what is known not to exist; 304 to a client that has them; 404 for a miss. With `fill`, a miss
/// is either the caller's to make, or waited for.
pub async fn get(
    call: Caller,
    request: HttpRequest,
    query: Query<GetQuery>,
    memory: Data<Memory>,
    waiters: Data<Waiters>,
) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let key = key(&request, query.0.namespace.as_deref())?;
    if query.0.fill.is_some() {
        return get_or_fill(call, request, key, query.0, memory, waiters).await;
    }
    let lease = call.lease().await?;
    let cache = Cache::new(lease.cache(), &memory);
    let found = match query.0.stale {
        None => cache.get(key.clone()).await?,
        Some(Stale::IfError) => cache.get_if_error(key.clone()).await?,
    };
    if let Some(found) = found {
        return answer(&request, &lease, &found);
    }
    match behind::pending(lease.queue(), &waiters, &key).await? {
        Some(put) => behind::answer(&lease, put),
        None => Ok(missed(&nothing().hint("It was never set, was deleted, evicted, or has expired."))),
    }
}

async fn get_or_fill(
    call: Caller,
    request: HttpRequest,
    key: Key,
    query: GetQuery,
    memory: Data<Memory>,
    waiters: Data<Waiters>,
) -> Result<HttpResponse> {
    let fill_for = Seconds::parse("fill", query.fill.as_deref().unwrap_or_default())?;
    if fill_for.ms() > FILL_MAX_S * 1_000 {
        return Err(Error::bad_request(format!("fill is at most {FILL_MAX_S} seconds")));
    }
    if query.wait > WAIT_MAX_S {
        return Err(Error::bad_request(format!("wait is {}, but must lie between 0 and {WAIT_MAX_S}", query.wait)));
    }
    let until = Instant::now() + Duration::from_secs(query.wait);
    loop {
        // Not held while waiting: the tenant can be suspended, and its files closed, meanwhile.
        let lease = call.lease().await?;
        let cache = Cache::new(lease.cache(), &memory);
        let found = cache.get_or_fill(key.clone(), fill_for).await?;
        // After the fill has begun: a write that comes later overtakes it.
        if !matches!(found, Answer::Found(_))
            && let Some(put) = behind::pending(lease.queue(), &waiters, &key).await.transpose()
        {
            if let Answer::Fill(fill, _) = found {
                // It may have been overtaken already.
                let _ = cache.give_up(&key, fill.token);
            }
            return behind::answer(&lease, put?);
        }
        match found {
            Answer::Found(found) => return answer(&request, &lease, &found),
            Answer::Fill(fill, Some(stale)) => match answer(&request, &lease, &stale) {
                Ok(reply) => return with_fill(reply, fill),
                Err(refused) => {
                    // Who is not told cannot make it.
                    let _ = cache.give_up(&key, fill.token);
                    return Err(refused);
                }
            },
            Answer::Fill(fill, None) => {
                let error = nothing().hint("It is yours to make: put it with this answer's Fill-Token before Fill-Until.");
                return with_fill(missed(&error), fill);
            }
            Answer::Wait(waiting) => {
                drop(lease);
                if !waiting.over(until).await {
                    let error = nothing().hint("Somebody else is making it. Ask again with wait, or make it without filling it.");
                    return Ok(missed(&error.retry_after(Duration::from_secs(1))));
                }
            }
        }
    }
}

/// `DELETE`: 204, whether or not the key was there.
pub async fn delete(call: Caller, request: HttpRequest, query: Query<KeyQuery>, memory: Data<Memory>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let key = key(&request, query.0.namespace.as_deref())?;
    Cache::new(call.lease().await?.cache(), &memory).delete(key, conditions(request.headers())).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST …/increment`: the new number.
pub async fn increment(
    call: Caller,
    request: HttpRequest,
    query: Query<KeyQuery>,
    memory: Data<Memory>,
    body: Json<IncrementBody>,
) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let IncrementBody { by, initial, ttl } = body.0;
    let ttl = ttl.map(|ttl| Seconds::new("ttl", ttl)).transpose()?;
    let (key, terms) = (key(&request, query.0.namespace.as_deref())?, Terms::new(Wanted { ttl, ..Wanted::default() })?);
    let (value, etag) = Cache::new(call.lease().await?.cache(), &memory).increment(key, by, initial, terms).await?;
    Ok(HttpResponse::Ok().insert_header(stored(etag)).json(IncrementReply { value }))
}

/// `DELETE …/fill`: 204; the next one who asks makes the entry.
pub async fn give_up(call: Caller, request: HttpRequest, query: Query<KeyQuery>, memory: Data<Memory>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let key = key(&request, query.0.namespace.as_deref())?;
    let token =
        fill_token(&request)?.ok_or_else(|| Error::bad_request("Fill-Token is missing").hint("Send the one that came with the miss."))?;
    Cache::new(call.lease().await?.cache(), &memory).give_up(&key, token)?;
    Ok(HttpResponse::NoContent().finish())
}

/// An entry, or that the client has it.
fn answer(request: &HttpRequest, lease: &impl Audience, found: &Found) -> Result<HttpResponse> {
    let has = request.headers().get(IF_NONE_MATCH).and_then(|has| has.to_str().ok()).is_some_and(|has| Etags::new(has).has(&found.etag));
    let mut answer = match (&found.value, has) {
        (_, true) => HttpResponse::NotModified(),
        (None, _) => HttpResponse::NoContent(),
        (Some(_), _) => HttpResponse::Ok(),
    };
    // Asking each time is what keeps a tenant's value out of caches on the way.
    answer
        .insert_header((ETAG, found.etag.to_string()))
        .insert_header((CACHE_CONTROL, "private, no-cache"))
        .insert_header((AGE, (found.at - found.etag.created_at()).max(0) / 1_000))
        .insert_header((CACHE_STATUS, status(found)));
    let Some(value) = found.value.as_ref().filter(|_| !has) else { return Ok(answer.finish()) };
    let content_type = found.content_type.as_deref().unwrap_or("application/octet-stream");
    Ok(answer
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(Unread::hold(lease, value.clone())?))
}

/// RFC 9211: that it was a hit, for how many seconds it is still fresh (0 and below: stale), and which tier had it.
fn status(found: &Found) -> String {
    let tier = found.tier.as_str();
    match found.life.expires_at {
        None => format!("tenantry; hit; detail={tier}"),
        Some(at) => format!("tenantry; hit; ttl={}; detail={tier}", (at - found.at + 999).div_euclid(1_000)),
    }
}

/// The ETag of what was stored, or that it was not.
fn stored(etag: Option<Etag>) -> (HeaderName, String) {
    etag.map_or_else(|| (CACHE_STATUS, "tenantry; detail=not-stored".to_owned()), |etag| (ETAG, etag.to_string()))
}

fn missed(error: &Error) -> HttpResponse {
    let mut answer = error.error_response();
    answer.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static("tenantry; fwd=uri-miss"));
    answer
}

fn nothing() -> Error {
    Error::not_found("the cache has nothing under this key")
}

/// The same answer, which gives the caller the right to make the entry.
fn with_fill(mut answer: HttpResponse, fill: FillLease) -> Result<HttpResponse> {
    for (name, value) in [(FILL_TOKEN, fill.token.to_string()), (FILL_UNTIL, rfc3339(fill.until))] {
        let value = HeaderValue::from_str(&value).map_err(|error| Error::internal("a fill cannot be told", &error))?;
        answer.headers_mut().insert(name, value);
    }
    Ok(answer)
}

/// The key from the path as the client sent it: the router's own decoding replaces what is not UTF-8, and
/// would so make one key of two.
fn key(request: &HttpRequest, namespace: Option<&str>) -> Result<Key> {
    self::namespace(namespace)?.key(&segment(request)?)
}

/// Of `/v1/cache/{key}` and what may follow.
fn segment(request: &HttpRequest) -> Result<Vec<u8>> {
    percent_decoded(request.uri().path().split('/').nth(3).unwrap_or_default())
}

fn namespace(name: Option<&str>) -> Result<Namespace> {
    name.map_or_else(|| Ok(Namespace::default()), Namespace::parse)
}

fn terms(query: &PutQuery) -> Result<Terms> {
    let seconds = |name, text: &Option<String>| text.as_deref().map(|text| Seconds::parse(name, text)).transpose();
    Terms::new(Wanted {
        ttl: seconds("ttl", &query.ttl)?,
        sliding: seconds("sliding", &query.sliding)?,
        swr: seconds("swr", &query.swr)?,
        sie: seconds("sie", &query.sie)?,
        jitter: seconds("jitter", &query.jitter)?,
        tags: query.tags.as_deref().map_or_else(|| Ok(Vec::new()), |tags| tags.split(',').map(Tag::parse).collect())?,
    })
}

fn conditions(headers: &HeaderMap) -> Conditions {
    // What is no text fits no ETag.
    let etags = |name: HeaderName| headers.get(name).map(|value| Etags::new(value.to_str().unwrap_or_default()));
    Conditions { if_match: etags(IF_MATCH), if_none_match: etags(IF_NONE_MATCH) }
}

fn fill_token(request: &HttpRequest) -> Result<Option<Uuid>> {
    let Some(token) = request.headers().get(FILL_TOKEN) else { return Ok(None) };
    let token = token.to_str().ok().and_then(|token| Uuid::try_parse(token).ok());
    token.map(Some).ok_or_else(|| Error::bad_request("Fill-Token is not a fill's token").hint("Send the one that came with the miss."))
}

fn percent_decoded(text: &str) -> Result<Vec<u8>> {
    let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).map(|d| d as u8);
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => {
                    return Err(
                        Error::bad_request("the key has a % that is not followed by two hexadecimal digits").hint("Write % itself as %25.")
                    );
                }
            },
            byte => byte,
        });
    }
    Ok(decoded)
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if text.len() <= CONTENT_TYPE_BYTES => Ok(Some(text.to_owned())),
        _ => Err(Error::bad_request(format!("Content-Type is at most {CONTENT_TYPE_BYTES} visible ASCII characters"))),
    }
}

fn one() -> i64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_decoded_to_the_very_bytes() {
        assert_eq!(percent_decoded("a%2Fb%00%e4+c").unwrap(), b"a/b\0\xe4+c");
        assert_eq!(percent_decoded("").unwrap(), b"");
        for refused in ["%", "%4", "%zz", "%+1", "%%41"] {
            assert!(percent_decoded(refused).is_err(), "{refused}");
        }
    }
}

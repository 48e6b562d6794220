//! `/v1/cache/{key}`: a tenant's cache over HTTP. The key is one path segment; what it holds goes out as it
//! came in, with its content type, and is never taken for anything else by a browser.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::extract::{Body, Query};
use super::guard::Caller;
use super::unread::UnreadAnswers;
use crate::auth::scope::Scope;
use crate::cache::{CONTENT_TYPE_BYTES, Cache, Key, Memory, Ttl, Unless};
use crate::error::{Error, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutQuery {
    ttl: Option<String>,
}

/// `PUT ?ttl=` with any bytes: 204 and the new `ETag`, whether or not the key was there.
pub async fn put(call: Caller, request: HttpRequest, query: Query<PutQuery>, memory: Data<Memory>, body: Body) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let ttl = query.0.ttl.as_deref().map(Ttl::parse).transpose()?;
    let (key, content_type) = (key(&request)?, content_type(request.headers())?);
    let etag = Cache::new(call.lease().await?.cache(), &memory).put(key, body.0, content_type, ttl).await?;
    Ok(HttpResponse::NoContent().insert_header((ETAG, etag.to_string())).finish())
}

/// `GET`: the bytes, or 304 to a client that has them (`If-None-Match`), or 404 for a miss.
pub async fn get(call: Caller, request: HttpRequest, memory: Data<Memory>, unread: Data<UnreadAnswers>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let lease = call.lease().await?;
    let entry = Cache::new(lease.cache(), &memory).get(key(&request)?).await?.ok_or_else(|| {
        Error::not_found("the cache has nothing under this key").hint("It was never set, was deleted, evicted, or has expired.")
    })?;
    let has = request.headers().get(IF_NONE_MATCH).and_then(|has| has.to_str().ok()).is_some_and(|has| Unless::new(has).has(&entry.etag));
    let mut answer = if has { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    // Asking each time is what keeps a tenant's value out of caches on the way.
    answer.insert_header((ETAG, entry.etag.to_string())).insert_header((CACHE_CONTROL, "private, no-cache"));
    if has {
        return Ok(answer.finish());
    }
    let content_type = entry.content_type.as_deref().unwrap_or("application/octet-stream");
    Ok(answer
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(unread.hold(&lease, entry.value.clone())?))
}

/// `DELETE`: 204, whether or not the key was there.
pub async fn delete(call: Caller, request: HttpRequest, memory: Data<Memory>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    Cache::new(call.lease().await?.cache(), &memory).delete(key(&request)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The key from the path as the client sent it: the router's own decoding replaces what is not UTF-8, and
/// would so make one key of two.
fn key(request: &HttpRequest) -> Result<Key> {
    let path = request.uri().path();
    Key::parse(&percent_decoded(path.rsplit('/').next().unwrap_or_default())?)
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

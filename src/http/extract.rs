//! Bodies and queries, parsed once into a type. A body is bounded in bytes and in time, and is JSON by its
//! Content-Type; what is wrong with it is said with a position.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use actix_web::web::{self, Bytes, BytesMut, Data};
use actix_web::{FromRequest, HttpRequest};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result};
use crate::sqlite::IdempotencyKey;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Bodies up to so many bytes are not counted: the connections bound them.
const SMALL: u64 = 16 << 10;

/// Bounds of a request's body.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    /// The largest body.
    pub bytes: usize,
    /// The most that all bodies being received may hold.
    pub all: u64,
    receiving: Arc<AtomicU64>,
}

/// Bytes of a body being received, counted until it is there.
#[derive(Debug)]
pub struct Receiving {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

impl BodyLimits {
    pub fn new(bytes: usize, all: u64) -> BodyLimits {
        BodyLimits { bytes, all, receiving: Arc::default() }
    }

    /// Room for a body of so many bytes; 503 when too many are on their way.
    pub fn count(&self, bytes: u64) -> Result<Option<Receiving>> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let receiving = Receiving { bytes, all: self.receiving.clone() };
        if self.receiving.fetch_add(bytes, Relaxed) + bytes > self.all {
            return Err(Error::new(Code::Overloaded, "too many bytes of request bodies are on their way")
                .hint("The bound is http.receiving_bytes.")
                .retry_after(Duration::from_secs(1)));
        }
        Ok(Some(receiving))
    }
}

/// A JSON body.
pub struct Json<T>(pub T);

/// A JSON body with the bytes it was read from.
pub struct JsonBytes<T> {
    pub value: T,
    pub bytes: Bytes,
}

/// The bytes of a JSON body, for [`parse`].
pub struct JsonText(pub Bytes);

/// A body of any bytes.
pub struct Body(pub Bytes);

/// The query string. Parameters that the type does not have are refused.
pub struct Query<T>(pub T);

type Reading<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Error;
    type Future = Reading<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = JsonBytes::from_request(request, payload);
        Box::pin(async move { Ok(Json(read.await?.value)) })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for JsonBytes<T> {
    type Error = Error;
    type Future = Reading<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_json(request.clone(), payload.take());
        Box::pin(async move {
            let bytes = body.await?;
            let value = parse(&bytes)?;
            Ok(JsonBytes { value, bytes })
        })
    }
}

impl FromRequest for JsonText {
    type Error = Error;
    type Future = Reading<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_json(request.clone(), payload.take());
        Box::pin(async move { Ok(JsonText(body.await?)) })
    }
}

impl FromRequest for Body {
    type Error = Error;
    type Future = Reading<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read(request.clone(), payload.take());
        Box::pin(async move { Ok(Body(body.await?)) })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Query<T> {
    type Error = Error;
    type Future = std::future::Ready<Result<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parsed = web::Query::<T>::from_query(request.query_string());
        std::future::ready(
            parsed.map(|query| Query(query.into_inner())).map_err(|error| Error::bad_request(format!("the query string: {error}"))),
        )
    }
}

/// The `Idempotency-Key` of a tenant's request, if it has one; `request_parts` is what tells requests apart.
pub fn idempotency_key(request: &HttpRequest, request_parts: &[&[u8]]) -> Result<Option<IdempotencyKey>> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().map_err(|_| Error::bad_request("Idempotency-Key is not ASCII"))?;
    IdempotencyKey::parse(key, request_parts).map(Some)
}

async fn read_json(request: HttpRequest, payload: Payload) -> Result<Bytes> {
    let media_type = header(&request, CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Error::new(Code::UnsupportedMediaType, "the body's Content-Type is not application/json")
            .hint("Send Content-Type: application/json."));
    }
    read(request, payload).await
}

async fn read(request: HttpRequest, payload: Payload) -> Result<Bytes> {
    let limits = request.app_data::<Data<BodyLimits>>().ok_or_else(|| Error::internal("a part is not wired", &"BodyLimits"))?;
    let limit = limits.bytes;
    // Without a length it may become as large as the largest.
    let length = header(&request, CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()).unwrap_or(limit as u64);
    if length > limit as u64 {
        return Err(too_large(limit));
    }
    if header(&request, CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Error::new(Code::UnsupportedMediaType, "compressed bodies are not taken").hint("Send it without Content-Encoding."));
    }
    let _receiving = limits.count(length)?;
    match tokio::time::timeout(BODY_TIME, whole(payload, limit)).await {
        Err(_) => Err(Error::bad_request(format!("the body did not arrive within {} s", BODY_TIME.as_secs()))),
        Ok(read) => read,
    }
}

/// A body that comes in one piece, as most do, is not copied.
async fn whole(mut payload: Payload, limit: usize) -> Result<Bytes> {
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|error| cut_off(&error))?;
        if first.len().max(all.len()) + piece.len() > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn header(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
}

fn too_large(limit: usize) -> Error {
    Error::new(Code::PayloadTooLarge, format!("the body is larger than {limit} bytes")).hint("The bound is http.max_body_bytes.")
}

fn cut_off(error: &dyn std::fmt::Display) -> Error {
    Error::bad_request(format!("the body did not arrive whole: {error}"))
}

/// Reads JSON of a body; an error says where.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| not_json::<T>(bytes, &error))
}

/// Reads the body once more, now to know which member is wrong.
fn not_json<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Error {
    if !error.is_data() {
        return Error::bad_request(format!("the body is not JSON: {error}"));
    }
    let path = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(bytes))
        .err()
        .map(|error| error.path().to_string());
    match path.filter(|path| path != ".") {
        Some(path) => Error::bad_request(format!("{path}: {error}")).detail("member", path),
        None => Error::bad_request(format!("the body has the wrong form: {error}")),
    }
    .hint("GET /openapi.json has the form.")
}

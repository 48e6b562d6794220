//! `POST /v1/cache`: several operations in one request, done in their order, each with a result of its own. A value is
//! `text` where it is UTF-8, else `base64`.

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::web::{Bytes, Data};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::super::extract::Json;
use super::super::guard::Caller;
use super::super::unread::Unread;
use super::behind;
use super::entry::EntryBody;
use super::{namespace, one};
use crate::auth::scope::Scope;
use crate::cache::{Cache, Conditions, Done, Entry, Etags, Key, Memory, OPS_MAX, Op, Put, Seconds, Terms, Wanted};
use crate::clock::rfc3339;
use crate::error::{Body, Code, Error, Result};
use crate::queue::Waiters;

/// The most bytes of values in one answer.
const VALUES_BYTES: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    operations: Vec<OpBody>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum OpBody {
    Get {
        key: String,
        namespace: Option<String>,
    },
    Set(Box<SetBody>),
    Delete {
        key: String,
        namespace: Option<String>,
        if_match: Option<String>,
    },
    Increment {
        key: String,
        namespace: Option<String>,
        #[serde(default = "one")]
        by: i64,
        #[serde(default)]
        initial: i64,
        ttl: Option<i64>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBody {
    key: String,
    namespace: Option<String>,
    text: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    absent: bool,
    content_type: Option<String>,
    ttl: Option<i64>,
    sliding: Option<i64>,
    swr: Option<i64>,
    sie: Option<i64>,
    jitter: Option<i64>,
    #[serde(default)]
    tags: Vec<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

#[derive(Serialize)]
struct BatchReply<'a> {
    results: Vec<ResultReply<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ResultReply<'a> {
    Entry(EntryReply<'a>),
    Pending(PendingReply<'a>),
    Absent {
        absent: bool,
        etag: String,
        expires_at: Option<String>,
    },
    Missed {
        hit: bool,
    },
    Set {
        etag: String,
    },
    Unstored {
        stored: bool,
    },
    Deleted {
        deleted: bool,
    },
    Counted {
        value: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        etag: Option<String>,
    },
    Refused {
        error: Body<'a>,
    },
}

/// What is still to be written behind the cache.
#[derive(Serialize)]
struct PendingReply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    absent: bool,
    content_type: Option<&'a str>,
    behind: bool,
}

#[derive(Serialize)]
struct EntryReply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    content_type: Option<&'a str>,
    etag: String,
    /// Before now: it is stale.
    expires_at: Option<String>,
}

/// 200 with a result for each operation.
pub async fn run(call: Caller, memory: Data<Memory>, waiters: Data<Waiters>, body: Json<BatchBody>) -> Result<HttpResponse> {
    call.claims.require(Scope::Cache)?;
    let operations = body.0.operations;
    if operations.is_empty() || operations.len() > OPS_MAX {
        return Err(Error::bad_request(format!("operations are not 1 to {OPS_MAX}")).hint("Send several requests."));
    }
    let ops = operations.into_iter().enumerate().map(|(n, op)| op.read().map_err(|error| at(n, &error))).collect::<Result<Vec<_>>>()?;
    let asked: Vec<_> = ops.iter().map(|op| if let Op::Get(key) = op { Some(key.clone()) } else { None }).collect();
    let lease = call.lease().await?;
    lease.answers().admit()?;
    let mut done = Cache::new(lease.cache(), &memory).apply(ops).await?;
    let mut behind = Vec::with_capacity(asked.len());
    for (done, key) in done.iter().zip(&asked) {
        behind.push(match (done, key) {
            (Done::Found(None), Some(key)) => behind::pending(lease.queue(), &waiters, key).await?,
            _ => None,
        });
    }
    let mut left = VALUES_BYTES;
    for (one, behind) in done.iter_mut().zip(&behind) {
        let bytes = match (&*one, behind) {
            (Done::Found(Some(entry)), _) => entry.len(),
            (_, Some(put)) => put.value.as_ref().map_or(0, Bytes::len),
            _ => continue,
        };
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => *one = Done::Refused(too_much()),
        }
    }
    let results = done.iter().zip(&behind).map(|(done, behind)| result(done, behind.as_ref())).collect();
    let reply = BatchReply { results };
    let text = serde_json::to_vec(&reply).map_err(|error| Error::internal("a batch's results could not be written as JSON", &error))?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(Unread::keep(&lease, text)))
}

impl OpBody {
    fn read(self) -> Result<Op> {
        Ok(match self {
            OpBody::Get { key, namespace } => Op::Get(self::key(&key, namespace.as_deref())?),
            OpBody::Set(set) => Op::Put(set.read()?),
            OpBody::Delete { key, namespace, if_match } => {
                let conditions = Conditions { if_match: if_match.as_deref().map(Etags::new), if_none_match: None };
                Op::Delete { key: self::key(&key, namespace.as_deref())?, conditions }
            }
            OpBody::Increment { key, namespace, by, initial, ttl } => {
                let ttl = ttl.map(|ttl| Seconds::new("ttl", ttl)).transpose()?;
                let terms = Terms::new(Wanted { ttl, ..Wanted::default() })?;
                Op::Increment { key: self::key(&key, namespace.as_deref())?, by, initial, terms }
            }
        })
    }
}

impl SetBody {
    fn read(self) -> Result<Put> {
        let SetBody { key, namespace, text, base64, absent, content_type, ttl, sliding, swr, sie, jitter, tags, .. } = self;
        let entry = EntryBody { text, base64, json: None, absent, content_type, ttl, sliding, swr, sie, jitter, tags };
        let etags = |header: Option<String>| header.as_deref().map(Etags::new);
        let conditions = Conditions { if_match: etags(self.if_match), if_none_match: etags(self.if_none_match) };
        Ok(entry.put(self::key(&key, namespace.as_deref())?)?.only_if(conditions))
    }
}

fn key(name: &str, namespace: Option<&str>) -> Result<Key> {
    self::namespace(namespace)?.key(name.as_bytes())
}

fn at(n: usize, error: &Error) -> Error {
    Error::new(error.code(), format!("operations[{n}]: {}", error.message())).hint("Nothing of the batch was done.")
}

fn too_much() -> Error {
    Error::new(Code::ResultTooLarge, format!("the values of one answer have at most {VALUES_BYTES} bytes together"))
        .hint("Get this key in another request.")
}

fn result<'a>(done: &'a Done, behind: Option<&'a Put>) -> ResultReply<'a> {
    match done {
        Done::Found(None) => behind.map_or(ResultReply::Missed { hit: false }, pending),
        Done::Found(Some(entry)) => found(entry),
        Done::Put(Some(etag)) => ResultReply::Set { etag: etag.to_string() },
        Done::Put(None) => ResultReply::Unstored { stored: false },
        Done::Deleted => ResultReply::Deleted { deleted: true },
        Done::Counted(value, etag) => ResultReply::Counted { value: *value, etag: etag.map(|etag| etag.to_string()) },
        Done::Refused(error) => ResultReply::Refused { error: error.body() },
    }
}

fn pending(put: &Put) -> ResultReply<'_> {
    let (text, base64) = text_or_base64(put.value.as_deref());
    ResultReply::Pending(PendingReply {
        text,
        base64,
        absent: put.value.is_none(),
        content_type: put.content_type.as_deref(),
        behind: true,
    })
}

fn found(entry: &Entry) -> ResultReply<'_> {
    let (etag, expires_at) = (entry.etag.to_string(), entry.life.expires_at.map(rfc3339));
    if entry.value.is_none() {
        return ResultReply::Absent { absent: true, etag, expires_at };
    }
    let (text, base64) = text_or_base64(entry.value.as_deref());
    ResultReply::Entry(EntryReply { text, base64, content_type: entry.content_type.as_deref(), etag, expires_at })
}

fn text_or_base64(value: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match value.map(|value| (value, std::str::from_utf8(value))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((value, Err(_))) => (None, Some(BASE64.encode(value))),
    }
}

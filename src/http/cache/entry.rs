//! An entry as JSON has it: a value, which is one of `text`, `base64`, `json` and `absent`, and how it is kept.

use actix_web::web::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cache::{CONTENT_TYPE_BYTES, Key, Put, Seconds, Tag, Terms, Wanted};
use crate::error::{Error, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryBody {
    pub text: Option<String>,
    pub base64: Option<String>,
    /// Its bytes as they were sent; `application/json` unless it says otherwise.
    pub json: Option<Box<RawValue>>,
    #[serde(default)]
    pub absent: bool,
    pub content_type: Option<String>,
    pub ttl: Option<i64>,
    pub sliding: Option<i64>,
    pub swr: Option<i64>,
    pub sie: Option<i64>,
    pub jitter: Option<i64>,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl EntryBody {
    /// The setting of `key` to it. Errors: `bad_request`, `payload_too_large`.
    pub fn put(self, key: Key) -> Result<Put> {
        let json_type = self.json.is_some().then(|| "application/json".to_owned());
        let value = match (self.text, self.base64, self.json, self.absent) {
            (Some(text), None, None, false) => Some(Bytes::from(text)),
            (None, Some(base64), None, false) => {
                Some(BASE64.decode(base64).map(Bytes::from).map_err(|error| Error::bad_request(format!("base64: {error}")))?)
            }
            (None, None, Some(json), false) => Some(Bytes::from(Box::<str>::from(json).into_string())),
            (None, None, None, true) => None,
            _ => return Err(Error::bad_request("an entry has one of text, base64, json and absent")),
        };
        let content_type = self.content_type.or(json_type);
        let is_visible = |text: &str| text.len() <= CONTENT_TYPE_BYTES && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !content_type.as_deref().is_none_or(is_visible) {
            return Err(Error::bad_request(format!("content_type is at most {CONTENT_TYPE_BYTES} visible ASCII characters")));
        }
        let seconds = |name, seconds: Option<i64>| seconds.map(|seconds| Seconds::new(name, seconds)).transpose();
        let terms = Terms::new(Wanted {
            ttl: seconds("ttl", self.ttl)?,
            sliding: seconds("sliding", self.sliding)?,
            swr: seconds("swr", self.swr)?,
            sie: seconds("sie", self.sie)?,
            jitter: seconds("jitter", self.jitter)?,
            tags: self.tags.iter().map(|tag| Tag::parse(tag)).collect::<Result<_>>()?,
        })?;
        Put::new(key, value, content_type, terms)
    }
}

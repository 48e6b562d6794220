//! A [`JobRequest`] is what somebody asks for, as JSON has it; a [`NewJob`] is that inside its bounds: a payload nobody
//! here looks into, and when, how urgently, how often and beside which others it may be tried.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::State;
use super::batch::{Need, name, needs};
use super::workflow::OnFailure;
use crate::clock::{Millis, parse_rfc3339};
use crate::error::{Code, Error, Result};

/// The longest payload, in bytes (of JSON, or of what the base64 stands for).
pub const PAYLOAD_BYTES: usize = 256 << 10;

/// The deepest nesting of a payload: what serde_json and others read by default.
pub const DEPTH_MAX: usize = 128;

/// Priorities go from minus this to this; 0 is the usual one.
pub const PRIORITY_MAX: i64 = 1_000_000;

/// The longest delay, time to live and uniqueness, in seconds: a year.
pub const DELAY_MAX_S: i64 = 365 * 86_400;

/// Tries of a job that was enqueued without `max_attempts`.
pub const ATTEMPTS_DEFAULT: i64 = 20;

/// The most tries that can be asked for.
pub const ATTEMPTS_MAX: i64 = 1_000;

/// The longest key of a group, a limit or a uniqueness, in bytes.
pub const KEY_BYTES: usize = 255;

/// The most that `limit.max` can be: a claim counts so many index entries.
pub const LIMIT_MAX: i64 = 1_000;

/// The slowest and the fastest `rate.per_s`.
pub const RATE_MIN: f64 = 0.0001;
pub const RATE_MAX: f64 = 10_000.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    pub payload: Box<RawValue>,
    /// With it `payload` is `{"base64"}`: bytes.
    pub payload_type: Option<String>,
    pub priority: Option<i64>,
    pub delay_s: Option<i64>,
    pub run_at: Option<String>,
    pub ttl_s: Option<i64>,
    pub max_attempts: Option<i64>,
    pub backoff: Option<BackoffRequest>,
    pub timeout_s: Option<i64>,
    pub unique: Option<UniqueRequest>,
    pub group: Option<String>,
    pub limit: Option<LimitRequest>,
    pub rate: Option<RateRequest>,
    /// What other jobs of the same request call it in `depends_on`.
    pub key: Option<String>,
    /// Ids of jobs, and keys of jobs of the same request.
    #[serde(default)]
    pub depends_on: Vec<String>,
    pub on_failure: Option<OnFailure>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackoffRequest {
    #[serde(default)]
    pub kind: BackoffKind,
    pub base_s: Option<i64>,
    pub max_s: Option<i64>,
}

/// How waits grow from one try to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackoffKind {
    Fixed = 0,
    Linear = 1,
    #[default]
    Exponential = 2,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniqueRequest {
    pub key: String,
    pub for_s: Option<i64>,
    pub states: Option<Vec<String>>,
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// What becomes of a job whose `unique.key` another job holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    #[default]
    Reject,
    /// The other one is cancelled, unless somebody works on it.
    Replace,
    /// The other one is the answer.
    Existing,
    /// The new one takes the other one's place, also that of a dead one, and its time if that is sooner; while somebody
    /// works on the other one, that one is not tried again and the new one waits for its end.
    #[serde(skip)]
    Follow,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRequest {
    pub key: String,
    pub max: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateRequest {
    pub key: String,
    pub per_s: f64,
}

#[derive(Debug)]
pub struct NewJob {
    pub(super) payload: Vec<u8>,
    pub(super) payload_type: Option<String>,
    pub(super) priority: i64,
    pub(super) start: Start,
    pub(super) ttl_ms: Option<Millis>,
    pub(super) max_attempts: i64,
    pub(super) backoff: Backoff,
    pub(super) timeout_ms: Option<Millis>,
    pub(super) unique: Option<Unique>,
    pub(super) group: Option<String>,
    pub(super) limit: Option<(String, i64)>,
    pub(super) rate: Option<(String, f64)>,
    pub(super) name: Option<String>,
    pub(super) needs: Vec<Need>,
    pub(super) on_failure: Option<OnFailure>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    In(Millis),
    At(Millis),
}

impl Start {
    pub(super) fn at(self, now: Millis) -> Millis {
        match self {
            Start::In(delay) => now + delay,
            Start::At(at) => at.max(now),
        }
    }
}

#[derive(Debug)]
pub(super) struct Unique {
    pub key: String,
    pub for_ms: Option<Millis>,
    /// Bits of [`State::bit`].
    pub states: i64,
    pub on_conflict: OnConflict,
}

/// How long a job waits after a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    pub kind: i64,
    pub base_ms: Millis,
    pub max_ms: Millis,
}

impl Backoff {
    const DEFAULT: Backoff = Backoff { kind: BackoffKind::Exponential as i64, base_ms: 1_000, max_ms: 3_600_000 };

    /// The wait after try number `attempt` (from 1): between half of the whole and the whole, by `chance`.
    pub(super) fn wait(self, attempt: i64, chance: u32) -> Millis {
        let times = match self.kind {
            0 => 1,
            1 => attempt,
            _ => 1_i64.checked_shl(u32::try_from(attempt - 1).unwrap_or(0)).filter(|times| *times > 0).unwrap_or(i64::MAX),
        };
        let whole = self.base_ms.saturating_mul(times).min(self.max_ms);
        whole - (whole / 2) * i64::from(chance) / i64::from(u32::MAX)
    }
}

impl JobRequest {
    /// A job to do at once, with nothing else asked for.
    pub fn plain(payload: Box<RawValue>) -> JobRequest {
        JobRequest {
            payload,
            payload_type: None,
            priority: None,
            delay_s: None,
            run_at: None,
            ttl_s: None,
            max_attempts: None,
            backoff: None,
            timeout_s: None,
            unique: None,
            group: None,
            limit: None,
            rate: None,
            key: None,
            depends_on: Vec::new(),
            on_failure: None,
        }
    }

    /// Errors: `payload_too_large` past [`PAYLOAD_BYTES`], `bad_request` for what lies outside its bounds, by name.
    pub fn check(self) -> Result<NewJob> {
        let start = match (self.run_at, seconds("delay_s", self.delay_s, 0)?) {
            (None, delay) => Start::In(delay.unwrap_or(0)),
            (Some(at), None) => Start::At(instant(&at)?),
            (Some(_), Some(_)) => return Err(Error::bad_request("both delay_s and run_at").hint("Send one of them.")),
        };
        Ok(NewJob {
            payload: match &self.payload_type {
                None => json_payload(self.payload)?,
                Some(media_type) => bytes_payload(media_type, &self.payload)?,
            },
            payload_type: self.payload_type,
            priority: within("priority", self.priority.unwrap_or(0), -PRIORITY_MAX, PRIORITY_MAX)?,
            start,
            ttl_ms: seconds("ttl_s", self.ttl_s, 1)?,
            max_attempts: within("max_attempts", self.max_attempts.unwrap_or(ATTEMPTS_DEFAULT), 1, ATTEMPTS_MAX)?,
            backoff: self.backoff.map_or(Ok(Backoff::DEFAULT), BackoffRequest::check)?,
            timeout_ms: seconds("timeout_s", self.timeout_s, 1)?,
            unique: self.unique.map(UniqueRequest::check).transpose()?,
            group: self.group.map(|group| key("group", group)).transpose()?,
            limit: match self.limit {
                Some(limit) => Some((key("limit.key", limit.key)?, within("limit.max", limit.max, 1, LIMIT_MAX)?)),
                None => None,
            },
            rate: self.rate.map(RateRequest::check).transpose()?,
            name: self.key.map(name).transpose()?,
            needs: needs(self.depends_on)?,
            on_failure: self.on_failure,
        })
    }
}

impl BackoffRequest {
    fn check(self) -> Result<Backoff> {
        let default = Backoff::DEFAULT;
        let base_ms = seconds("backoff.base_s", self.base_s, 0)?.unwrap_or(default.base_ms);
        let max_ms = seconds("backoff.max_s", self.max_s, 0)?.unwrap_or(default.max_ms.max(base_ms));
        Ok(Backoff { kind: self.kind as i64, base_ms, max_ms })
    }
}

impl RateRequest {
    fn check(self) -> Result<(String, f64)> {
        if (RATE_MIN..=RATE_MAX).contains(&self.per_s) {
            return Ok((key("rate.key", self.key)?, self.per_s));
        }
        Err(Error::bad_request(format!("rate.per_s is {}, but must lie between {RATE_MIN} and {RATE_MAX}", self.per_s)))
    }
}

impl UniqueRequest {
    fn check(self) -> Result<Unique> {
        let for_ms = seconds("unique.for_s", self.for_s, 1)?;
        let states = match self.states {
            Some(names) => names.iter().try_fold(0, |set, name| Ok::<_, Error>(set | State::parse(name)?.bit()))?,
            // For a time: whatever becomes of it. Otherwise: until it is finished.
            None => State::ALL.into_iter().filter(|state| for_ms.is_some() || !state.is_finished()).map(State::bit).sum(),
        };
        Ok(Unique { key: key("unique.key", self.key)?, for_ms, states, on_conflict: self.on_conflict })
    }
}

fn json_payload(payload: Box<RawValue>) -> Result<Vec<u8>> {
    let payload = Box::<str>::from(payload);
    if payload.len() > PAYLOAD_BYTES {
        return Err(too_large());
    }
    if depth(&payload) > DEPTH_MAX {
        return Err(Error::bad_request(format!("the payload is nested deeper than {DEPTH_MAX} levels"))
            .hint("Most JSON readers, and so most workers, refuse it."));
    }
    Ok(payload.into_string().into_bytes())
}

fn bytes_payload(media_type: &str, payload: &RawValue) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Base64 {
        base64: String,
    }

    if media_type.len() > KEY_BYTES || !media_type.contains('/') || !media_type.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Error::bad_request("payload_type is no media type").hint("Such as image/png; leave it out for JSON."));
    }
    let no_bytes =
        || Error::bad_request("payload is not {\"base64\":\"…\"}, as payload_type asks for").hint("Leave payload_type out for JSON.");
    let text: Base64 = serde_json::from_str(payload.get()).map_err(|_| no_bytes())?;
    let bytes = BASE64.decode(text.base64).map_err(|_| no_bytes())?;
    if bytes.len() > PAYLOAD_BYTES { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> Error {
    Error::new(Code::PayloadTooLarge, format!("a payload has at most {PAYLOAD_BYTES} bytes"))
        .hint("Enqueue the address of large data instead of the data.")
}

fn instant(text: &str) -> Result<Millis> {
    parse_rfc3339(text)
        .filter(|at| *at >= 0)
        .ok_or_else(|| Error::bad_request("run_at is no RFC 3339 instant").hint("Such as 2026-11-20T22:43:22Z."))
}

pub(super) fn key(field: &str, key: String) -> Result<String> {
    if (1..=KEY_BYTES).contains(&key.len()) && !key.contains('\0') {
        return Ok(key);
    }
    Err(Error::bad_request(format!("{field} is not 1 to {KEY_BYTES} bytes")))
}

/// How deep valid JSON is nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Seconds from `least` to [`DELAY_MAX_S`], in milliseconds.
fn seconds(field: &str, value: Option<i64>, least: i64) -> Result<Option<Millis>> {
    value.map(|value| Ok(within(field, value, least, DELAY_MAX_S)? * 1_000)).transpose()
}

/// `value`, if it lies between the two; else the error that names the field and its range.
pub(super) fn within(field: &str, value: i64, least: i64, most: i64) -> Result<i64> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::bad_request(format!("{field} is {value}, but must lie between {least} and {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(json: &str) -> Result<NewJob> {
        JobRequest::plain(RawValue::from_string(json.to_owned()).unwrap()).check()
    }

    fn request(json: serde_json::Value) -> Result<NewJob> {
        serde_json::from_str::<JobRequest>(&json.to_string()).unwrap().check()
    }

    #[test]
    fn a_payload_keeps_its_bytes_up_to_its_bound() {
        let odd = r#"{ "n": 1.0e400, "a":[ 1 ],"a":2 }"#;
        assert_eq!(job(odd).unwrap().payload, odd.as_bytes());
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(job(&text(PAYLOAD_BYTES)).is_ok());
        assert_eq!(job(&text(PAYLOAD_BYTES + 1)).unwrap_err().code(), Code::PayloadTooLarge);
        let bytes = request(serde_json::json!({"payload": {"base64": "AP8="}, "payload_type": "x/y"})).unwrap();
        assert_eq!(bytes.payload, [0, 255]);
        for (payload, media_type) in
            [(serde_json::json!("AP8="), "x/y"), (serde_json::json!({"base64": "!"}), "x/y"), (serde_json::json!({"base64": ""}), "x")]
        {
            assert!(request(serde_json::json!({"payload": payload, "payload_type": media_type})).is_err(), "{payload} {media_type}");
        }
    }

    #[test]
    fn what_lies_outside_its_range_is_named() {
        for (field, value) in [
            ("delay_s", serde_json::json!(-1)),
            ("delay_s", serde_json::json!(i64::MAX)),
            ("ttl_s", serde_json::json!(0)),
            ("timeout_s", serde_json::json!(0)),
            ("run_at", serde_json::json!("soon")),
            ("max_attempts", serde_json::json!(0)),
            ("priority", serde_json::json!(PRIORITY_MAX + 1)),
            ("group", serde_json::json!("")),
            ("limit.max", serde_json::json!({"key": "k", "max": 0})),
            ("rate.per_s", serde_json::json!({"key": "k", "per_s": 0})),
            ("unique.for_s", serde_json::json!({"key": "k", "for_s": 0})),
            ("backoff.base_s", serde_json::json!({"base_s": -1})),
        ] {
            let member = field.split('.').next().unwrap();
            let error = request(serde_json::json!({"payload": 1, member: value})).unwrap_err();
            assert!(error.code() == Code::BadRequest && error.message().contains(field), "{error:?}");
        }
    }

    #[test]
    fn a_wait_grows_by_its_kind_to_its_cap_and_is_never_less_than_half() {
        let backoff = |kind| Backoff { kind, base_ms: 100, max_ms: 1_000 };
        let waits = |kind| [1, 2, 4, 5, 64, 1_000].map(|attempt| backoff(kind).wait(attempt, 0));
        assert_eq!(waits(0), [100; 6]);
        assert_eq!(waits(1), [100, 200, 400, 500, 1_000, 1_000]);
        assert_eq!(waits(2), [100, 200, 800, 1_000, 1_000, 1_000]);
        assert_eq!(backoff(0).wait(1, u32::MAX), 50);
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(depth(r#"{"a":[1,{"b":"[[[\"[["}],"c":[]}"#), 3);
        assert_eq!(depth("1"), 0);
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(job(&deep).is_err());
    }
}

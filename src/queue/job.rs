//! A [`NewJob`] is what somebody wants done, inside its bounds: a payload nobody here looks into, and when,
//! how urgently and how often it may be tried.

use serde_json::value::RawValue;

use crate::clock::Millis;
use crate::error::{Code, Error, Result};

/// The longest payload, in bytes of JSON.
pub const PAYLOAD_BYTES: usize = 256 << 10;

/// The deepest nesting of a payload: what serde_json and others read by default.
pub const DEPTH_MAX: usize = 128;

/// Priorities go from minus this to this; 0 is the usual one.
pub const PRIORITY_MAX: i64 = 1_000_000;

/// The longest delay, in seconds: a year.
pub const DELAY_MAX_S: i64 = 365 * 86_400;

/// Tries of a job that was enqueued without `max_attempts`.
pub const ATTEMPTS_DEFAULT: i64 = 20;

/// The most tries that can be asked for.
pub const ATTEMPTS_MAX: i64 = 1_000;

#[derive(Debug)]
pub struct NewJob {
    payload: Box<RawValue>,
    priority: i64,
    delay_ms: Millis,
    max_attempts: i64,
}

impl NewJob {
    /// A job to do at once. Errors: `payload_too_large` past [`PAYLOAD_BYTES`], `bad_request` past [`DEPTH_MAX`].
    pub fn new(payload: Box<RawValue>) -> Result<NewJob> {
        if payload.get().len() > PAYLOAD_BYTES {
            return Err(Error::new(Code::PayloadTooLarge, format!("a payload has at most {PAYLOAD_BYTES} bytes"))
                .hint("Enqueue the address of large data instead of the data."));
        }
        if depth(payload.get()) > DEPTH_MAX {
            return Err(Error::bad_request(format!("the payload is nested deeper than {DEPTH_MAX} levels"))
                .hint("Most JSON readers, and so most workers, refuse it."));
        }
        Ok(NewJob { payload, priority: 0, delay_ms: 0, max_attempts: ATTEMPTS_DEFAULT })
    }

    /// Higher comes first. Errors: `bad_request` outside ±[`PRIORITY_MAX`].
    pub fn with_priority(self, priority: i64) -> Result<NewJob> {
        Ok(NewJob { priority: within("priority", priority, -PRIORITY_MAX, PRIORITY_MAX)?, ..self })
    }

    /// Nobody gets it for so many seconds. Errors: `bad_request` outside 0 to [`DELAY_MAX_S`].
    pub fn with_delay_s(self, delay_s: i64) -> Result<NewJob> {
        Ok(NewJob { delay_ms: within("delay_s", delay_s, 0, DELAY_MAX_S)? * 1_000, ..self })
    }

    /// Dead after so many tries. Errors: `bad_request` outside 1 to [`ATTEMPTS_MAX`].
    pub fn with_max_attempts(self, max_attempts: i64) -> Result<NewJob> {
        Ok(NewJob { max_attempts: within("max_attempts", max_attempts, 1, ATTEMPTS_MAX)?, ..self })
    }

    /// JSON, byte for byte as it came.
    pub fn payload(&self) -> &[u8] {
        self.payload.get().as_bytes()
    }

    pub fn priority(&self) -> i64 {
        self.priority
    }

    pub fn delay_ms(&self) -> Millis {
        self.delay_ms
    }

    pub fn max_attempts(&self) -> i64 {
        self.max_attempts
    }
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
        NewJob::new(RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn a_payload_keeps_its_bytes_up_to_its_bound() {
        let odd = r#"{ "n": 1.0e400, "a":[ 1 ],"a":2 }"#;
        assert_eq!(job(odd).unwrap().payload(), odd.as_bytes());
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(job(&text(PAYLOAD_BYTES)).is_ok());
        assert_eq!(job(&text(PAYLOAD_BYTES + 1)).unwrap_err().code(), Code::PayloadTooLarge);
    }

    #[test]
    fn what_lies_outside_its_range_is_named() {
        let error = job("1").unwrap().with_delay_s(-1).unwrap_err();
        assert_eq!((error.code(), error.message().contains("delay_s")), (Code::BadRequest, true));
        assert!(job("1").unwrap().with_delay_s(i64::MAX).is_err());
        assert!(job("1").unwrap().with_max_attempts(0).is_err());
        assert!(job("1").unwrap().with_priority(PRIORITY_MAX + 1).is_err());
        assert_eq!(job("1").unwrap().with_priority(-3).unwrap().priority(), -3);
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(depth(r#"{"a":[1,{"b":"[[[\"[["}],"c":[]}"#), 3);
        assert_eq!(depth("1"), 0);
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(NewJob::new(RawValue::from_string(deep).unwrap()).is_err());
    }
}

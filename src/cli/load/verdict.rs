//! A [`Verdict`] is what an answer is worth: right, wrong, or not there.

use std::time::Duration;

use serde_json::Value;

use super::tally::Miss;
use super::wire::{Answer, Broken};

/// What an answer turned out to be.
pub enum Verdict {
    Right,
    Wrong(String),
    Missed {
        miss: Miss,
        code: String,
        /// How long to leave the server alone.
        wait: Option<Duration>,
        /// Whether it is certain that nothing happened.
        sure: bool,
    },
}

/// What an answer is worth. `check` looks at the body of one with the right status.
pub fn judge(answer: Result<Answer<'_>, Broken>, status: u16, check: impl FnOnce(&[u8]) -> Result<(), String>) -> Verdict {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Broken::NotHttp(why)) => return Verdict::Wrong(format!("not an HTTP answer: {why}")),
        Err(broken) => {
            let code = if matches!(broken, Broken::TimedOut(_)) { "timed_out" } else { "no_answer" };
            // Without a pause, a server that is gone would be asked a million times.
            let wait = Some(Duration::from_millis(100));
            return Verdict::Missed { miss: Miss::Failed, code: code.to_owned(), wait, sure: false };
        }
    };
    if answer.status == status {
        return match check(answer.body) {
            Ok(()) => Verdict::Right,
            Err(what) => Verdict::Wrong(what),
        };
    }
    let code = serde_json::from_slice::<Value>(answer.body).ok().and_then(|body| Some(body.get("code")?.as_str()?.to_owned()));
    let code = code.unwrap_or_else(|| format!("status {}", answer.status));
    let refused = matches!(answer.status, 429 | 503);
    if refused && answer.retry_after.is_none() {
        return Verdict::Wrong(format!("{code} does not say when to come again: there is no Retry-After"));
    }
    Verdict::Missed {
        miss: if refused { Miss::Refused } else { Miss::Failed },
        code,
        wait: refused.then(|| Duration::from_secs(answer.retry_after.unwrap_or_default().min(1))),
        sure: answer.status < 500 || matches!(answer.status, 503 | 507),
    }
}

/// Calls the one or the other where a write is known to have happened, or not known.
pub fn note(verdict: &Verdict, happened: impl FnOnce(), unknown: impl FnOnce()) {
    match verdict {
        Verdict::Right => happened(),
        Verdict::Missed { sure: false, .. } => unknown(),
        _ => {}
    }
}

/// Whether a body begins with what is expected, up to the end of the first result's rows; in other words of JSON it
/// may say the same.
pub fn has_rows(body: &[u8], expected: &[u8]) -> bool {
    if body.starts_with(expected) {
        return true;
    }
    let whole = serde_json::from_slice::<Value>(&[expected, br#""more":null}]}"#].concat());
    let (Ok(whole), Ok(body)) = (whole, serde_json::from_slice::<Value>(body)) else { return false };
    ["columns", "rows"].iter().all(|part| body["results"][0][part] == whole["results"][0][part])
}

/// The whole number in a JSON body, found without parsing when it stands behind `head`, else by its path.
pub fn number_at(body: &[u8], path: &[&str], head: &[u8]) -> Option<i64> {
    if let Some(rest) = body.strip_prefix(head) {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        return std::str::from_utf8(&rest[..digits]).ok()?.parse().ok();
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    body.pointer(&format!("/{}", path.join("/")))?.as_i64()
}

/// The beginning of a body, for a person.
pub fn shown(body: &[u8]) -> String {
    const SHOWN: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned();
    if body.len() > SHOWN { format!("{text}…") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &[u8]) -> Result<Answer<'_>, Broken> {
        Ok(Answer { status, retry_after: Some(9), body })
    }

    #[test]
    fn an_answer_is_right_wrong_or_not_there() {
        let fits = |body: &[u8]| if body == b"ok" { Ok(()) } else { Err("no".to_owned()) };
        assert!(matches!(judge(answer(200, b"ok"), 200, fits), Verdict::Right));
        assert!(matches!(judge(answer(200, b"ko"), 200, fits), Verdict::Wrong(_)));
        assert!(matches!(judge(Err(Broken::NotHttp("x")), 200, fits), Verdict::Wrong(_)));
        let missed = |answer| match judge(answer, 200, fits) {
            Verdict::Missed { miss, code, wait, sure } => (miss, code, wait, sure),
            _ => panic!("an answer"),
        };
        let overloaded = missed(answer(503, br#"{"code":"overloaded"}"#));
        assert_eq!(overloaded, (Miss::Refused, "overloaded".to_owned(), Some(Duration::from_secs(1)), true));
        let silent = Ok(Answer { status: 429, retry_after: None, body: b"{}" });
        assert!(matches!(judge(silent, 200, fits), Verdict::Wrong(_)));
        assert_eq!(missed(answer(500, b"<html>")), (Miss::Failed, "status 500".to_owned(), None, false));
        let gone = missed(Err(Broken::Closed));
        assert_eq!((gone.0, gone.1.as_str(), gone.3), (Miss::Failed, "no_answer", false));
    }

    #[test]
    fn rows_are_compared_as_bytes_and_where_those_differ_as_json() {
        let expected = br#"{"results":[{"columns":["v"],"rows":[["x"]],"#;
        assert!(has_rows(br#"{"results":[{"columns":["v"],"rows":[["x"]],"rows_affected":0}]}"#, expected));
        assert!(has_rows(br#"{ "results": [ {"rows":[["x"]], "columns":["v"]} ] }"#, expected));
        assert!(!has_rows(br#"{"results":[{"columns":["v"],"rows":[["y"]],"rows_affected":0}]}"#, expected));
        assert!(!has_rows(br#"{"results":[{"columns":["v"],"rows":[["x"],["x"]]}]}"#, expected));
        assert!(!has_rows(b"", expected) && !has_rows(b"{}", expected));
    }

    #[test]
    fn a_number_is_found_with_and_without_parsing() {
        let body = br#"{"results":[{"columns":["n"],"rows":[[17]],"rows_affected":1}]}"#;
        let path = ["results", "0", "rows", "0", "0"];
        assert_eq!(number_at(body, &path, br#"{"results":[{"columns":["n"],"rows":[["#), Some(17));
        assert_eq!(number_at(body, &path, b"{}"), Some(17));
        assert_eq!(number_at(b"{}", &path, b"x"), None);
    }
}

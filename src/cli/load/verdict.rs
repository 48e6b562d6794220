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
}

//! An [`Etag`] names one writing of one entry. The version rises within a file and the time of writing tells
//! apart two files of which the later was made anew, so an ETag a client kept never fits other content.
//! [`Conditions`] are what a request says of the ETag it wants to find.

use std::fmt;

use crate::clock::Millis;
use crate::error::{Code, Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag {
    pub(super) version: i64,
    pub(super) created_at: Millis,
}

impl Etag {
    /// When the entry was set.
    pub fn created_at(&self) -> Millis {
        self.created_at
    }
}

impl fmt::Display for Etag {
    /// As HTTP writes a strong validator: `"1f-19a2b3c4d5e"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:x}-{:x}\"", self.version, self.created_at)
    }
}

/// The value of `If-Match` or `If-None-Match`, `*` or a list of entity tags. What is neither fits nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etags(String);

impl Etags {
    pub fn new(header: &str) -> Etags {
        Etags(header.trim().to_owned())
    }

    /// Whether one of them is `etag`. A weak one fits too: RFC 9110 has strong comparison for `If-Match`, but it is we who
    /// made the ETag, and none of ours is weak.
    pub fn has(&self, etag: &Etag) -> bool {
        let etag = etag.to_string();
        let same = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == etag;
        self.0 == "*" || self.0.split(',').any(|tag| same(tag.trim()))
    }
}

/// On what a write depends; by default on nothing.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    pub if_match: Option<Etags>,
    pub if_none_match: Option<Etags>,
}

impl Conditions {
    pub fn is_none(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Whether what the key holds, if anything, is as the request wants it. Errors: `precondition_failed`.
    pub fn check(&self, held: Option<Etag>) -> Result<()> {
        let failed = |why: String| {
            let error = Error::new(Code::PreconditionFailed, why).hint("Get the entry again and decide anew.");
            Err(held.map_or(error.clone(), |etag| error.detail("etag", etag.to_string())))
        };
        match (held, &self.if_match, &self.if_none_match) {
            (None, Some(_), _) => failed("the key holds nothing, so If-Match cannot match".to_owned()),
            (Some(etag), Some(wanted), _) if !wanted.has(&etag) => failed(format!("the key holds {etag}, which If-Match does not name")),
            (Some(etag), _, Some(unwanted)) if unwanted.has(&etag) => failed(format!("the key holds {etag}, which If-None-Match excludes")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: Etag = Etag { version: 31, created_at: 1_795_214_602_123 };

    #[test]
    fn a_client_that_has_the_entry_is_recognised_however_it_says_so() {
        let shown = ETAG.to_string();
        for has in [shown.clone(), format!("W/{shown}"), format!("\"x\" , {shown}"), "*".to_owned()] {
            assert!(Etags::new(&has).has(&ETAG), "{has}");
        }
        for has_not in ["\"1f\"", "1f", "", "\"", "W/"] {
            assert!(!Etags::new(has_not).has(&ETAG), "{has_not}");
        }
    }

    #[test]
    fn conditions_hold_or_not() {
        let check = |if_match: Option<&str>, if_none_match: Option<&str>, held| {
            Conditions { if_match: if_match.map(Etags::new), if_none_match: if_none_match.map(Etags::new) }.check(held).is_ok()
        };
        let shown = ETAG.to_string();
        assert!(check(None, None, None) && check(None, None, Some(ETAG)));
        assert!(check(None, Some("*"), None) && !check(None, Some("*"), Some(ETAG)));
        assert!(check(Some("*"), None, Some(ETAG)) && !check(Some("*"), None, None));
        assert!(check(Some(&shown), None, Some(ETAG)) && !check(Some("\"1-1\""), None, Some(ETAG)) && !check(Some(&shown), None, None));
        assert!(check(None, Some("\"1-1\""), Some(ETAG)) && !check(None, Some(&shown), Some(ETAG)));
    }
}

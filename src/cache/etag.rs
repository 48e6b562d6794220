//! An [`Etag`] names one writing of one entry. The version rises within a file and the time of writing tells
//! apart two files of which the later was made anew, so an ETag a client kept never fits other content.

use std::fmt;

use crate::clock::Millis;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag {
    pub(super) version: i64,
    pub(super) created_at: Millis,
}

impl fmt::Display for Etag {
    /// As HTTP writes a strong validator: `"1f-19a2b3c4d5e"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:x}-{:x}\"", self.version, self.created_at)
    }
}

/// What a client already has: the value of `If-None-Match`, `*` or a list of entity tags. What is neither
/// fits nothing, so a client that sends nonsense gets the whole entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unless(String);

impl Unless {
    pub fn new(header: &str) -> Unless {
        Unless(header.trim().to_owned())
    }

    /// Whether the client has this one. Weak comparison, as RFC 9110 §13.1.2 has it for reads.
    pub fn has(&self, etag: &Etag) -> bool {
        let etag = etag.to_string();
        let same = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == etag;
        self.0 == "*" || self.0.split(',').any(|tag| same(tag.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_the_entry_is_recognised_however_it_says_so() {
        let etag = Etag { version: 31, created_at: 1_795_214_602_123 };
        let shown = etag.to_string();
        for has in [shown.clone(), format!("W/{shown}"), format!("\"x\" , {shown}"), "*".to_owned()] {
            assert!(Unless::new(&has).has(&etag), "{has}");
        }
        for has_not in ["\"1f\"", "1f", "", "\"", "W/"] {
            assert!(!Unless::new(has_not).has(&etag), "{has_not}");
        }
    }
}

//! A [`LockName`] is 1 to 128 ASCII letters, digits, `_`, `.`, `:` and `-`.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest name, in bytes.
const NAME_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockName(Arc<str>);

impl LockName {
    /// Errors: `bad_request`.
    pub fn parse(name: &str) -> Result<LockName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
        if (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(LockName(name.into()));
        }
        Err(Error::bad_request(format!("a lock's name is 1 to {NAME_BYTES} of the characters A-Z a-z 0-9 _ . : -"))
            .hint("A name such as invoice:7 or nightly-report will do."))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for taken in ["a", "invoice:7", "reports.daily-2_x", &"n".repeat(128)] {
            assert_eq!(LockName::parse(taken).unwrap().as_str(), taken);
        }
        for refused in ["", "a b", "a/b", "ä", "a\0", "*", &"n".repeat(129)] {
            assert!(LockName::parse(refused).is_err(), "{refused:?}");
        }
    }
}

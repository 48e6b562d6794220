//! A [`QueueName`] is 1 to 128 ASCII letters, digits, `_`, `.` and `-`. A queue exists from its first job on.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest name, in bytes.
const NAME_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Errors: `bad_request`.
    pub fn parse(name: &str) -> Result<QueueName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(QueueName(name.into()));
        }
        Err(Error::bad_request(format!("a queue's name is 1 to {NAME_BYTES} of the characters A-Z a-z 0-9 _ . -"))
            .hint("Queues are made by their first job; a name such as emails or reports.daily will do."))
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
        for taken in ["a", "emails", "reports.daily-2_x", &"n".repeat(128)] {
            assert_eq!(QueueName::parse(taken).unwrap().as_str(), taken);
        }
        for refused in ["", "a b", "a/b", "ä", "a\0", "*", &"n".repeat(129)] {
            assert!(QueueName::parse(refused).is_err(), "{refused:?}");
        }
    }
}

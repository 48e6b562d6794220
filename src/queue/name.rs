//! A [`QueueName`] is 1 to 128 ASCII letters, digits, `_`, `.` and `-`. A queue exists from its first job on.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest name, in bytes.
const NAME_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueName(Arc<str>);

/// The queue of writes behind the cache. The server itself adds its jobs and works on them.
const BEHIND: &str = "_behind";

impl QueueName {
    /// Errors: `bad_request`.
    pub fn parse(name: &str) -> Result<QueueName> {
        plain("queue", name)
            .map_err(|error| error.hint("Queues are made by their first job; a name such as emails or reports.daily will do."))?;
        Ok(QueueName(name.into()))
    }

    /// The same for who adds jobs, works on them or says how that is done: that is not for others where the server does
    /// it. Errors: `bad_request`, `forbidden`.
    pub fn parse_open(name: &str) -> Result<QueueName> {
        let name = QueueName::parse(name)?;
        if name.is_behind() { Err(own()) } else { Ok(name) }
    }

    pub fn behind() -> QueueName {
        QueueName(BEHIND.into())
    }

    pub fn is_behind(&self) -> bool {
        &*self.0 == BEHIND
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What can be the name of a queue, or of a `what` in it. Errors: `bad_request`.
pub(super) fn plain(what: &str, name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::bad_request(format!("a {what}'s name is 1 to {NAME_BYTES} of the characters A-Z a-z 0-9 _ . -")))
}

pub(super) fn own() -> Error {
    Error::forbidden(format!("the server itself adds to the queue {BEHIND} and works on it"))
        .hint("It can be looked at, and its dead jobs redriven or purged.")
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

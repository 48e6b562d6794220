//! A [`Ttl`] is how long an entry stays fresh: whole seconds from 1 to [`TTL_MAX_S`], so that no expiry overflows.

use crate::clock::Millis;
use crate::error::{Error, Result};

/// The longest time to live, in seconds: ten years. Without a `ttl` an entry has no expiry at all.
pub const TTL_MAX_S: u32 = 10 * 365 * 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    seconds: u32,
}

impl Ttl {
    /// From decimal digits and nothing else. Errors: `bad_request`.
    pub fn parse(text: &str) -> Result<Ttl> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(seconds @ 1..=TTL_MAX_S) if digits => Ok(Ttl { seconds }),
            _ => Err(Error::bad_request(format!("ttl is a whole number of seconds from 1 to {TTL_MAX_S}"))
                .hint("Leave ttl out for an entry that does not expire.")),
        }
    }

    /// The instant at which an entry written at `now` expires.
    pub fn from(self, now: Millis) -> Millis {
        now + Millis::from(self.seconds) * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_seconds_in_range_are_a_ttl() {
        assert_eq!(Ttl::parse("1").unwrap().from(5), 1_005);
        assert!(Ttl::parse(&TTL_MAX_S.to_string()).is_ok());
        for refused in ["", "0", "-1", "+1", "1.5", "1e3", " 1", "NaN", "inf", "0x10", "315360001", "4294967297", "99999999999999999999"] {
            assert!(Ttl::parse(refused).is_err(), "{refused:?}");
        }
    }
}

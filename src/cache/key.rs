//! A [`Key`] names an entry: 1 to [`KEY_BYTES`] bytes of UTF-8, any characters, compared byte for byte.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// From its bytes, percent-encoding already undone. Errors: `bad_request` when empty, too long or not UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Key> {
        if bytes.is_empty() || bytes.len() > KEY_BYTES {
            return Err(Error::bad_request(format!("a cache key has 1 to {KEY_BYTES} bytes, this one has {}", bytes.len()))
                .hint("Use a hash of the long part as the key."));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::bad_request(format!("a cache key is UTF-8, this one is not from byte {} on", e.valid_up_to())))?;
        Ok(Key(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bounded_text() {
        assert_eq!(Key::parse("käse/1".as_bytes()).unwrap().as_str(), "käse/1");
        assert!(Key::parse(&[b'k'; KEY_BYTES]).is_ok());
        for refused in [&b""[..], &[b'k'; KEY_BYTES + 1], &[b'k'; 10_240], b"k\xff"] {
            assert!(Key::parse(refused).is_err());
        }
    }
}

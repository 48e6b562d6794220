//! A [`Key`] names an entry: 1 to [`KEY_BYTES`] bytes of UTF-8, any characters, compared byte for byte, in a
//! [`Namespace`]. Inside it is one run of bytes, the namespace, a slash and the name: so a namespace is the prefix that
//! its keys share, and no key of one is a key of another.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES: usize = 512;

/// The longest name of a namespace, in bytes.
pub const NAMESPACE_BYTES: usize = 64;

/// Keys apart from the others: up to [`NAMESPACE_BYTES`] of the characters A-Z a-z 0-9 _ . -; the default one has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// Errors: `bad_request`.
    pub fn parse(name: &str) -> Result<Namespace> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if (1..=NAMESPACE_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(Namespace(name.to_owned()));
        }
        Err(Error::bad_request(format!("a namespace is 1 to {NAMESPACE_BYTES} of the characters A-Z a-z 0-9 _ . -"))
            .hint("Leave namespace out for the default one."))
    }

    /// The key of this name. From its bytes, percent-encoding already undone. Errors: `bad_request` when empty, too long
    /// or not UTF-8.
    pub fn key(&self, name: &[u8]) -> Result<Key> {
        if name.is_empty() || name.len() > KEY_BYTES {
            return Err(Error::bad_request(format!("a cache key has 1 to {KEY_BYTES} bytes, this one has {}", name.len()))
                .hint("Use a hash of the long part as the key."));
        }
        std::str::from_utf8(name)
            .map_err(|e| Error::bad_request(format!("a cache key is UTF-8, this one is not from byte {} on", e.valid_up_to())))?;
        Ok(Key([self.0.as_bytes(), b"/", name].concat().into()))
    }

    /// The key of the answer that is remembered under this name: apart from the entries, of which no key begins so. Errors as
    /// for [`Namespace::key`].
    pub fn remembered(&self, name: &[u8]) -> Result<Key> {
        let key = self.key(name)?;
        Ok(Key([self.0.as_bytes(), b"?", &key.0[self.0.len() + 1..]].concat().into()))
    }

    /// What all its keys begin with.
    pub fn start(&self) -> Vec<u8> {
        [self.0.as_bytes(), b"/"].concat()
    }

    /// What the keys begin with whose names begin with `name`. Errors: `bad_request` when longer than a key.
    pub fn prefix(&self, name: &str) -> Result<Vec<u8>> {
        if name.len() > KEY_BYTES {
            return Err(Error::bad_request(format!("a prefix of keys has at most {KEY_BYTES} bytes, this one has {}", name.len())));
        }
        Ok([self.0.as_bytes(), b"/", name.as_bytes()].concat())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// In the default namespace; as [`Namespace::key`].
    pub fn parse(name: &[u8]) -> Result<Key> {
        Namespace::default().key(name)
    }

    /// With its namespace.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bounded_text() {
        assert_eq!(Key::parse("käse/1".as_bytes()).unwrap().as_bytes(), "/käse/1".as_bytes());
        assert!(Key::parse(&[b'k'; KEY_BYTES]).is_ok());
        for refused in [&b""[..], &[b'k'; KEY_BYTES + 1], &[b'k'; 10_240], b"k\xff"] {
            assert!(Key::parse(refused).is_err());
        }
    }

    #[test]
    fn no_key_of_a_namespace_is_one_of_another() {
        let (one, longer) = (Namespace::parse("a").unwrap(), Namespace::parse("a.b").unwrap());
        assert_ne!(one.key(b"b/c").unwrap(), longer.key(b"c").unwrap());
        assert!(!longer.key(b"c").unwrap().as_bytes().starts_with(&one.prefix("").unwrap()));
        assert!(!one.key(b"c").unwrap().as_bytes().starts_with(&Namespace::default().prefix("").unwrap()));
        for refused in ["", "a/b", "a b", "ä", "a\0", &"n".repeat(NAMESPACE_BYTES + 1)] {
            assert!(Namespace::parse(refused).is_err(), "{refused:?}");
        }
    }
}

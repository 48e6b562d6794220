//! A [`TenantId`] is a UUID and the only thing that makes a path. It is parsed once, at the edge, in its one
//! canonical form; so no text of a caller's ever gets near the file system.

use std::fmt;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Uuid);

impl TenantId {
    /// A new one (UUIDv7: ids sort by when they were made).
    pub fn new_v7() -> TenantId {
        TenantId(Uuid::now_v7())
    }

    /// Accepts `0199…-…` in lower case with hyphens, nothing else.
    pub fn parse(text: &str) -> Result<TenantId> {
        let id = Uuid::try_parse(text).ok().filter(|id| text == id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        id.map(TenantId).ok_or_else(|| Error::bad_request("this is not a tenant's id").hint("It is a UUID: lower case, with hyphens."))
    }

    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for TenantId {
    fn from(id: Uuid) -> Self {
        TenantId(id)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TenantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_an_id() {
        let id = TenantId::new_v7();
        assert_eq!(TenantId::parse(&id.to_string()).unwrap(), id);
        let upper = id.to_string().to_uppercase();
        let simple = id.uuid().simple().to_string();
        let braced = id.uuid().braced().to_string();
        for text in ["", "../x", "..%2f", "\0", "file:x?mode=memory", ":memory:", &upper, &simple, &braced, &"a".repeat(300)] {
            assert!(TenantId::parse(text).is_err(), "{text}");
        }
    }
}

//! The chain's arithmetic: HMAC-SHA256 under the audit key over an encoding in which every field is preceded by
//! its length, so that no two entries encode alike.

use std::path::Path;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Record;
use crate::error::{Code, Error, Result};
use crate::system::secret;

/// What the first entry follows.
pub const GENESIS: [u8; 32] = [0; 32];

pub struct ChainKey([u8; 32]);

impl ChainKey {
    pub fn new() -> Result<ChainKey> {
        secret::random().map(ChainKey)
    }

    /// From its file; `None` if there is none yet.
    pub fn load(path: &Path) -> Result<Option<ChainKey>> {
        let Some(bytes) = secret::read(path)? else { return Ok(None) };
        let key = bytes.try_into().map_err(|bytes: Vec<u8>| {
            Error::new(Code::Internal, format!("{} has {} bytes where 32 belong", path.display(), bytes.len()))
                .hint("Put the original file back: without it the audit log cannot be verified.")
        })?;
        Ok(Some(ChainKey(key)))
    }

    pub fn store(&self, path: &Path) -> Result<()> {
        secret::write_new(path, &self.0)
    }

    #[cfg(test)]
    pub fn fixed(byte: u8) -> ChainKey {
        ChainKey([byte; 32])
    }

    /// The hash of entry `seq` that follows `prev`.
    pub fn entry(&self, seq: i64, prev: &[u8], record: &Record) -> [u8; 32] {
        let mut mac = self.mac(b"tenantry audit entry 1");
        mac.update(&seq.to_le_bytes());
        field(&mut mac, prev);
        mac.update(&record.at.to_le_bytes());
        field(&mut mac, record.actor.as_bytes());
        field(&mut mac, record.action.as_bytes());
        optional(&mut mac, record.target.as_deref());
        optional(&mut mac, record.request_id.as_deref());
        field(&mut mac, record.outcome.as_bytes());
        field(&mut mac, record.details.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// The signature of a head.
    pub fn head(&self, seq: i64, hash: &[u8]) -> [u8; 32] {
        let mut mac = self.mac(b"tenantry audit head 1");
        mac.update(&seq.to_le_bytes());
        field(&mut mac, hash);
        mac.finalize().into_bytes().into()
    }

    fn mac(&self, what: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        field(&mut mac, what);
        mac
    }
}

fn field(mac: &mut Hmac<Sha256>, bytes: &[u8]) {
    mac.update(&(bytes.len() as u64).to_le_bytes());
    mac.update(bytes);
}

fn optional(mac: &mut Hmac<Sha256>, text: Option<&str>) {
    match text {
        None => mac.update(&[0]),
        Some(text) => {
            mac.update(&[1]);
            field(mac, text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(actor: &str, action: &str) -> Record {
        Record {
            at: 1,
            actor: actor.to_owned(),
            action: action.to_owned(),
            target: None,
            request_id: None,
            outcome: "ok".to_owned(),
            details: "{}".to_owned(),
        }
    }

    #[test]
    fn no_two_entries_encode_alike() {
        let key = ChainKey::fixed(7);
        let hash = |record: &Record| key.entry(1, &GENESIS, record);
        assert_ne!(hash(&record("ab", "c")), hash(&record("a", "bc")));
        let with_empty_target = Record { target: Some(String::new()), ..record("a", "b") };
        assert_ne!(hash(&with_empty_target), hash(&record("a", "b")));
        assert_ne!(key.entry(2, &GENESIS, &record("a", "b")), hash(&record("a", "b")));
        assert_ne!(ChainKey::fixed(8).entry(1, &GENESIS, &record("a", "b")), hash(&record("a", "b")));
    }
}

//! [`Packing`] is how values stand in the cache files: compressed where that is worth it, and sealed with a key of their
//! tenant's where the operator wants it. Outside its row a value is always plain; who reads it is never told.
//!
//! - What cannot be unpacked (damaged, sealed by another key, or moved here from another row or another tenant's file) is a
//!   miss, never an error and never another value. With sealing on, what is not sealed is a miss too; with it off, what is.
//! - Sealed are values. Keys, tags, content types and times are not: SQLite looks for them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::Path;

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use zstd::bulk::{Compressor, Decompressor};

use super::Etag;
use crate::config;
use crate::error::{Code, Error, Result};
use crate::system::secret;

/// Bits of `entries.encoding`.
const COMPRESSED: i64 = 1;
const SEALED: i64 = 2;

/// zstd's fastest: a cache is written as often as it is read.
const LEVEL: i32 = 1;

/// A compressed value is no longer than its plain one less this part of it.
const SAVED: usize = 8;

/// Plain bytes that are packed or unpacked where it must be brief.
const BRIEF: i64 = 128 << 10;

/// Bytes of a sealed value beside the value's own.
const SEAL: usize = NONCE_LEN + 16;

/// For all files.
#[derive(Default)]
pub struct Packing {
    /// Bytes from which on a value is compressed; `None` for never.
    compress_from: Option<usize>,
    master: Option<Prk>,
}

/// For one file.
#[derive(Default)]
pub(super) struct Packer {
    compress_from: Option<usize>,
    key: Option<LessSafeKey>,
}

/// A value as it stands in its row.
pub(super) struct Packed<'v> {
    pub encoding: i64,
    pub bytes: Cow<'v, [u8]>,
}

/// Which writing of which entry a value belongs to.
pub(super) struct Place<'k> {
    pub key: &'k [u8],
    pub etag: Etag,
    /// Plain bytes.
    pub size: i64,
}

/// What unpacking comes to.
pub(super) enum Unpacked {
    Value(Vec<u8>),
    /// It takes too long for a brief read.
    Later,
    /// It is no value of this place.
    Wrong,
}

impl Packing {
    /// As it is configured. Makes the master key in the folder `keys` when it is needed first; every tenant's key comes from it.
    /// Blocking.
    pub fn open(config: &config::Cache, keys: &Path) -> Result<Packing> {
        let compress_from = (config.compress_from_bytes > 0).then_some(config.compress_from_bytes);
        let master = if config.encrypt { Some(master(&keys.join("cache.key"))?) } else { None };
        Ok(Packing { compress_from, master })
    }

    /// Whether each file has a key of its own.
    pub(super) fn seals(&self) -> bool {
        self.master.is_some()
    }

    /// For the file of a tenant, or the operator's own.
    pub(super) fn packer(&self, owner: Option<u128>) -> Packer {
        let whose = owner.map_or_else(|| b"operator".to_vec(), |owner| owner.to_be_bytes().to_vec());
        let key = self.master.as_ref().and_then(|master| {
            let info = [whose.as_slice()];
            let key = master.expand(&info, &AES_256_GCM).ok()?;
            Some(LessSafeKey::new(UnboundKey::from(key)))
        });
        Packer { compress_from: self.compress_from, key }
    }
}

fn master(path: &Path) -> Result<Prk> {
    let bytes = match secret::read(path)? {
        Some(bytes) => bytes,
        None => {
            let made = secret::random()?;
            secret::write_new(path, &made)?;
            made.to_vec()
        }
    };
    if bytes.len() != 32 {
        return Err(Error::new(Code::Internal, format!("{} is no key: it has {} bytes, not 32", path.display(), bytes.len()))
            .hint("Put its backup back, or delete it: a new one is made, and the caches start empty."));
    }
    Ok(Salt::new(HKDF_SHA256, b"tenantry cache").extract(&bytes))
}

impl Packer {
    /// The value compressed, if it is long enough and becomes shorter by enough. Takes its time.
    pub(super) fn squeeze(&self, value: &[u8]) -> Option<Bytes> {
        thread_local!(static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) });
        self.compress_from.filter(|&from| value.len() >= from)?;
        let squeezed = COMPRESSOR.with_borrow_mut(|compressor| {
            if compressor.is_none() {
                *compressor = Compressor::new(LEVEL).ok();
            }
            compressor.as_mut()?.compress(value).ok()
        })?;
        (squeezed.len() <= value.len() - value.len() / SAVED).then(|| squeezed.into())
    }

    /// Whether packing so many bytes takes long.
    pub(super) fn is_slow(&self, bytes: usize) -> bool {
        (self.compress_from.is_some() || self.key.is_some()) && bytes as i64 > BRIEF
    }

    /// Bytes that a value will take which has so many as it is, or squeezed.
    pub(super) fn packed_len(&self, len: usize) -> usize {
        len + if self.key.is_some() { SEAL } else { 0 }
    }

    /// A value, and what it was squeezed to if it was, as it is written in its row.
    pub(super) fn pack<'v>(&self, value: &'v [u8], squeezed: Option<&'v [u8]>, place: &Place<'_>) -> Result<Packed<'v>> {
        let (bytes, encoding) = squeezed.map_or((value, 0), |squeezed| (squeezed, COMPRESSED));
        let Some(key) = &self.key else { return Ok(Packed { encoding, bytes: Cow::Borrowed(bytes) }) };
        let encoding = encoding | SEALED;
        let failed = |_| Error::internal("a cached value cannot be sealed", &"the system has no randomness");
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let mut sealed = Vec::with_capacity(bytes.len() + SEAL);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(bytes);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, place.aad(encoding), &mut sealed[NONCE_LEN..]).map_err(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(Packed { encoding, bytes: Cow::Owned(sealed) })
    }

    /// What [`Packer::pack`] was given.
    pub(super) fn unpack(&self, encoding: i64, bytes: &[u8], place: &Place<'_>, brief: bool) -> Unpacked {
        if encoding != 0 && brief && place.size > BRIEF {
            return Unpacked::Later;
        }
        let opened = match (&self.key, encoding & SEALED != 0) {
            (None, false) => Some(Cow::Borrowed(bytes)),
            (Some(key), true) => place.open(key, encoding, bytes).map(Cow::Owned),
            _ => None,
        };
        let plain = opened.and_then(|bytes| if encoding & COMPRESSED != 0 { expand(&bytes, place.size) } else { Some(bytes.into_owned()) });
        plain.filter(|plain| plain.len() as i64 == place.size).map_or(Unpacked::Wrong, Unpacked::Value)
    }
}

impl Place<'_> {
    fn aad(&self, encoding: i64) -> Aad<Vec<u8>> {
        let numbers = [encoding, self.etag.version, self.etag.created_at, self.size];
        Aad::from([numbers.map(i64::to_be_bytes).as_flattened(), self.key].concat())
    }

    fn open(&self, key: &LessSafeKey, encoding: i64, bytes: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let plain = key.open_in_place(Nonce::assume_unique_for_key(*nonce), self.aad(encoding), &mut sealed).ok()?.len();
        sealed.truncate(plain);
        Some(sealed)
    }
}

/// Never more than `size` bytes, which is what the row says, and no value is longer than [`super::VALUE_BYTES`].
fn expand(bytes: &[u8], size: i64) -> Option<Vec<u8>> {
    thread_local!(static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) });
    let size = usize::try_from(size).ok().filter(|&size| size <= super::VALUE_BYTES)?;
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = Decompressor::new().ok();
        }
        decompressor.as_mut()?.decompress(bytes, size).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: Etag = Etag { version: 7, created_at: 1_795_214_602_123 };

    fn packing(folder: &Path, encrypt: bool) -> Packing {
        Packing::open(&config::Cache { encrypt, compress_from_bytes: 100, ..config::Cache::default() }, folder).unwrap()
    }

    fn packed(packer: &Packer, value: &[u8], place: &Place<'_>) -> (i64, Vec<u8>) {
        let squeezed = packer.squeeze(value);
        let packed = packer.pack(value, squeezed.as_deref(), place).unwrap();
        assert_eq!(packed.bytes.len(), packer.packed_len(squeezed.as_deref().unwrap_or(value).len()));
        (packed.encoding, packed.bytes.into_owned())
    }

    fn unpacked(packer: &Packer, (encoding, bytes): &(i64, Vec<u8>), place: &Place<'_>) -> Option<Vec<u8>> {
        match packer.unpack(*encoding, bytes, place, false) {
            Unpacked::Value(value) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn a_value_comes_back_and_is_short_and_sealed_where_it_should_be() {
        let folder = tempfile::tempdir().unwrap();
        for encrypt in [false, true] {
            let packer = packing(folder.path(), encrypt).packer(Some(1));
            let text = b"to be or not to be, ".repeat(100);
            for (value, compressed) in [(&b""[..], 0), (b"short", 0), (&text, COMPRESSED), (&[1, 2, 3, 9].map(|n| n * 7), 0)] {
                let place = Place { key: b"/k", etag: ETAG, size: value.len() as i64 };
                let row = packed(&packer, value, &place);
                assert_eq!(row.0, compressed | if encrypt { SEALED } else { 0 });
                assert!(compressed == 0 || row.1.len() < value.len() / 2);
                assert!(
                    !encrypt || value.is_empty() || !row.1.windows(value.len().min(5)).any(|part| part == &value[..value.len().min(5)])
                );
                assert_eq!(unpacked(&packer, &row, &place).unwrap(), value);
            }
        }
    }

    #[test]
    fn what_belongs_elsewhere_or_is_damaged_is_no_value() {
        let folder = tempfile::tempdir().unwrap();
        let plain = packing(folder.path(), false).packer(Some(1));
        let packer = packing(folder.path(), true).packer(Some(1));
        let value = b"to be or not to be, ".repeat(100);
        let place = Place { key: b"/k", etag: ETAG, size: value.len() as i64 };
        let row = packed(&packer, &value, &place);
        assert!(unpacked(&packing(folder.path(), true).packer(Some(1)), &row, &place).is_some(), "the key is kept");
        for elsewhere in [
            Place { key: b"/K", ..place },
            Place { etag: Etag { version: 8, ..ETAG }, ..place },
            Place { etag: Etag { created_at: 1, ..ETAG }, ..place },
            Place { size: place.size + 1, ..place },
        ] {
            assert!(unpacked(&packer, &row, &elsewhere).is_none());
        }
        for at in 0..row.1.len() {
            let mut damaged = row.clone();
            damaged.1[at] ^= 1;
            assert!(unpacked(&packer, &damaged, &place).is_none());
        }
        assert!(unpacked(&packer, &(row.0, row.1[..5].to_vec()), &place).is_none());
        for other in [&packing(folder.path(), true).packer(Some(2)), &packing(folder.path(), true).packer(None), &plain] {
            assert!(unpacked(other, &row, &place).is_none());
        }
        assert!(unpacked(&packer, &packed(&plain, &value, &place), &place).is_none(), "what is not sealed");
        std::fs::remove_file(folder.path().join("cache.key")).unwrap();
        assert!(unpacked(&packing(folder.path(), true).packer(Some(1)), &row, &place).is_none(), "the key was lost");
    }

    #[test]
    fn a_wrong_frame_is_no_value_and_takes_no_more_room_than_one() {
        let packer = Packer { compress_from: Some(1), key: None };
        let bomb = packer.squeeze(&vec![0; 8 << 20]).unwrap().to_vec();
        let place = |size| Place { key: b"/k", etag: ETAG, size };
        for size in [0, 100, 1 << 20, 8 << 20, i64::MAX, -1] {
            assert!(unpacked(&packer, &(COMPRESSED, bomb.clone()), &place(size)).is_none(), "{size}");
        }
        assert!(unpacked(&packer, &(COMPRESSED, b"no frame".to_vec()), &place(8)).is_none());
        assert!(matches!(packer.unpack(COMPRESSED, &bomb, &place(1 << 20), true), Unpacked::Later));
    }
}

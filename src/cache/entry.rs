//! An [`Entry`] is what a key holds: bytes with a content type, or the knowledge that there is nothing, until its life
//! ends. [`Found`] is one that a reader gets, with where it was and whether it is still fresh.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Row;

use super::Key;
use super::etag::Etag;
use super::memory::Held;
use super::packing::{Packer, Place, Unpacked};
use super::remember::Source;
use super::terms::{Freshness, Life};
use crate::clock::Millis;

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `None`: what the key stands for is known not to exist.
    pub value: Option<Bytes>,
    /// As it was given with the value.
    pub content_type: Option<String>,
    pub etag: Etag,
    pub life: Life,
    /// Of a remembered answer.
    pub source: Option<Arc<Source>>,
}

/// What a row came to.
pub(super) enum Read {
    Entry(Entry),
    Nothing,
    /// It takes too long for a brief read.
    Later,
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Memory,
    File,
}

/// What a reader found; it dereferences to the [`Entry`].
#[derive(Clone)]
pub struct Found {
    pub(super) held: Arc<Held>,
    pub tier: Tier,
    pub freshness: Freshness,
    /// When it was looked at.
    pub at: Millis,
}

impl Tier {
    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::Memory => "memory",
            Tier::File => "file",
        }
    }
}

impl Deref for Found {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.held.entry
    }
}

/// The columns of [`Entry::read`], of `entries e`.
macro_rules! entry_columns {
    () => {
        "e.version, e.created_at, e.expires_at, e.ends_at, e.sliding_ms, e.swr_ms, e.sie_ms, e.content_type, e.source, e.size, \
         e.encoding, e.value"
    };
}
pub(super) use entry_columns;

impl Entry {
    /// From [`entry_columns`], from the column `first` on; its value as [`Packer::unpack`] has it.
    pub(super) fn read(row: &Row<'_>, first: usize, packer: &Packer, key: &Key, brief: bool) -> rusqlite::Result<Read> {
        let etag = Etag { version: row.get(first)?, created_at: row.get(first + 1)? };
        let place = Place { key: key.as_bytes(), etag, size: row.get(first + 9)? };
        let value = match row.get_ref(first + 11)?.as_blob_or_null()? {
            None => None,
            Some(packed) => match packer.unpack(row.get(first + 10)?, packed, &place, brief) {
                Unpacked::Value(value) => Some(Bytes::from(value)),
                Unpacked::Later => return Ok(Read::Later),
                Unpacked::Wrong => return Ok(Read::Nothing),
            },
        };
        Ok(Read::Entry(Entry {
            etag,
            life: Life {
                expires_at: row.get(first + 2)?,
                ends_at: row.get(first + 3)?,
                sliding_ms: row.get(first + 4)?,
                swr_ms: row.get(first + 5)?,
                sie_ms: row.get(first + 6)?,
            },
            content_type: row.get(first + 7)?,
            source: row.get_ref(first + 8)?.as_blob_or_null()?.and_then(Source::from_bytes).map(Arc::new),
            value,
        }))
    }

    /// Bytes of the value.
    pub fn len(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

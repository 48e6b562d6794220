//! [`Memory`] is the tier in front of the cache files: one for all tenants, bounded in bytes, with a share for each
//! file so that one tenant's reading does not push out everybody else's.
//!
//! - An entry belongs to one opening of a file ([`Database::serial`]): what is restored, purged or made anew under a
//!   tenant never answers with what was there before.
//! - A read puts in what it found, unless the key was written since it began: each write of a key moves the key's
//!   epoch before and after its commit, also when nobody waits for it any more.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::Equivalent;
use moka::sync::Cache;

use super::{Entry, Key};
use crate::clock::now_ms;

/// Values larger than this are read from the file, where they are in the page cache: in bytes.
const VALUE_MAX: usize = 64 << 10;

/// An entry's own cost beside its bytes, about.
const OVERHEAD: usize = 256;

/// An entry nobody read for so long is dropped.
const IDLE: Duration = Duration::from_secs(600);

/// Epochs, each for the keys of one class of hashes.
const EPOCHS: usize = 256;

/// The part of all bytes that one file's entries may have.
const SHARE: u64 = 8;

pub struct Memory {
    entries: Cache<Place, Arc<Entry>>,
    taken: Taken,
    /// A read puts in what it found under its key's lock.
    epochs: [Mutex<u64>; EPOCHS],
    hasher: RandomState,
    share: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// An entry's key in memory.
#[derive(PartialEq, Eq, Hash)]
struct Place {
    file: u64,
    key: Key,
}

/// The same, borrowed.
#[derive(Hash)]
struct At<'a> {
    file: u64,
    key: &'a Key,
}

impl Equivalent<Place> for At<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        self.file == place.file && self.key == &place.key
    }
}

/// Bytes in memory of each file that has some.
type Taken = Arc<Mutex<HashMap<u64, u64>>>;

/// Forgets a key when it is dropped: at the latest when the write of it is settled or given up.
pub(super) struct Forgetting {
    memory: Arc<Memory>,
    file: u64,
    key: Key,
}

/// What shows of it from outside.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct MemoryState {
    pub entries: u64,
    pub bytes: u64,
    pub hits: u64,
    pub misses: u64,
}

impl Memory {
    /// At most `bytes` for all; 0 for none.
    pub fn new(bytes: u64) -> Arc<Memory> {
        let taken = Taken::default();
        let counted = taken.clone();
        let entries = Cache::builder()
            .max_capacity(bytes)
            .weigher(|place: &Place, entry: &Arc<Entry>| u32::try_from(bytes_of(place, entry)).unwrap_or(u32::MAX))
            .time_to_idle(IDLE)
            .eviction_listener(move |place, entry, _| {
                let mut taken = lock(&counted);
                if let Some(bytes) = taken.get_mut(&place.file) {
                    *bytes = bytes.saturating_sub(bytes_of(&place, &entry));
                    if *bytes == 0 {
                        taken.remove(&place.file);
                    }
                }
            })
            .build();
        Arc::new(Memory {
            entries,
            taken,
            epochs: std::array::from_fn(|_| Mutex::new(0)),
            hasher: RandomState::new(),
            share: bytes / SHARE,
            hits: AtomicU64::default(),
            misses: AtomicU64::default(),
        })
    }

    /// What `key` holds, if it is here and not expired.
    pub(super) fn get(&self, file: u64, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.entries.get(&At { file, key }).filter(|entry| entry.expires_at.is_none_or(|at| at > now_ms()));
        let counter = if entry.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Relaxed);
        entry
    }

    /// To be asked before the file is read for [`Memory::fill`].
    pub(super) fn epoch(&self, file: u64, key: &Key) -> u64 {
        *self.lock(file, key)
    }

    /// Puts in what a read found that began when the key's epoch was `before`.
    pub(super) fn fill(&self, file: u64, key: Key, entry: &Arc<Entry>, before: u64) {
        let place = Place { file, key };
        if entry.value.len() > VALUE_MAX {
            return;
        }
        let epoch = self.lock(file, &place.key);
        if *epoch != before {
            return;
        }
        {
            let mut taken = lock(&self.taken);
            let bytes = taken.entry(file).or_default();
            if *bytes + bytes_of(&place, entry) > self.share {
                return;
            }
            *bytes += bytes_of(&place, entry);
        }
        self.entries.insert(place, entry.clone());
    }

    pub(super) fn forget(&self, file: u64, key: &Key) {
        *self.lock(file, key) += 1;
        self.entries.invalidate(&At { file, key });
    }

    /// Forgets `key` now, and again when what is returned is dropped.
    pub(super) fn forgetting(self: &Arc<Self>, file: u64, key: &Key) -> Forgetting {
        self.forget(file, key);
        Forgetting { memory: self.clone(), file, key: key.clone() }
    }

    pub fn state(&self) -> MemoryState {
        MemoryState {
            entries: self.entries.entry_count(),
            bytes: self.entries.weighted_size(),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
        }
    }

    fn lock(&self, file: u64, key: &Key) -> MutexGuard<'_, u64> {
        let class = self.hasher.hash_one(At { file, key }) as usize % EPOCHS;
        lock(&self.epochs[class])
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes_of(place: &Place, entry: &Entry) -> u64 {
    (entry.value.len() + place.key.as_bytes().len() + entry.content_type.as_ref().map_or(0, String::len) + OVERHEAD) as u64
}

impl Drop for Forgetting {
    fn drop(&mut self) {
        self.memory.forget(self.file, &self.key);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::Etag;

    fn entry(value: &str) -> Arc<Entry> {
        let etag = Etag { version: 1, created_at: 1 };
        Arc::new(Entry { value: Bytes::copy_from_slice(value.as_bytes()), content_type: None, etag, expires_at: None })
    }

    fn key(text: &str) -> Key {
        Key::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_read_before_a_write_does_not_come_in_after_it() {
        let memory = Memory::new(1 << 20);
        let before = memory.epoch(1, &key("k"));
        drop(memory.forgetting(1, &key("k")));
        memory.fill(1, key("k"), &entry("old"), before);
        assert!(memory.get(1, &key("k")).is_none());
        let before = memory.epoch(1, &key("k"));
        memory.fill(1, key("k"), &entry("new"), before);
        assert_eq!(memory.get(1, &key("k")).unwrap().value, "new");
        assert!(memory.get(2, &key("k")).is_none(), "another file's key");
        memory.forget(1, &key("k"));
        assert!(memory.get(1, &key("k")).is_none());
    }

    #[test]
    fn one_file_has_a_share_and_gets_it_back() {
        let memory = Memory::new(80_000);
        let value = "x".repeat(1_000);
        let fill = |n: usize| memory.fill(1, key(&n.to_string()), &entry(&value), memory.epoch(1, &key(&n.to_string())));
        (0..100).for_each(fill);
        memory.entries.run_pending_tasks();
        assert_eq!(memory.state().entries, 7, "{:?}", memory.state());
        (0..100).for_each(|n| memory.forget(1, &key(&n.to_string())));
        memory.entries.run_pending_tasks();
        assert!(lock(&memory.taken).is_empty());
        fill(1);
        assert!(memory.get(1, &key("1")).is_some());
    }
}

//! [`Memory`] is the tier in front of the cache files: one for all tenants, bounded in bytes, with a share for each
//! file so that one tenant's reading does not push out everybody else's. It also knows who is filling what ([`Fills`]).
//!
//! - An entry belongs to one opening of a file ([`Database::serial`]): what is restored, purged or made anew under a
//!   tenant never answers with what was there before.
//! - A read puts in what it found, unless the key was written since it began: each write of a key moves the key's
//!   epoch before and after its commit, also when nobody waits for it any more.
//! - What throws away many keys moves the [`Shelf`]'s generation in the same way. An entry of an earlier generation is
//!   looked up in its file again, which knows whether it was among them.
//!
//! [`Database::serial`]: crate::sqlite::Database::serial

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use moka::Equivalent;
use moka::sync::Cache;

use super::boot::Boot;
use super::evict::{Evictor, Made};
use super::fill::Fills;
use super::{Entry, Key};
use crate::clock::Millis;

/// Values larger than this are read from the file, where they are in the page cache: in bytes.
const VALUE_MAX: usize = 64 << 10;

/// An entry's own cost beside its bytes, about.
const OVERHEAD: usize = 320;

/// An entry nobody read for so long is dropped.
const IDLE: Duration = Duration::from_secs(600);

/// Epochs, each for the keys of one class of hashes.
const EPOCHS: usize = 256;

/// The part of all bytes that one file's entries may have.
const SHARE: u64 = 8;

/// Shelves that nobody needs are looked for when there are twice as many as were needed then, and at least so many.
const SHELVES: usize = 256;

pub struct Memory {
    entries: Cache<Place, Arc<Held>>,
    shelves: RwLock<Shelves>,
    /// A read puts in what it found under its key's lock.
    epochs: [Mutex<u64>; EPOCHS],
    hasher: RandomState,
    share: u64,
    fills: Arc<Fills>,
    boot: Boot,
}

/// What the process knows of one opening of a cache file. Kept while somebody uses it or it has entries in memory.
#[derive(Default)]
pub(super) struct Shelf {
    /// Bytes of its entries in memory.
    bytes: AtomicU64,
    generation: AtomicU64,
    /// What the file holds was written in this run of the machine.
    trusted: AtomicBool,
    memory_hits: AtomicU64,
    file_hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    spared: AtomicU64,
    evictor: Evictor,
}

struct Shelves {
    of: HashMap<u64, Arc<Shelf>>,
    /// How many there may be until unneeded ones are looked for.
    prune_at: usize,
}

/// An entry with the shelf it came from, and the shelf's generation before it was read.
pub(super) struct Held {
    pub(super) entry: Entry,
    shelf: Arc<Shelf>,
    generation: u64,
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

/// What a read of the file has to know before it begins.
pub(super) struct Reading {
    shelf: Arc<Shelf>,
    generation: u64,
    epoch: u64,
}

/// Keys that a write may change; forgotten when this is dropped: at the latest when the write is settled or given up.
pub(super) struct Forgetting {
    memory: Arc<Memory>,
    file: u64,
    keys: Arc<[Key]>,
}

/// The same for all keys of a file.
pub(super) struct Doubting(Arc<Shelf>);

/// What the tier did for one file, since this process opened it.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Counts {
    pub memory_hits: u64,
    pub file_hits: u64,
    pub misses: u64,
    /// Entries that had to make room.
    pub evicted: u64,
    /// Times that an entry would have had to, but was read lately.
    pub spared: u64,
    /// Bytes of its entries in memory.
    pub memory_bytes: u64,
}

impl Memory {
    /// At most `bytes` for all; 0 for none.
    pub fn new(bytes: u64) -> Arc<Memory> {
        let entries = Cache::builder()
            .max_capacity(bytes)
            .weigher(|place: &Place, held: &Arc<Held>| u32::try_from(bytes_of(&place.key, &held.entry)).unwrap_or(u32::MAX))
            .time_to_idle(IDLE)
            .eviction_listener(|place: Arc<Place>, held: Arc<Held>, _| {
                held.shelf.bytes.fetch_sub(bytes_of(&place.key, &held.entry), Relaxed);
            })
            .build();
        Arc::new(Memory {
            entries,
            shelves: RwLock::new(Shelves { of: HashMap::new(), prune_at: SHELVES }),
            epochs: std::array::from_fn(|_| Mutex::new(0)),
            hasher: RandomState::new(),
            share: bytes / SHARE,
            fills: Arc::default(),
            boot: Boot::current(),
        })
    }

    /// What `key` holds, if it is here and of use to anybody.
    pub(super) fn get(&self, file: u64, key: &Key, now: Millis) -> Option<Arc<Held>> {
        let held = self.entries.get(&At { file, key })?;
        let valid = held.generation == held.shelf.generation.load(SeqCst) && held.entry.life.gone_at().is_none_or(|at| at > now);
        valid.then(|| {
            held.shelf.memory_hits.fetch_add(1, Relaxed);
            held.shelf.evictor.uses().note(key);
            held
        })
    }

    /// To be taken before the file is read for [`Memory::fill`].
    pub(super) fn reading(&self, file: u64, key: &Key) -> Reading {
        let shelf = self.shelf(file);
        Reading { generation: shelf.generation.load(SeqCst), epoch: *self.lock(file, key), shelf }
    }

    /// Puts in what a read found, if its key was not written since it began.
    pub(super) fn fill(&self, file: u64, key: Key, entry: Entry, reading: Reading) -> Arc<Held> {
        let Reading { shelf, generation, epoch } = reading;
        shelf.file_hits.fetch_add(1, Relaxed);
        shelf.evictor.uses().note(&key);
        let bytes = bytes_of(&key, &entry);
        let held = Arc::new(Held { entry, shelf, generation });
        if held.entry.len() > VALUE_MAX {
            return held;
        }
        let place = Place { file, key };
        let now = self.lock(file, &place.key);
        if *now != epoch {
            return held;
        }
        if held.shelf.bytes.fetch_add(bytes, Relaxed) + bytes > self.share {
            held.shelf.bytes.fetch_sub(bytes, Relaxed);
            return held;
        }
        self.entries.insert(place, held.clone());
        held
    }

    /// Forgets `keys` now, and again when what is returned is dropped.
    pub(super) fn forgetting(self: &Arc<Self>, file: u64, keys: Arc<[Key]>) -> Forgetting {
        let forgetting = Forgetting { memory: self.clone(), file, keys };
        forgetting.forget();
        forgetting
    }

    /// Doubts all entries of a file now, and again when what is returned is dropped.
    pub(super) fn doubting(&self, file: u64) -> Doubting {
        let doubting = Doubting(self.shelf(file));
        doubting.doubt();
        doubting
    }

    /// What is known of an opening of a file.
    pub(super) fn shelf(&self, file: u64) -> Arc<Shelf> {
        if let Some(shelf) = self.shelves.read().unwrap_or_else(PoisonError::into_inner).of.get(&file) {
            return shelf.clone();
        }
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        if shelves.of.len() >= shelves.prune_at {
            // A shelf whose generation is forgotten must have no entry that still compares with it.
            shelves.of.retain(|_, shelf| Arc::strong_count(shelf) > 1);
            shelves.prune_at = SHELVES.max(shelves.of.len() * 2);
        }
        shelves.of.entry(file).or_default().clone()
    }

    /// Who is filling what.
    pub(super) fn fills(&self) -> &Arc<Fills> {
        &self.fills
    }

    pub(super) fn boot(&self) -> &Boot {
        &self.boot
    }

    /// Ends all waiting for fills, now and from now on.
    pub fn close(&self) {
        self.fills.close();
    }

    fn lock(&self, file: u64, key: &Key) -> MutexGuard<'_, u64> {
        let class = self.hasher.hash_one(At { file, key }) as usize % EPOCHS;
        self.epochs[class].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(SeqCst)
    }

    pub(super) fn trust(&self) {
        self.trusted.store(true, SeqCst);
    }

    /// The file is being made anew.
    pub(super) fn distrust(&self) {
        self.trusted.store(false, SeqCst);
    }

    pub(super) fn missed(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    pub(super) fn evictor(&self) -> &Evictor {
        &self.evictor
    }

    pub(super) fn made_room(&self, made: Made) {
        self.evicted.fetch_add(made.evicted.into(), Relaxed);
        self.spared.fetch_add(made.spared.into(), Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            memory_hits: self.memory_hits.load(Relaxed),
            file_hits: self.file_hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            spared: self.spared.load(Relaxed),
            memory_bytes: self.bytes.load(Relaxed),
        }
    }
}

impl Reading {
    pub(super) fn is_trusted(&self) -> bool {
        self.shelf.is_trusted()
    }

    /// There was nothing.
    pub(super) fn missed(self) {
        self.shelf.missed();
    }
}

impl Forgetting {
    fn forget(&self) {
        for key in &*self.keys {
            *self.memory.lock(self.file, key) += 1;
            self.memory.entries.invalidate(&At { file: self.file, key });
        }
    }
}

impl Drop for Forgetting {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Doubting {
    fn doubt(&self) {
        self.0.generation.fetch_add(1, SeqCst);
    }
}

impl Drop for Doubting {
    fn drop(&mut self) {
        self.doubt();
    }
}

fn bytes_of(key: &Key, entry: &Entry) -> u64 {
    (entry.len()
        + key.as_bytes().len()
        + entry.content_type.as_ref().map_or(0, String::len)
        + entry.source.as_ref().map_or(0, |source| source.len())
        + OVERHEAD) as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::Etag;
    use crate::cache::terms::Life;

    fn entry(value: &str) -> Entry {
        let etag = Etag { version: 1, created_at: 1 };
        Entry { value: Some(Bytes::copy_from_slice(value.as_bytes())), content_type: None, etag, life: Life::default(), source: None }
    }

    fn key(text: &str) -> Key {
        Key::parse(text.as_bytes()).unwrap()
    }

    fn get(memory: &Memory, file: u64, text: &str) -> Option<Bytes> {
        memory.get(file, &key(text), 0).and_then(|held| held.entry.value.clone())
    }

    fn fill(memory: &Memory, file: u64, text: &str, value: &str) {
        memory.fill(file, key(text), entry(value), memory.reading(file, &key(text)));
    }

    #[test]
    fn what_was_read_before_a_write_does_not_come_in_after_it() {
        let memory = Memory::new(1 << 20);
        let before = memory.reading(1, &key("k"));
        drop(memory.forgetting(1, [key("k")].into()));
        memory.fill(1, key("k"), entry("old"), before);
        assert_eq!(get(&memory, 1, "k"), None);
        fill(&memory, 1, "k", "new");
        assert_eq!(get(&memory, 1, "k").unwrap(), "new");
        assert_eq!(get(&memory, 2, "k"), None, "another file's key");
        drop(memory.forgetting(1, [key("k")].into()));
        assert_eq!(get(&memory, 1, "k"), None);
    }

    #[test]
    fn what_was_read_before_many_were_thrown_away_is_looked_up_again() {
        let memory = Memory::new(1 << 20);
        fill(&memory, 1, "before", "v");
        fill(&memory, 2, "elsewhere", "v");
        let begun = memory.reading(1, &key("during"));
        let doubting = memory.doubting(1);
        fill(&memory, 1, "meanwhile", "v");
        drop(doubting);
        memory.fill(1, key("during"), entry("v"), begun);
        assert!(["before", "during", "meanwhile"].iter().all(|text| get(&memory, 1, text).is_none()));
        fill(&memory, 1, "before", "v");
        assert!(get(&memory, 1, "before").is_some() && get(&memory, 2, "elsewhere").is_some());
    }

    #[test]
    fn one_file_has_a_share_and_gets_it_back() {
        let memory = Memory::new(80_000);
        let value = "x".repeat(1_000);
        (0..100).for_each(|n| fill(&memory, 1, &n.to_string(), &value));
        memory.entries.run_pending_tasks();
        assert_eq!(memory.entries.entry_count(), 7);
        (0..100).for_each(|n| drop(memory.forgetting(1, [key(&n.to_string())].into())));
        memory.entries.run_pending_tasks();
        assert_eq!(memory.shelf(1).counts().memory_bytes, 0);
        fill(&memory, 1, "1", &value);
        assert!(get(&memory, 1, "1").is_some());
    }

    #[test]
    fn shelves_that_nobody_needs_are_forgotten_and_no_others() {
        let memory = Memory::new(1 << 20);
        fill(&memory, 0, "k", "v");
        let used = memory.shelf(1);
        (2..10_000).for_each(|file| drop(memory.shelf(file)));
        assert!(memory.shelves.read().unwrap().of.len() <= SHELVES + 2);
        drop(memory.doubting(0));
        assert_eq!(get(&memory, 0, "k"), None);
        used.missed();
        assert_eq!(memory.shelf(1).counts().misses, 1);
    }
}

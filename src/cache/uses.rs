//! [`Uses`] are which keys of a file were read since they were spared last: what eviction asks before it deletes an entry. A
//! hint, kept in memory only and bounded: in place of a key stands a tag of 16 bits, four to a bucket, of which a fifth pushes
//! out the first. So an entry may be deleted though it was read; one that was not is spared in one of 16,000 cases.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Key;

/// 16 KiB for each file of which something was read, for 8,192 keys.
const BUCKETS: usize = 2_048;

/// Where each of a bucket's tags begins, in bits.
const TAGS: [u32; 4] = [0, 16, 32, 48];

#[derive(Default)]
pub(super) struct Uses {
    /// 0: no tag.
    buckets: OnceLock<Box<[AtomicU64; BUCKETS]>>,
    hasher: RandomState,
}

impl Uses {
    /// The key was read.
    pub(super) fn note(&self, key: &Key) {
        let buckets = self.buckets.get_or_init(|| Box::new([const { AtomicU64::new(0) }; BUCKETS]));
        let (bucket, tag) = self.place(key.as_bytes());
        let held = buckets[bucket].load(Relaxed);
        if at(held, tag).is_none() {
            // Of two at once one is forgotten.
            buckets[bucket].store(held << 16 | tag, Relaxed);
        }
    }

    /// Whether the key was read; from now on it was not.
    pub(super) fn take(&self, key: &[u8]) -> bool {
        let Some(buckets) = self.buckets.get() else { return false };
        let (bucket, tag) = self.place(key);
        let held = buckets[bucket].load(Relaxed);
        let found = at(held, tag);
        if let Some(shift) = found {
            buckets[bucket].store(held & !(0xffff << shift), Relaxed);
        }
        found.is_some()
    }

    fn place(&self, key: &[u8]) -> (usize, u64) {
        let hash = self.hasher.hash_one(key);
        ((hash >> 16) as usize % BUCKETS, (hash & 0xffff).max(1))
    }
}

/// Where in a bucket a tag is.
fn at(bucket: u64, tag: u64) -> Option<u32> {
    TAGS.into_iter().find(|shift| bucket >> shift & 0xffff == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key::parse(n.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_was_read_is_known_once_and_little_else() {
        let uses = Uses::default();
        assert!(!uses.take(key(1).as_bytes()));
        for _ in 0..3 {
            (0..1_000).for_each(|n| uses.note(&key(n)));
        }
        let taken = |keys: std::ops::Range<u32>| keys.filter(|&n| uses.take(key(n).as_bytes())).count();
        assert!(taken(1_000..11_000) < 20);
        assert!(taken(0..1_000) > 970);
        assert_eq!(taken(0..1_000), 0);
    }

    #[test]
    fn the_latest_of_very_many_are_remembered() {
        let uses = Uses::default();
        (0..100_000).for_each(|n| uses.note(&key(n)));
        let taken = |keys: std::ops::Range<u32>| keys.filter(|&n| uses.take(key(n).as_bytes())).count();
        assert!(taken(99_000..100_000) > 900);
        assert!(taken(0..50_000) < 200);
    }
}

//! A [`Cache`] is a tenant's cache file, with the process's [`Memory`] in front of it, seen as keys and [`Entry`]s:
//! bytes with a content type, until they expire. Everything in it can be made again, so its file commits without waiting for the disk.
//!
//! - Reading writes nothing. An expired entry is a miss at once; later writes sweep it, [`SWEPT`] at a time.
//! - An entry's [`Etag`] is never given to another content, also when the whole file was made anew.
//! - The file stays inside its plan: a write that finds too little room deletes what expires soonest and
//!   then what was written longest ago, in commits of at most [`EVICTED`] entries, and gives up after
//!   [`ROUNDS`] of them. A value that could never fit evicts nothing.

mod etag;
mod key;
mod memory;
mod ttl;

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::params;

pub use etag::{Etag, Unless};
pub use key::{KEY_BYTES, Key, NAMESPACE_BYTES, Namespace};
pub use memory::{Memory, MemoryState};
pub use ttl::{TTL_MAX_S, Ttl};

use crate::clock::{Millis, now_ms};
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, Limits, WriteTx, has_room};

/// The longest value, in bytes. Larger things belong into an object store, with their address in here.
pub const VALUE_BYTES: usize = 1 << 20;

/// The longest content type, in bytes.
pub const CONTENT_TYPE_BYTES: usize = 255;

/// Expired entries deleted by each write: more than one, so that sweeping gains on writing.
const SWEPT: u32 = 8;

/// Entries deleted by one commit that makes room, [`EVICTED_AT_ONCE`] between two looks at the room.
const EVICTED: u32 = 256;
const EVICTED_AT_ONCE: u32 = 8;

/// Commits that make room for one write before it is refused.
const ROUNDS: u32 = 64;

/// Pages kept free beside a value's own: for its row, its index entry and the splits they may cause.
const SPARE_PAGES: u64 = 16;

/// The cache engine over one file. Borrows the file for a call; the file keeps everything there is to know.
pub struct Cache<'a> {
    file: &'a Arc<Database>,
    memory: &'a Arc<Memory>,
    limits: Limits,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub value: Bytes,
    /// As it was given with the value.
    pub content_type: Option<String>,
    pub etag: Etag,
    /// The instant from which on the entry is a miss; `None` for never.
    pub expires_at: Option<Millis>,
}

/// What one commit of [`Cache::put`] came to.
enum Put {
    Stored(Etag),
    /// Room was made but not enough yet; what was evicted stays evicted.
    Evicted,
    /// Nothing is left to evict.
    NoRoom,
}

impl<'a> Cache<'a> {
    pub fn new(file: &'a Arc<Database>, memory: &'a Arc<Memory>) -> Self {
        Cache { file, memory, limits: Limits::default() }
    }

    /// What `key` holds, if it is there and not expired.
    pub async fn get(&self, key: Key) -> Result<Option<Arc<Entry>>> {
        let serial = self.file.serial();
        if let Some(entry) = self.memory.get(serial, &key) {
            return Ok(Some(entry));
        }
        let (epoch, asked) = (self.memory.epoch(serial, &key), key.clone());
        let found =
            self.file.read_brief(self.limits, 0, move |r| r.row(GET, params![asked.as_bytes(), now_ms()], entry)).await?.map(Arc::new);
        if let Some(found) = &found {
            self.memory.fill(serial, key, found, epoch);
        }
        Ok(found)
    }

    /// Sets `key`, whatever it held, for `ttl` (for good without). Errors: `payload_too_large` past
    /// [`VALUE_BYTES`], `quota_exceeded` when the plan's bytes leave no room after evicting.
    pub async fn put(&self, key: Key, value: Bytes, content_type: Option<String>, ttl: Option<Ttl>) -> Result<Etag> {
        if value.len() > VALUE_BYTES {
            return Err(Error::new(Code::PayloadTooLarge, format!("a cached value has at most {VALUE_BYTES} bytes"))
                .hint("Keep large things in an object store and cache their address."));
        }
        let content_type: Option<Arc<str>> = content_type.map(Arc::from);
        for _ in 0..ROUNDS {
            let (at, value, content_type) = (key.clone(), value.clone(), content_type.clone());
            match self.write(&key, move |tx| put(tx, &at, &value, content_type.as_deref(), ttl, now_ms())).await? {
                Put::Stored(etag) => return Ok(etag),
                Put::Evicted => continue,
                Put::NoRoom => break,
            }
        }
        Err(full())
    }

    /// Forgets `key`, if it is there.
    pub async fn delete(&self, key: Key) -> Result<()> {
        let at = key.clone();
        self.write(&key, move |tx| tx.execute(DELETE, params![at.as_bytes()]).map(drop)).await
    }

    /// Memory forgets the key before the write and before its answer; and with the job, which may outlive whoever asked
    /// for it.
    async fn write<T: Send + 'static>(&self, key: &Key, mut step: impl FnMut(&WriteTx<'_>) -> Result<T> + Send + 'static) -> Result<T> {
        let _answered = self.memory.forgetting(self.file.serial(), key);
        let over = self.memory.forgetting(self.file.serial(), key);
        let job = move |tx: &WriteTx<'_>| {
            let _ = &over;
            step(tx)
        };
        self.file.write(self.limits, job).await
    }
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        etag: Etag { version: row.get(0)?, created_at: row.get(1)? },
        expires_at: row.get(2)?,
        content_type: row.get(3)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(4)?),
    })
}

fn full() -> Error {
    Error::new(Code::QuotaExceeded, "the cache has no room for this value under the tenant's plan")
        .hint("Store a smaller value, or give the tenant a plan with more cache_bytes.")
}

fn put(tx: &WriteTx<'_>, key: &Key, value: &[u8], content_type: Option<&str>, ttl: Option<Ttl>, now: Millis) -> Result<Put> {
    tx.execute(SWEEP, params![now, SWEPT])?;
    let (page_bytes, max_pages) = tx.page_bounds();
    // An overflow page spends four bytes on the address of the next.
    let pages = (value.len() as u64).div_ceil(page_bytes - 4) + SPARE_PAGES;
    if max_pages < pages {
        return Ok(Put::NoRoom);
    }
    let mut evicted = 0;
    while !has_room(tx, pages, 0)? {
        if evicted >= EVICTED {
            return Ok(Put::Evicted);
        }
        match evict(tx, EVICTED_AT_ONCE)? {
            0 if evicted == 0 => return Ok(Put::NoRoom),
            0 => return Ok(Put::Evicted),
            gone => evicted += gone,
        }
    }
    tx.execute(TICK, [])?;
    let etag = Etag { version: tx.row(CLOCK, [], |row| row.get(0))?.unwrap_or_default(), created_at: now };
    let expires_at = ttl.map(|ttl| ttl.from(now));
    let size = value.len() as i64;
    tx.execute(PUT, params![key.as_bytes(), etag.version, now, expires_at, size, content_type, value])?;
    Ok(Put::Stored(etag))
}

/// Deletes at most `count` entries, those that expire soonest before those written longest ago; how many it were.
fn evict(tx: &WriteTx<'_>, count: u32) -> Result<u32> {
    let soonest = tx.execute(SOONEST_GONE, [count])?;
    let gone = if soonest > 0 { soonest } else { tx.execute(LONGEST_THERE, [count])? };
    Ok(gone as u32)
}

const GET: &str = "SELECT version, created_at, expires_at, content_type, value FROM entries
     WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2)";

const DELETE: &str = "DELETE FROM entries WHERE key = ?1";

const SWEEP: &str = "DELETE FROM entries WHERE version IN
     (SELECT version FROM entries WHERE gone_at <= ?1 ORDER BY gone_at LIMIT ?2)";

const SOONEST_GONE: &str = "DELETE FROM entries WHERE version IN
     (SELECT version FROM entries WHERE gone_at IS NOT NULL ORDER BY gone_at LIMIT ?1)";

const LONGEST_THERE: &str = "DELETE FROM entries WHERE version IN (SELECT version FROM entries ORDER BY version LIMIT ?1)";

const TICK: &str = "UPDATE clock SET version = version + 1 WHERE one = 1";

const CLOCK: &str = "SELECT version FROM clock WHERE one = 1";

/// Replacing takes the old row away.
const PUT: &str = "INSERT OR REPLACE INTO entries (key, version, created_at, expires_at, gone_at, size, content_type, value)
     VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Executor, Level, Sqlite};
    use crate::sqlite::{Engine, Gate, Migrations, Options, Party};

    fn file(dir: &tempfile::TempDir) -> Arc<Database> {
        let schema = ("0001_entries.up.sql", include_str!("../migrations/tenant/cache/0001_entries.up.sql"));
        let migrations = Migrations::from_files("cache", [schema]).unwrap();
        let options = Options {
            level: Level::Off,
            max_bytes: 0,
            party: Party::SYSTEM,
            migrations: migrations.into(),
            keep_before: None,
            sandboxed: false,
            create: true,
            held: Arc::default(),
        };
        Database::new(&Engine::start(&Sqlite::default(), &Executor::default()), &Gate::new(), dir.path().join("cache.sqlite"), options)
    }

    #[tokio::test]
    async fn expired_entries_are_swept_by_later_writes_a_few_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        let count = async || {
            let count = |r: &crate::sqlite::Reader<'_>| r.row("SELECT count(*) FROM entries", [], |row| row.get::<_, u32>(0));
            file.read(Limits::default(), count).await.unwrap().unwrap()
        };
        let set = async |from: u32, count: u32, at: Millis| {
            let write = move |tx: &WriteTx<'_>| {
                for n in from..from + count {
                    put(tx, &Key::parse(n.to_string().as_bytes())?, b"v", None, Some(Ttl::parse("10")?), at)?;
                }
                Ok(())
            };
            file.write(Limits::default(), write).await.unwrap();
        };
        set(0, 20, 0).await;
        set(100, 1, 9_999).await;
        assert_eq!(count().await, 21);
        set(101, 1, 10_000).await;
        assert_eq!(count().await, 22 - SWEPT);
        set(102, 2, 10_000).await;
        assert_eq!(count().await, 4);
    }

    #[tokio::test]
    async fn an_entry_is_replaced_whole_under_a_new_etag() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        let (memory, key) = (Memory::new(1 << 20), Key::parse(b"k").unwrap());
        let cache = Cache::new(&file, &memory);
        let first = cache.put(key.clone(), "one".into(), Some("text/plain".to_owned()), Some(Ttl::parse("60").unwrap())).await.unwrap();
        let second = cache.put(key.clone(), "two".into(), None, None).await.unwrap();
        assert_ne!(first, second);
        let entry = cache.get(key.clone()).await.unwrap().unwrap();
        assert_eq!(*entry, Entry { value: "two".into(), content_type: None, etag: second, expires_at: None });
        cache.delete(key.clone()).await.unwrap();
        assert_eq!(cache.get(key).await.unwrap(), None);
    }
}

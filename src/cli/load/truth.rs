//! The [`Truth`] is what the tenants must hold: what a run wrote, or can compute. Every answer is checked against it
//! while the load runs, and every file at the end.
//!
//! - Seeded rows are computed from the tenant's number and the row's, so one tenant's rows are nobody else's.
//! - Inserts, jobs and cached values carry a stamp that no other write of the run has.
//! - A seeded row's counter and a cache key are written by one connection each. So the next value of the counter is
//!   known exactly, and a cached value may never be older than the last one acknowledged before it was asked for.
//! - A write that got no answer may have happened or not: it is remembered as such, and either is right.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What fills a value up: bytes that JSON need not escape.
const FILLER: &str = "the quick brown fox jumps over the lazy dog and runs";

/// Bytes of a cached value.
const CACHED_BYTES: usize = 512;

/// Rows on a page.
pub const PAGE: usize = 20;

/// Stamps of one run, so that the ids of its inserts stay apart from every other run's.
const STAMPS: i64 = 1 << 31;

/// Instead of a stamp: a write that got no answer may still come to pass.
const GIVEN_UP: u64 = u64::MAX;

pub struct Truth {
    /// Which run it is: the second it began in, since the Unix epoch.
    pub run: i64,
    /// Seeded rows of each tenant.
    pub rows: usize,
    next_stamp: AtomicU64,
    tenants: Box<[Ledger]>,
    /// Stamps of the jobs handed out.
    handed_out: Mutex<HashSet<u64>>,
}

/// What one tenant was given.
pub struct Ledger {
    pub inserts: Writes,
    pub jobs: Writes,
    pub handed_out: Writes,
    /// Additions to counters, each of 1.
    pub updates: Writes,
    /// For each connection's cache key the stamp last acknowledged; 0 for none, [`GIVEN_UP`] for who knows.
    cached: Box<[AtomicU64]>,
}

/// Writes of one kind that were acknowledged, by number and sum of stamps; and those nobody knows of.
#[derive(Default)]
pub struct Writes {
    acknowledged: AtomicU64,
    sum: AtomicU64,
    unknown: Mutex<Vec<u64>>,
}

impl Writes {
    pub fn acknowledge(&self, stamp: u64) {
        self.acknowledged.fetch_add(1, Relaxed);
        self.sum.fetch_add(stamp, Relaxed);
    }

    pub fn lose_sight_of(&self, stamp: u64) {
        lock(&self.unknown).push(stamp);
    }

    /// Number and sum of stamps.
    pub fn acknowledged(&self) -> (u64, u64) {
        (self.acknowledged.load(Relaxed), self.sum.load(Relaxed))
    }

    pub fn unknown(&self) -> Vec<u64> {
        lock(&self.unknown).clone()
    }
}

impl Truth {
    pub fn new(run: i64, tenants: usize, rows: usize, connections: usize) -> Truth {
        let ledger = |_| Ledger {
            inserts: Writes::default(),
            jobs: Writes::default(),
            handed_out: Writes::default(),
            updates: Writes::default(),
            cached: (0..connections).map(|_| AtomicU64::new(0)).collect(),
        };
        Truth { run, rows, next_stamp: AtomicU64::new(1), tenants: (0..tenants).map(ledger).collect(), handed_out: Mutex::default() }
    }

    /// A number no other write of this run has.
    pub fn stamp(&self) -> u64 {
        self.next_stamp.fetch_add(1, Relaxed)
    }

    /// What the tenant of this index was given.
    pub fn of(&self, tenant: usize) -> &Ledger {
        &self.tenants[tenant]
    }

    /// The ids of this run's inserts begin above this one, by their stamps.
    pub fn first_id(&self) -> i64 {
        self.run * STAMPS
    }

    pub fn last_id(&self) -> i64 {
        self.first_id() + STAMPS - 1
    }

    /// The queue of this run.
    pub fn queue(&self) -> String {
        format!("load-{}", self.run)
    }

    /// Notes that a job was handed out; false if it was before.
    pub fn hand_out(&self, tenant: usize, stamp: u64) -> bool {
        let first = lock(&self.handed_out).insert(stamp);
        if first {
            self.of(tenant).handed_out.acknowledge(stamp);
        }
        first
    }

    pub fn was_handed_out(&self, stamp: u64) -> bool {
        lock(&self.handed_out).contains(&stamp)
    }

    /// The stamp a cache key holds at least; 0 when nothing is known to be there.
    pub fn cached(&self, tenant: usize, key: usize) -> u64 {
        self.of(tenant).cached[key].load(Relaxed)
    }

    pub fn cache(&self, tenant: usize, key: usize, stamp: u64) {
        // Written by one connection, so nobody comes between.
        if self.cached(tenant, key) != GIVEN_UP {
            self.of(tenant).cached[key].store(stamp, Relaxed);
        }
    }

    /// Nothing is known of this key for the rest of the run.
    pub fn give_up_cached(&self, tenant: usize, key: usize) {
        self.of(tenant).cached[key].store(GIVEN_UP, Relaxed);
    }

    /// A key that is known to hold something, `from` or the next one that does.
    pub fn cached_key(&self, tenant: usize, from: usize) -> Option<usize> {
        let cached = &self.of(tenant).cached;
        (0..cached.len()).map(|step| (from + step) % cached.len()).find(|&key| !matches!(cached[key].load(Relaxed), 0 | GIVEN_UP))
    }

    /// The text a cache key holds with this stamp.
    pub fn cached_text(&self, number: usize, key: usize, stamp: u64) -> String {
        let mut text = self.cached_head(number, key);
        text.push_str(&format!("{stamp}/"));
        text.extend(FILLER.bytes().cycle().take(CACHED_BYTES.saturating_sub(text.len())).map(char::from));
        text
    }

    /// The stamp in a cached text, if it is one that this run wrote there.
    pub fn cached_stamp(&self, number: usize, key: usize, text: &[u8]) -> Option<u64> {
        let rest = text.strip_prefix(self.cached_head(number, key).as_bytes())?;
        let digits = rest.split(|byte| *byte == b'/').next()?;
        let stamp = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (self.cached_text(number, key, stamp).as_bytes() == text && stamp < self.next_stamp.load(Relaxed)).then_some(stamp)
    }

    fn cached_head(&self, number: usize, key: usize) -> String {
        format!("tenant {number} key {key} run {} stamp ", self.run)
    }
}

/// What brings a tenant's database into the state a run begins with, whatever was there of earlier runs.
pub fn seed(number: usize, rows: usize) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS load_items (id INTEGER PRIMARY KEY, v TEXT NOT NULL, n INTEGER NOT NULL) STRICT;
         CREATE TABLE IF NOT EXISTS load_inserts (id INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT;
         DELETE FROM load_inserts;
         DELETE FROM load_items WHERE id > {rows};
         INSERT INTO load_items
           WITH RECURSIVE ids(id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM ids WHERE id < {rows})
           SELECT id, format('%06d/%06d/%s', {number}, id, '{FILLER}'), 0 FROM ids WHERE true
           ON CONFLICT (id) DO UPDATE SET v = excluded.v, n = 0 WHERE n <> 0 OR v <> excluded.v;"
    )
}

/// The text in a seeded row.
pub fn item(out: &mut String, number: usize, row: usize) {
    let _ = write!(out, "{number:06}/{row:06}/{FILLER}");
}

/// The text in an inserted row.
pub fn inserted(number: usize, stamp: u64) -> String {
    format!("{number:06}+{stamp}/{FILLER}")
}

/// Counts this run's inserts, sums up their stamps, and counts those whose text is not [`inserted`]. Parameters: the
/// run's first and last id, the tenant's number.
pub fn count_inserts() -> String {
    format!(
        "SELECT count(*), coalesce(sum(id - ?1), 0), coalesce(sum(v IS NOT format('%06d+%d/%s', ?3, id - ?1, '{FILLER}')), 0)
         FROM load_inserts WHERE id BETWEEN ?1 AND ?2"
    )
}

/// A poisoned lock's content is as good as before: nothing here panics half way.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(number: usize, rows: usize) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch(&seed(number, rows)).unwrap();
        conn
    }

    #[test]
    fn seeded_rows_are_what_they_are_computed_to_be() {
        let conn = database(42, 7);
        let found: Vec<String> = conn
            .prepare("SELECT v FROM load_items ORDER BY id")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let computed = |row| {
            let mut text = String::new();
            item(&mut text, 42, row);
            text
        };
        assert_eq!(found, (1..=7).map(computed).collect::<Vec<_>>());
    }

    #[test]
    fn seeding_again_brings_everything_back() {
        let conn = database(1, 5);
        conn.execute_batch("UPDATE load_items SET n = 3, v = 'x' WHERE id = 2; INSERT INTO load_inserts VALUES (9, 'old')").unwrap();
        conn.execute_batch(&seed(1, 3)).unwrap();
        let left: (i64, i64, i64) = conn
            .query_row("SELECT count(*), sum(n), (SELECT count(*) FROM load_inserts) + sum(v = 'x') FROM load_items", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(left, (3, 0, 0));
    }

    #[test]
    fn inserts_are_counted_by_run_and_a_changed_one_shows() {
        let conn = database(3, 1);
        let truth = Truth::new(1_800_000_000, 1, 1, 1);
        for stamp in [1, 5] {
            conn.execute("INSERT INTO load_inserts VALUES (?1, ?2)", (truth.first_id() + stamp as i64, inserted(3, stamp))).unwrap();
        }
        conn.execute("INSERT INTO load_inserts VALUES (7, 'of another run')", []).unwrap();
        let count = || -> (i64, i64, i64) {
            let bounds = (truth.first_id(), truth.last_id(), 3);
            conn.query_row(&count_inserts(), bounds, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
        };
        assert_eq!(count(), (2, 6, 0));
        conn.execute("UPDATE load_inserts SET v = 'changed' WHERE id > 7", []).unwrap();
        assert_eq!(count(), (2, 6, 2));
    }

    #[test]
    fn a_cached_text_is_known_by_tenant_key_run_and_stamp() {
        let truth = Truth::new(9, 1, 1, 4);
        let stamp = truth.stamp();
        let text = truth.cached_text(1, 2, stamp);
        assert_eq!(text.len(), CACHED_BYTES);
        assert_eq!(truth.cached_stamp(1, 2, text.as_bytes()), Some(stamp));
        assert_eq!(truth.cached_stamp(2, 2, text.as_bytes()), None);
        assert_eq!(truth.cached_stamp(1, 3, text.as_bytes()), None);
        assert_eq!(truth.cached_stamp(1, 2, &text.as_bytes()[..500]), None);
        assert_eq!(truth.cached_stamp(1, 2, truth.cached_text(1, 2, stamp + 1).as_bytes()), None, "never written");
        assert_eq!(truth.cached_key(0, 1), None);
        truth.cache(0, 2, stamp);
        assert_eq!((truth.cached_key(0, 3), truth.cached_key(0, 0)), (Some(2), Some(2)));
        truth.give_up_cached(0, 2);
        truth.cache(0, 2, stamp);
        assert_eq!(truth.cached_key(0, 0), None);
    }

    #[test]
    fn a_job_is_handed_out_once() {
        let truth = Truth::new(9, 1, 1, 1);
        assert!(truth.hand_out(0, 5) && !truth.hand_out(0, 5));
        assert_eq!(truth.of(0).handed_out.acknowledged(), (1, 5));
    }
}

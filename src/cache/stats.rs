//! [`Stats`]: how much a cache holds, and how well its tiers served.

use super::Counts;
use crate::error::Result;
use crate::sqlite::Reader;

/// The most entries that are counted; past that the number is this one and one more.
pub const COUNTED: i64 = 100_000;

#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// In the file, expired and thrown away ones too until they are swept; see [`COUNTED`].
    pub entries: i64,
    /// Of the file that hold something, in bytes.
    pub bytes: i64,
    /// Since this process opened the file.
    pub counts: Counts,
}

pub(super) fn stats(reader: &Reader<'_>, counts: Counts) -> Result<Stats> {
    let number = |sql: &str| -> Result<i64> { Ok(reader.row(sql, [], |row| row.get(0))?.unwrap_or(0)) };
    let entries = reader.row(ENTRIES, [COUNTED + 1], |row| row.get(0))?.unwrap_or(0);
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(Stats { entries, bytes: pages * number("PRAGMA page_size")?, counts })
}

const ENTRIES: &str = "SELECT count(*) FROM (SELECT 1 FROM entries LIMIT ?1)";

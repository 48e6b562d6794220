//! [`Room`] is how far a file is from its plan's bytes, in pages, as the transaction that asks sees it.

use super::Reader;
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub page_bytes: u64,
    /// The most pages the file may have.
    pub max_pages: u64,
    /// Pages that can still be written: those never made, and those that deleting gave back.
    pub free_pages: u64,
}

impl Room {
    /// Three header fields, no I/O.
    pub fn of(reader: &Reader<'_>) -> Result<Room> {
        let field = |pragma: &str| -> Result<u64> { Ok(reader.row(pragma, [], |row| row.get::<_, i64>(0))?.unwrap_or(0).max(0) as u64) };
        let max_pages = field("PRAGMA max_page_count")?;
        let made = field("PRAGMA page_count")?;
        let given_back = field("PRAGMA freelist_count")?;
        Ok(Room { page_bytes: field("PRAGMA page_size")?, max_pages, free_pages: max_pages.saturating_sub(made) + given_back })
    }
}

//! [`Room`] is how far a file is from its plan's bytes, in pages, as the transaction that asks sees it.

use super::WriteTx;
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
    /// Two fields of the file's head, no I/O.
    pub fn of(tx: &WriteTx<'_>) -> Result<Room> {
        let field = |pragma: &str| -> Result<u64> { Ok(tx.row(pragma, [], |row| row.get::<_, i64>(0))?.unwrap_or(0).unsigned_abs()) };
        let (page_bytes, max_pages) = tx.page_bounds();
        let free = max_pages.saturating_sub(field("PRAGMA page_count")?) + field("PRAGMA freelist_count")?;
        Ok(Room { page_bytes, max_pages, free_pages: free })
    }
}

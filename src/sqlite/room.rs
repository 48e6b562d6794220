//! Room is how far a file is from its plan's bytes, in pages, as the transaction that asks sees it. Asking SQLite
//! compiles two statements (a PRAGMA is compiled for each run), so a [`Gauge`] keeps what it said, less what was asked
//! for since, and asks again when that is used up.

use std::cell::Cell;

use super::WriteTx;
use crate::error::Result;

/// Asks on one measurement at most: what else happens in the file, such as splits of pages, is not counted.
const ASKS: u32 = 64;

/// Pages given back by one transaction; the statement says so too.
pub const GIVEN_BACK: u64 = 64;
const INCREMENTAL_VACUUM: &str = "PRAGMA incremental_vacuum(64)";

/// A file of so few pages keeps them.
const SMALL: u64 = 2 * GIVEN_BACK;

/// What is known of a connection's room.
#[derive(Default)]
pub struct Gauge {
    /// At least so many pages can still be written: never made, or given back by deleting.
    left: Cell<u64>,
    asks: Cell<u32>,
    /// Pages there were at the last measurement, and those of them that held nothing.
    made: Cell<u64>,
    free: Cell<u64>,
}

impl Gauge {
    /// The next one who asks has it measured.
    pub(super) fn forget(&self) {
        self.asks.set(0);
    }
}

/// Gives pages that hold nothing back to the disk, at most [`GIVEN_BACK`] at once, while more than a quarter of the file are
/// such. Of a file that was made so that it can; the file is shorter after the next checkpoint.
pub fn give_back(tx: &WriteTx<'_>) -> Result<()> {
    let gauge = tx.gauge();
    if gauge.free.get() <= gauge.made.get() / 4 || gauge.made.get() < SMALL {
        return Ok(());
    }
    tx.rows(INCREMENTAL_VACUUM, [], |_| Ok(()))?;
    // What there is now is measured by the next one who asks.
    gauge.forget();
    gauge.free.set(0);
    Ok(())
}

/// Whether `pages` can be written and `reserve` pages are left then. A yes counts them as written.
pub fn has_room(tx: &WriteTx<'_>, pages: u64, reserve: u64) -> Result<bool> {
    let gauge = tx.gauge();
    if gauge.asks.get() == 0 || gauge.left.get() < pages + reserve {
        let field = |pragma: &str| -> Result<u64> { Ok(tx.row(pragma, [], |row| row.get::<_, i64>(0))?.unwrap_or(0).unsigned_abs()) };
        gauge.made.set(field("PRAGMA page_count")?);
        gauge.free.set(field("PRAGMA freelist_count")?);
        gauge.left.set(tx.page_bounds().1.saturating_sub(gauge.made.get()) + gauge.free.get());
        gauge.asks.set(ASKS);
    }
    let has = gauge.left.get() >= pages + reserve;
    if has {
        gauge.left.set(gauge.left.get() - pages);
        gauge.asks.set(gauge.asks.get() - 1);
    }
    Ok(has)
}

//! Throwing away many entries at once, whatever their number, by one row: each entry has the clock of its setting, and
//! a [`Thrown`] the clock of its own moment. What was set before that, and belongs to it, is gone.
//!
//! - An entry set after the newest row is looked at no further. So while nothing was thrown away lately, a read pays for
//!   one comparison.
//! - A [sweeper](sweep_thrown) walks over the entries in the order of their setting, a few at each write, and deletes
//!   those that are gone. When it has seen all that a row can concern, the row goes: no later entry can be concerned.
//! - There are at most [`NAMED_MAX`] rows. Past that everything is thrown away, which is one number.

use rusqlite::params;

use super::evict::{Evictor, Made, Room};
use super::store::tick;
use super::{Namespace, Tag};
use crate::error::Result;
use crate::sqlite::{Reader, WriteTx};

/// Rows of `invalidations` at the same time.
pub(super) const NAMED_MAX: i64 = 10_000;

/// Entries that the sweeper looks at when something is thrown away: more than at a write, so that rows go before they
/// are many.
const LOOKED_AT: u32 = 64;

/// Pages for a row and the splits it may cause.
const PAGES: u64 = 4;

/// What is thrown away.
#[derive(Clone, Debug, PartialEq)]
pub enum Thrown {
    Tag(Tag),
    /// Keys that begin with these bytes, namespace and all.
    Prefix(Vec<u8>),
    Everything,
}

impl Thrown {
    pub fn namespace(namespace: &Namespace) -> Thrown {
        Thrown::Prefix(namespace.start())
    }
}

/// The file's row of `clock`.
pub(super) struct Clock {
    pub version: i64,
    invalidated: i64,
    named: i64,
    sweeping: i64,
    swept: i64,
}

impl Clock {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Clock> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Clock { version: row.get(0)?, invalidated: row.get(1)?, named: row.get(2)?, sweeping: row.get(3)?, swept: row.get(4)? })
        };
        let missing = || crate::error::Error::internal("a cache file has no clock", &"no row");
        reader.row(CLOCK, [], read)?.ok_or_else(missing)
    }
}

/// Whether the entry `e` was thrown away, by the clock `c`.
macro_rules! dead {
    () => {
        "CASE WHEN e.version > c.invalidated THEN 0 WHEN e.version <= c.flushed THEN 1 ELSE \
         EXISTS (SELECT 1 FROM prefix_lengths l CROSS JOIN invalidations i \
                 WHERE i.kind = 2 AND i.name = substr(e.key, 1, l.bytes) AND i.version >= e.version) \
         OR EXISTS (SELECT 1 FROM json_each(e.tags) t CROSS JOIN invalidations i \
                    WHERE i.kind = 1 AND i.name = CAST(t.value AS BLOB) AND i.version >= e.version) END"
    };
}
pub(super) use dead;

/// True when it is done; false when room has to be made first, which the transaction has begun to do.
pub(super) fn throw(tx: &WriteTx<'_>, evictor: &Evictor, what: &Thrown, made: &mut Made) -> Result<bool> {
    let (kind, name): (i64, &[u8]) = match what {
        Thrown::Tag(tag) => (1, tag.as_str().as_bytes()),
        Thrown::Prefix(prefix) => (2, prefix),
        Thrown::Everything => return everything(tx).map(|()| true),
    };
    match evictor.room(tx, PAGES, made)? {
        Room::Enough => {}
        Room::Evicted => return Ok(false),
        Room::Never => return everything(tx).map(|()| true),
    }
    let clock = tick(tx)?;
    if tx.execute(NAME_AGAIN, params![kind, name, clock.version])? == 0 {
        if clock.named >= NAMED_MAX {
            return everything(tx).map(|()| true);
        }
        tx.execute(NAME, params![kind, name, clock.version])?;
        tx.execute(NAMED, [])?;
    }
    if kind == 2 {
        tx.execute(LENGTH, [name.len() as i64])?;
    }
    tx.execute(INVALIDATED, [clock.version])?;
    sweep_thrown(tx, &Clock::read(tx)?, LOOKED_AT)?;
    Ok(true)
}

pub(super) fn everything(tx: &WriteTx<'_>) -> Result<()> {
    tx.execute(FLUSH, [])?;
    tx.execute("DELETE FROM invalidations", [])?;
    tx.execute("DELETE FROM prefix_lengths", [])?;
    sweep_thrown(tx, &Clock::read(tx)?, LOOKED_AT)
}

/// Takes the sweeper's pass so many entries further, if there is something to sweep.
pub(super) fn sweep_thrown(tx: &WriteTx<'_>, clock: &Clock, count: u32) -> Result<()> {
    if clock.invalidated == 0 {
        return Ok(());
    }
    let looked = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?));
    let entries = tx.rows(LOOK, params![clock.swept, clock.sweeping, count], looked)?;
    for (version, _) in entries.iter().filter(|(_, dead)| *dead) {
        tx.execute("DELETE FROM entries WHERE version = ?1", [version])?;
    }
    if let Some((last, _)) = entries.last()
        && entries.len() == count as usize
    {
        return tx.execute(SWEPT, [last]).map(drop);
    }
    let settled = tx.execute("DELETE FROM invalidations WHERE version <= ?1", [clock.sweeping])?;
    if clock.invalidated > clock.sweeping {
        // What was thrown away since the pass began concerns entries that it had passed.
        return tx.execute(NEXT_PASS, [settled as i64]).map(drop);
    }
    tx.execute(CLEAN, [])?;
    tx.execute("DELETE FROM prefix_lengths", []).map(drop)
}

const CLOCK: &str = "SELECT version, invalidated, named, sweeping, swept FROM clock WHERE one = 1";

const NAME_AGAIN: &str = "UPDATE invalidations SET version = ?3 WHERE kind = ?1 AND name = ?2";

const NAME: &str = "INSERT INTO invalidations (kind, name, version) VALUES (?1, ?2, ?3)";

const NAMED: &str = "UPDATE clock SET named = named + 1 WHERE one = 1";

const LENGTH: &str = "INSERT OR IGNORE INTO prefix_lengths (bytes) VALUES (?1)";

/// Begins a pass if none runs.
const INVALIDATED: &str = "UPDATE clock SET sweeping = iif(invalidated = 0, ?1, sweeping), invalidated = ?1 WHERE one = 1";

const FLUSH: &str = "UPDATE clock SET version = version + 1, flushed = version + 1, invalidated = version + 1, named = 0,
     sweeping = version + 1, swept = 0 WHERE one = 1";

const LOOK: &str = concat!(
    "SELECT e.version, ",
    dead!(),
    " FROM clock c CROSS JOIN entries e WHERE c.one = 1 AND e.version > ?1 AND e.version <= ?2 ORDER BY e.version LIMIT ?3"
);

const SWEPT: &str = "UPDATE clock SET swept = ?1 WHERE one = 1";

const NEXT_PASS: &str = "UPDATE clock SET named = named - ?1, sweeping = invalidated, swept = 0 WHERE one = 1";

const CLEAN: &str = "UPDATE clock SET invalidated = 0, named = 0, sweeping = 0, swept = 0 WHERE one = 1";

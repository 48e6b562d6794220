//! Evicting is deleting entries because a write needs room, in rounds over those that are there when a round begins: first
//! what expires soonest, then what was set longest ago. An entry that was read since it was spared last is spared again
//! ([`Uses`]): the [`Evictor`]'s hands pass it by until the next round.
//!
//! - Nothing of this is written: notes and hands live in memory. Reading stays without writes, and a restart begins anew.
//! - One commit spares at most [`SPARED`] entries and deletes at most [`EVICTED`]. So it is bounded, and it makes room as long
//!   as there is something to delete, whatever is read meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::params;

use super::invalidate::Clock;
use super::uses::Uses;
use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::{WriteTx, has_room};

/// Entries deleted by one commit that makes room, at most [`AT_ONCE`] between two looks at the room.
const EVICTED: u32 = 256;
const AT_ONCE: u32 = 8;

/// Entries spared by one commit. Past that it deletes what was read, too.
const SPARED: u32 = 256;

/// What one process knows of a file for evicting.
#[derive(Default)]
pub(super) struct Evictor {
    uses: Uses,
    hands: Mutex<Hands>,
}

/// How far a round has come, in each of the two orders.
#[derive(Clone, Copy, Default)]
struct Hands {
    /// The version of what was set last when it began.
    until: i64,
    /// Among those that expire: the moment past every grace, and the version.
    expiring: (Millis, i64),
    /// Among those that do not: the version.
    lasting: i64,
}

/// What making room came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    pub evicted: u32,
    pub spared: u32,
}

/// Whether something can be written now.
pub(super) enum Room {
    Enough,
    /// Not yet; what was evicted stays evicted.
    Evicted,
    /// Nothing is left to evict.
    Never,
}

struct Candidate {
    version: i64,
    gone_at: Option<Millis>,
    key: Vec<u8>,
}

impl Evictor {
    pub(super) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Looks for room for `pages`, evicting what has to go; `made` counts it.
    pub(super) fn room(&self, tx: &WriteTx<'_>, pages: u64, made: &mut Made) -> Result<Room> {
        if tx.page_bounds().1 < pages {
            return Ok(Room::Never);
        }
        let before = made.evicted;
        while !has_room(tx, pages, 0)? {
            if made.evicted - before >= EVICTED {
                return Ok(Room::Evicted);
            }
            if !self.evict(tx, made)? {
                return Ok(if made.evicted == before { Room::Never } else { Room::Evicted });
            }
        }
        Ok(Room::Enough)
    }

    /// Deletes the next few; false where nothing is left.
    fn evict(&self, tx: &WriteTx<'_>, made: &mut Made) -> Result<bool> {
        let before = made.evicted;
        let mut hands = *self.hands();
        // Spared when the latest lap over all of them began.
        let mut lap = None;
        while made.evicted == before {
            let candidates = hands.reach(tx)?;
            if candidates.is_empty() {
                // Whoever was spared is there for the next one: only a lap that spared nobody has found nobody.
                if lap.replace(made.spared) == Some(made.spared) {
                    break;
                }
                hands = Hands { until: Clock::read(tx)?.version, ..Hands::default() };
            }
            for Candidate { version, gone_at, key } in candidates {
                match gone_at {
                    Some(gone_at) => hands.expiring = (gone_at, version),
                    None => hands.lasting = version,
                }
                if made.spared < SPARED && self.uses.take(&key) {
                    made.spared += 1;
                } else {
                    tx.execute(DELETE, [version])?;
                    made.evicted += 1;
                }
            }
        }
        *self.hands() = hands;
        Ok(made.evicted > before)
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hands {
    /// The next ones.
    fn reach(&self, tx: &WriteTx<'_>) -> Result<Vec<Candidate>> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Candidate { version: row.get(0)?, gone_at: row.get(1)?, key: row.get_ref(2)?.as_bytes()?.to_vec() })
        };
        let expiring = tx.rows(SOONEST_GONE, params![self.expiring.0, self.expiring.1, self.until, AT_ONCE], read)?;
        if expiring.is_empty() { tx.rows(LONGEST_THERE, params![self.lasting, self.until, AT_ONCE], read) } else { Ok(expiring) }
    }
}

const SOONEST_GONE: &str = "SELECT version, gone_at, key FROM entries
     WHERE gone_at >= ?1 AND (gone_at > ?1 OR version > ?2) AND version <= ?3 ORDER BY gone_at, version LIMIT ?4";

const LONGEST_THERE: &str =
    "SELECT version, gone_at, key FROM entries WHERE version > ?1 AND version <= ?2 AND gone_at IS NULL ORDER BY version LIMIT ?3";

const DELETE: &str = "DELETE FROM entries WHERE version = ?1";

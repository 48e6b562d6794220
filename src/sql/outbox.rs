//! The outbox: rows that a tenant's transactions leave for the queue by inserting into the view `_outbox`. Here they are
//! read in their order, and swept away behind the queue's mark. What the queue has refused is kept, with the reason,
//! for [`REFUSED_KEPT_MS`] at most, and shows in the view; it has the negative of its id.
//!
//! Ids only rise. So the largest is never taken away: up to where the rows are swept, a row without a time stands.

use std::sync::Arc;

use rusqlite::Row;
use rusqlite::types::Value;

use crate::clock::{Millis, now_ms};
use crate::error::{Code, Result};
use crate::sqlite::{Database, Limits};

/// Has a row if there is something to relay; asked when a database is opened.
pub const ANY_LEFT: &str = "SELECT 1 FROM main._tenantry_outbox WHERE id > 0 AND created_at <> 0 LIMIT 1";

/// What the view is called, as a commit names what it wrote.
pub const VIEW: &str = "_outbox";

/// Rows read at once.
const READ_MAX: i64 = 64;

/// Bytes of payloads read at once, unless it is one row.
const READ_BYTES: i64 = 4 << 20;

/// The longest payload that is read, in bytes: base64 of what a job may carry fits. A longer one is told by its length.
const PAYLOAD_BYTES: i64 = 400 << 10;

/// Rows swept away by one transaction.
const SWEPT: usize = 256;

/// How long a refused row stays, in milliseconds: fourteen days, as a dead job.
const REFUSED_KEPT_MS: Millis = 14 * 86_400_000;

/// Refused rows kept at once; the oldest go.
const REFUSED_MAX: i64 = 10_000;

/// A row as it was inserted.
#[derive(Clone, Debug)]
pub struct Letter {
    pub id: i64,
    pub queue: Value,
    /// Its length in bytes where it is too long to be read.
    pub payload: Result<Value, i64>,
    pub options: Value,
}

/// What stands in the outbox behind a mark, and whether something before it is to be swept.
#[derive(Debug)]
pub struct Standing {
    pub letters: Vec<Letter>,
    pub to_sweep: bool,
}

/// Whether there is something to relay.
pub async fn any_left(database: &Arc<Database>) -> Result<bool> {
    let look = |reader: &crate::sqlite::Reader<'_>| Ok(reader.row(ANY_LEFT, [], |_| Ok(()))?.is_some());
    database.read(Limits::default(), look).await
}

/// The first rows behind `mark`.
pub async fn read(database: &Arc<Database>, mark: i64) -> Result<Standing> {
    let look = move |reader: &crate::sqlite::Reader<'_>| {
        reader.snapshot()?;
        let to_sweep = reader.row(TO_SWEEP, [mark], |row| row.get(0))?.unwrap_or(false);
        let mut bytes = 0;
        let letter = |row: &Row<'_>| {
            let length: i64 = row.get(4)?;
            bytes += length.min(PAYLOAD_BYTES);
            if bytes > READ_BYTES {
                return Ok(None);
            }
            let payload = if length > PAYLOAD_BYTES { Err(length) } else { Ok(row.get(2)?) };
            Ok(Some(Letter { id: row.get(0)?, queue: row.get(1)?, payload, options: row.get(3)? }))
        };
        let letters = reader.rows(READ, (mark, READ_MAX, PAYLOAD_BYTES), letter)?;
        Ok(Standing { letters: letters.into_iter().map_while(|letter| letter).collect(), to_sweep })
    };
    database.read(Limits::default(), look).await
}

/// Sweeps away what stands up to `mark`, in several transactions, the rows of `refused` to where their reasons are shown.
/// A full database has no room for these: then they go, since otherwise nothing would ever be swept.
pub async fn sweep(database: &Arc<Database>, mark: i64, refused: Vec<(i64, String)>) -> Result<()> {
    let mut refused = Arc::new(refused);
    loop {
        let kept = refused.clone();
        let step = move |tx: &crate::sqlite::WriteTx<'_>| {
            let now = now_ms();
            for (id, reason) in &*kept {
                tx.execute(KEEP_REFUSED, (id, reason, now))?;
            }
            if !kept.is_empty() {
                tx.execute(PRUNE, (now - REFUSED_KEPT_MS, REFUSED_MAX, SWEPT as i64))?;
            }
            tx.execute(SWEPT_TO, [mark])?;
            tx.execute(SWEEP, (mark, SWEPT as i64))
        };
        match database.write(Limits::default(), step).await {
            Err(error) if error.code() == Code::QuotaExceeded && !refused.is_empty() => {
                tracing::warn!(rows = refused.len(), "refused rows of an outbox are not kept: their database is full");
                refused = Arc::default();
            }
            Err(error) => return Err(error),
            Ok(swept) if swept < SWEPT => return Ok(()),
            Ok(_) => {}
        }
    }
}

// Named with their schema: a tenant's script may have made a temporary table of the same name.

const TO_SWEEP: &str = "SELECT EXISTS (SELECT 1 FROM main._tenantry_outbox WHERE id BETWEEN 0 AND ?1 AND (id < ?1 OR created_at <> 0))
     OR coalesce((SELECT max(id) FROM main._tenantry_outbox), 0) < ?1";

/// A value of the tenant's own can be of any length: it is not read before its length is known.
const READ: &str = "SELECT id, iif(length(CAST(queue AS BLOB)) <= 1000, queue, NULL),
         iif(coalesce(length(CAST(payload AS BLOB)), 0) <= ?3, payload, NULL),
         iif(length(CAST(options AS BLOB)) <= 65536, options, iif(options IS NULL, NULL, 0)),
         coalesce(length(CAST(payload AS BLOB)), 0)
     FROM main._tenantry_outbox WHERE id > ?1 AND created_at <> 0 ORDER BY id LIMIT ?2";

const KEEP_REFUSED: &str =
    "UPDATE OR REPLACE main._tenantry_outbox SET id = -id, refused = ?2, refused_at = ?3 WHERE id = ?1 AND created_at <> 0";

const PRUNE: &str = "DELETE FROM main._tenantry_outbox WHERE id IN
     (SELECT id FROM main._tenantry_outbox
      WHERE id < 0 AND (refused_at < ?1 OR id > (SELECT id FROM main._tenantry_outbox WHERE id < 0 ORDER BY id LIMIT 1 OFFSET ?2))
      ORDER BY id DESC LIMIT ?3)";

/// Where a row stands at the mark it gives way in its place, so this needs no room.
const SWEPT_TO: &str = "INSERT INTO main._tenantry_outbox (id, created_at) VALUES (?1, 0)
     ON CONFLICT (id) DO UPDATE SET queue = NULL, payload = NULL, options = NULL, created_at = 0";

const SWEEP: &str = "DELETE FROM main._tenantry_outbox WHERE id IN
     (SELECT id FROM main._tenantry_outbox WHERE id >= 0 AND id < ?1 ORDER BY id LIMIT ?2)";

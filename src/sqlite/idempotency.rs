//! An [`IdempotencyKey`] settles what became of a write: what was answered is kept in the file that was written,
//! in the transaction that did it, for [`KEPT`]. The same key with the same request is answered from there; with
//! another request it is refused. [`Idempotency`] is where a kind of file keeps the answers; the table is named with its
//! schema, as a tenant's script may have made a temporary one of the same name.

use std::time::Duration;

use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

use super::reader::WriteTx;
use crate::clock;
use crate::error::{Code, Error, Result};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The longest answer that is kept, in bytes.
const ANSWER_MAX: usize = 256 << 10;

const KEY_MAX: usize = 255;

/// Old answers removed with each new one.
const PRUNED: usize = 8;

#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    key: String,
    /// SHA-256 of the request.
    request: [u8; 32],
}

impl IdempotencyKey {
    /// 1 to 255 visible ASCII characters. `request` is what tells requests apart, one part after the other.
    pub fn parse(key: &str, request: &[&[u8]]) -> Result<IdempotencyKey> {
        if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                Error::bad_request(format!("Idempotency-Key is not 1 to {KEY_MAX} visible ASCII characters")).hint("A UUID serves well.")
            );
        }
        let request = request.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part));
        Ok(IdempotencyKey { key: key.to_owned(), request: request.finalize().into() })
    }
}

/// A table of a file: `subject`, `key`, `body_hash`, `response`, `created_at`, and an index on the last.
#[derive(Clone, Copy, Debug)]
pub struct Idempotency {
    table: &'static str,
}

impl Idempotency {
    pub const fn kept_in(table: &'static str) -> Idempotency {
        Idempotency { table }
    }

    /// What was answered to this request before.
    pub fn answered(self, tx: &WriteTx<'_>, subject: &str, key: &IdempotencyKey) -> Result<Option<Vec<u8>>> {
        let found = tx.row(
            &format!("SELECT body_hash, response FROM main.{} WHERE subject = ?1 AND key = ?2 AND created_at > ?3", self.table),
            (subject, &key.key, clock::now_ms() - KEPT.as_millis() as i64),
            |row| {
                let same = matches!(row.get_ref(0)?, ValueRef::Blob(hash) if hash == key.request);
                Ok(if same { Some(row.get::<_, Vec<u8>>(1)?) } else { None })
            },
        )?;
        match found {
            None => Ok(None),
            Some(Some(answer)) => Ok(Some(answer)),
            Some(None) => {
                Err(Error::conflict("this Idempotency-Key was used for another request").hint("Take a new key for a new request."))
            }
        }
    }

    /// Keeps the answer, and lets go of a few that are past their time.
    pub fn keep(self, tx: &WriteTx<'_>, subject: &str, key: &IdempotencyKey, answer: &[u8]) -> Result<()> {
        if answer.len() > ANSWER_MAX {
            return Err(Error::new(Code::ResultTooLarge, format!("an answer kept for an Idempotency-Key is at most {ANSWER_MAX} bytes"))
                .hint("Nothing was written. Return fewer rows from this write."));
        }
        let (now, table) = (clock::now_ms(), self.table);
        tx.execute(
            &format!(
                "DELETE FROM main.{table} WHERE (subject, key) IN
                 (SELECT subject, key FROM main.{table} WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)"
            ),
            (now - KEPT.as_millis() as i64, PRUNED as i64),
        )?;
        tx.execute(
            &format!("INSERT OR REPLACE INTO main.{table}(subject, key, body_hash, response, created_at) VALUES (?1, ?2, ?3, ?4, ?5)"),
            (subject, &key.key, &key.request[..], answer, now),
        )?;
        Ok(())
    }
}

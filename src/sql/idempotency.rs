//! An `Idempotency-Key` settles what became of a write: what was answered is kept in the tenant's database, in
//! the transaction that did it, for [`KEPT`]. The same key with the same request is answered from there; with
//! another request it is refused.

use std::time::Duration;

use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

use crate::clock;
use crate::error::{Code, Error, Result};
use crate::sqlite::WriteTx;

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
    /// SHA-256 of the request's body.
    body: [u8; 32],
}

impl IdempotencyKey {
    /// 1 to 255 visible ASCII characters.
    pub fn parse(key: &str, body: &[u8]) -> Result<IdempotencyKey> {
        if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                Error::bad_request(format!("Idempotency-Key is not 1 to {KEY_MAX} visible ASCII characters")).hint("A UUID serves well.")
            );
        }
        Ok(IdempotencyKey { key: key.to_owned(), body: Sha256::digest(body).into() })
    }

    /// What was answered to this request before.
    pub(super) fn answered(&self, tx: &WriteTx<'_>, subject: &str) -> Result<Option<Vec<u8>>> {
        let found = tx.row(
            "SELECT body_hash, response FROM _tenantry_idempotency WHERE subject = ?1 AND key = ?2 AND created_at > ?3",
            (subject, &self.key, clock::now_ms() - KEPT.as_millis() as i64),
            |row| {
                let same = matches!(row.get_ref(0)?, ValueRef::Blob(hash) if hash == self.body);
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

    pub(super) fn keep(&self, tx: &WriteTx<'_>, subject: &str, answer: &[u8]) -> Result<()> {
        if answer.len() > ANSWER_MAX {
            return Err(Error::new(Code::ResultTooLarge, format!("an answer kept for an Idempotency-Key is at most {ANSWER_MAX} bytes"))
                .hint("Nothing was written. Return fewer rows from this write."));
        }
        let now = clock::now_ms();
        tx.execute(
            "DELETE FROM _tenantry_idempotency WHERE (subject, key) IN
             (SELECT subject, key FROM _tenantry_idempotency WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)",
            (now - KEPT.as_millis() as i64, PRUNED as i64),
        )?;
        tx.execute(
            "INSERT OR REPLACE INTO _tenantry_idempotency(subject, key, body_hash, response, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            (subject, &self.key, &self.body[..], answer, now),
        )?;
        Ok(())
    }
}

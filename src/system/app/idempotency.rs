//! An `Idempotency-Key` of an administrative call. Its row is taken before the work ([`Begun`]) and given the
//! answer in the transaction that completes the work, so one key never works twice and a repeated call gets
//! what the first one got. A row without an answer belongs to a call that is running; after a crash there is
//! no such call, so start-up releases them. A call of many parts ([`Once::part`]) has a key for each of them too.
//!
//! Bounds: kept for [`KEPT_MS`], at most [`KEYS_MAX`] of them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rusqlite::params;

use super::App;
use crate::clock::{Millis, now_ms};
use crate::error::{Code, Error, Result};
use crate::sqlite::{Limits, WriteTx};
use crate::system::column;

/// How long an answer is kept, in milliseconds.
pub const KEPT_MS: Millis = 24 * 3_600 * 1_000;
/// Keys held at once.
pub const KEYS_MAX: u64 = 100_000;
/// Expired keys deleted each time one is taken.
const PRUNE_STEP: u32 = 64;

/// `status` of a key whose call is still running.
const RUNNING: u16 = 0;

/// A call that is to be done once: who and what (`scope`), the caller's key, and the hash of what was asked for.
#[derive(Clone, Debug)]
pub struct Once {
    pub scope: String,
    pub key: String,
    pub body_hash: [u8; 32],
}

impl Once {
    /// One of the things that the call does, each in a transaction of its own: kept until the whole is answered.
    pub fn part(&self, index: usize, body_hash: [u8; 32]) -> Once {
        Once { scope: self.scope_of_parts(), key: index.to_string(), body_hash }
    }

    fn scope_of_parts(&self) -> String {
        format!("{} {}", self.scope, self.key)
    }
}

/// What the caller was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// Nobody has done it: do it, and then `finish` or `release` the key.
    New,
    /// It was done, with this answer.
    Answered(Answer),
}

impl App {
    /// Takes the key in a transaction of its own.
    pub async fn once_begin(&self, once: &Once) -> Result<Begun> {
        let (app, once) = (self.clone(), once.clone());
        self.db.write(Limits::default(), move |tx| app.begin_in(tx, &once)).await
    }

    /// Leaves the answer, which has those of the parts.
    pub async fn once_finish(&self, once: &Once, answer: &Answer) -> Result<()> {
        let (once, answer) = (once.clone(), answer.clone());
        let finish = move |tx: &WriteTx<'_>| {
            tx.execute("DELETE FROM idempotency_keys WHERE scope = ?1", [once.scope_of_parts()])?;
            finish_in(tx, &once, &answer)
        };
        self.db.write(Limits::default(), finish).await
    }

    /// Gives the key back after a failure, so that the call can be made again.
    pub async fn once_release(&self, once: &Once) -> Result<()> {
        let once = once.clone();
        self.db.write(Limits::default(), move |tx| release_in(tx, &once)).await
    }

    /// Takes the key in the caller's transaction.
    pub(super) fn begin_in(&self, tx: &WriteTx<'_>, once: &Once) -> Result<Begun> {
        let now = now_ms();
        tx.execute(
            "DELETE FROM idempotency_keys WHERE (scope, key) IN (SELECT scope, key FROM idempotency_keys WHERE created_at < ?1 AND status <> 0 ORDER BY created_at LIMIT ?2)",
            params![now - KEPT_MS, PRUNE_STEP],
        )?;
        let known = tx.row(
            "SELECT body_hash, status, response FROM idempotency_keys WHERE scope = ?1 AND key = ?2",
            params![once.scope, once.key],
            |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, u16>(1)?, row.get::<_, Vec<u8>>(2)?)),
        )?;
        match known {
            Some((hash, _, _)) if hash != once.body_hash => {
                Err(Error::conflict("this Idempotency-Key was used for another request").hint("Use a new key for a new request."))
            }
            Some((_, RUNNING, _)) => Err(Error::conflict("the first request with this Idempotency-Key is still running")
                .hint("Repeat the request, with the same key, in a moment.")
                .retry_after(Duration::from_secs(1))),
            Some((_, status, body)) => Ok(Begun::Answered(Answer { status, body })),
            None => {
                self.bound_keys(tx)?;
                tx.execute(
                    "INSERT INTO idempotency_keys (scope, key, body_hash, status, response, created_at) VALUES (?1, ?2, ?3, ?4, x'', ?5)",
                    params![once.scope, once.key, once.body_hash, RUNNING, now],
                )?;
                Ok(Begun::New)
            }
        }
    }

    /// Counting is linear in the keys held, so it is done once in [`RECOUNT`] keys; the bound is kept to that.
    fn bound_keys(&self, tx: &WriteTx<'_>) -> Result<()> {
        const RECOUNT: u64 = 1_000;
        if !self.keys.fetch_add(1, Relaxed).is_multiple_of(RECOUNT) {
            return Ok(());
        }
        let held = tx.row("SELECT count(*) FROM idempotency_keys", [], |row| column::count(row, 0))?.unwrap_or(0);
        if held < KEYS_MAX {
            return Ok(());
        }
        self.keys.fetch_sub(1, Relaxed);
        Err(Error::new(Code::Overloaded, format!("{KEYS_MAX} Idempotency-Keys of the last day are remembered; no more are taken"))
            .hint("Repeat the request without the header, or later.")
            .retry_after(Duration::from_secs(600)))
    }

    /// At start: nobody is running.
    pub(super) async fn release_unfinished(&self) -> Result<()> {
        self.db.write(Limits::default(), |tx| tx.execute("DELETE FROM idempotency_keys WHERE status = 0", []).map(drop)).await
    }
}

pub(super) fn finish_in(tx: &WriteTx<'_>, once: &Once, answer: &Answer) -> Result<()> {
    tx.execute(
        "UPDATE idempotency_keys SET status = ?3, response = ?4 WHERE scope = ?1 AND key = ?2",
        params![once.scope, once.key, answer.status, answer.body],
    )?;
    Ok(())
}

pub(super) fn release_in(tx: &WriteTx<'_>, once: &Once) -> Result<()> {
    tx.execute("DELETE FROM idempotency_keys WHERE scope = ?1 AND key = ?2 AND status = 0", params![once.scope, once.key])?;
    Ok(())
}

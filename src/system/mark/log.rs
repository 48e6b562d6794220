//! `mark_audit_logs`, the chain as it is stored, and the watermark that says which entries of the outbox it has.

use std::sync::Arc;

use rusqlite::{Row, params};

use super::Mark;
use crate::error::Result;
use crate::sqlite::{Limits, Reader, WriteTx};
use crate::system::app::{Head, Pending};
use crate::system::audit::{ChainKey, Entry, Filter, GENESIS, Record};

/// What appending came to.
pub struct Appended {
    /// The chain's last entry: seq and hash. `None` if the head that was known before is not ours or the chain does
    /// not contain it; then it must not be forgotten: it is the proof that something is missing.
    pub head: Option<(i64, Vec<u8>)>,
}

const COLUMNS: &str = "seq, at, actor, action, target, request_id, outcome, details, prev_hash, hash";

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { seq: row.get(0)?, record: Record::from_row(row, 1)?, prev_hash: row.get(8)?, hash: row.get(9)? })
}

impl Mark {
    /// Appends what is past the watermark, in one transaction with moving it.
    pub(in crate::system) async fn audit_append(&self, key: Arc<ChainKey>, pending: Vec<Pending>, known: Option<Head>) -> Result<Appended> {
        self.db
            .write(Limits::default(), move |tx| {
                let whole = match &known {
                    // A forged head proves nothing, and signing the next one would make it good.
                    Some(known) => known.mac == key.head(known.seq, &known.hash) && contains_in(tx, known)?,
                    None => false,
                };
                let tip = append_in(tx, &key, &pending)?;
                Ok(Appended { head: whole.then_some(tip) })
            })
            .await
    }

    /// The last entry of the outbox that the chain has.
    pub(in crate::system) async fn audit_watermark(&self) -> Result<i64> {
        self.db.read(Limits::default(), watermark_in).await
    }

    pub(in crate::system) async fn audit_is_empty(&self) -> Result<bool> {
        self.db.read(Limits::default(), |r| Ok(r.row("SELECT 1 FROM mark_audit_logs LIMIT 1", [], |_| Ok(()))?.is_none())).await
    }

    /// Entries after `seq`, oldest first.
    pub(in crate::system) async fn audit_after(&self, seq: i64, limit: u32) -> Result<Vec<Entry>> {
        self.db
            .read(Limits::default(), move |r| {
                let sql = format!("SELECT {COLUMNS} FROM mark_audit_logs WHERE seq > ?1 ORDER BY seq LIMIT ?2");
                r.rows(&sql, params![seq, limit], entry)
            })
            .await
    }

    /// Entries that match, newest first.
    pub(in crate::system) async fn audit_list(&self, filter: Filter) -> Result<Vec<Entry>> {
        self.db
            .read(Limits::default(), move |r| {
                let mut sql = format!("SELECT {COLUMNS} FROM mark_audit_logs WHERE seq < ?1");
                for (column, value, place) in [("actor", &filter.actor, 3), ("action", &filter.action, 4), ("target", &filter.target, 5)] {
                    match value {
                        Some(_) => sql.push_str(&format!(" AND {column} = ?{place}")),
                        None => sql.push_str(&format!(" AND ?{place} IS NULL")),
                    }
                }
                sql.push_str(" ORDER BY seq DESC LIMIT ?2");
                let before = filter.before.unwrap_or(i64::MAX);
                r.rows(&sql, params![before, filter.limit, filter.actor, filter.action, filter.target], entry)
            })
            .await
    }
}

/// Whether the chain still has the entry that the head names.
fn contains_in(r: &Reader<'_>, head: &Head) -> Result<bool> {
    if head.seq == 0 {
        return Ok(head.hash == GENESIS);
    }
    let hash = r.row("SELECT hash FROM mark_audit_logs WHERE seq = ?1", [head.seq], |row| row.get::<_, Vec<u8>>(0))?;
    Ok(hash.is_some_and(|hash| hash == head.hash))
}

fn watermark_in(r: &Reader<'_>) -> Result<i64> {
    Ok(r.row("SELECT outbox_seq FROM mark_audit_watermark", [], |row| row.get(0))?.unwrap_or(0))
}

/// The chain's last entry after appending.
fn append_in(tx: &WriteTx<'_>, key: &ChainKey, pending: &[Pending]) -> Result<(i64, Vec<u8>)> {
    let mark = watermark_in(tx)?;
    let tip = tx.row("SELECT seq, hash FROM mark_audit_logs ORDER BY seq DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (mut seq, mut hash): (i64, Vec<u8>) = tip.unwrap_or((0, GENESIS.to_vec()));
    let mut moved = mark;
    for Pending { seq: outbox_seq, record } in pending.iter().filter(|pending| pending.seq > mark) {
        let next = key.entry(seq + 1, &hash, record).to_vec();
        seq += 1;
        tx.execute(
            &format!("INSERT INTO mark_audit_logs ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"),
            params![
                seq,
                record.at,
                record.actor,
                record.action,
                record.target,
                record.request_id,
                record.outcome,
                record.details,
                hash,
                next
            ],
        )?;
        hash = next;
        moved = *outbox_seq;
    }
    tx.execute("UPDATE mark_audit_watermark SET outbox_seq = ?1 WHERE outbox_seq < ?1", [moved])?;
    Ok((seq, hash))
}

//! The audit outbox: entries that are committed with what they tell of, until the relay ([`crate::system::Audit`])
//! has moved them into `mark`'s chain; and the chain's head as far as the relay got.

use rusqlite::params;

use super::App;
use crate::clock::now_ms;
use crate::error::Result;
use crate::sqlite::{Limits, WriteTx};
use crate::system::audit::{Action, Record};

/// An entry that waits for the relay. `seq` rises and never repeats.
#[derive(Clone, Debug)]
pub struct Pending {
    pub seq: i64,
    pub record: Record,
}

/// How far the chain is known to reach, and the signature over that.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub seq: i64,
    pub hash: Vec<u8>,
    pub mac: Vec<u8>,
}

impl App {
    /// An entry for an action that changed nothing here: a failure, or work of another part.
    pub async fn record(&self, action: Action) -> Result<()> {
        let done = self.db.write(Limits::default(), move |tx| record_in(tx, &action)).await;
        self.outbox.notify_one();
        done
    }

    pub(in crate::system) async fn outbox_pending(&self, limit: u32) -> Result<Vec<Pending>> {
        self.db
            .read(Limits::default(), move |r| {
                r.rows(
                    "SELECT seq, at, actor, action, target, request_id, outcome, details FROM audit_outbox ORDER BY seq LIMIT ?1",
                    [limit],
                    |row| Ok(Pending { seq: row.get(0)?, record: Record::from_row(row, 1)? }),
                )
            })
            .await
    }

    /// Drops what the chain has (`seq` at most `upto`), and remembers the chain's head unless it is `None`.
    pub(in crate::system) async fn outbox_moved(&self, upto: i64, head: Option<Head>) -> Result<()> {
        self.db
            .write(Limits::default(), move |tx| {
                tx.execute("DELETE FROM audit_outbox WHERE seq <= ?1", [upto])?;
                match &head {
                    Some(head) => head_in(tx, head),
                    None => Ok(()),
                }
            })
            .await
    }

    /// Makes the next entry's `seq` exceed `mark`, as it does unless this file is older than the one with the chain.
    /// What the sequence was if it had to be raised.
    pub(in crate::system) async fn outbox_catch_up(&self, mark: i64) -> Result<Option<i64>> {
        self.db
            .write(Limits::default(), move |tx| {
                let last = tx.row("SELECT seq FROM sqlite_sequence WHERE name = 'audit_outbox'", [], |row| row.get(0))?;
                if last.unwrap_or(0) >= mark {
                    return Ok(None);
                }
                let sql = match last {
                    Some(_) => "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'audit_outbox'",
                    // Nothing was ever inserted.
                    None => "INSERT INTO sqlite_sequence (name, seq) VALUES ('audit_outbox', ?1)",
                };
                tx.execute(sql, [mark])?;
                Ok(Some(last.unwrap_or(0)))
            })
            .await
    }

    pub(in crate::system) async fn audit_head(&self) -> Result<Option<Head>> {
        self.db
            .read(Limits::default(), |r| {
                r.row("SELECT seq, hash, mac FROM audit_head", [], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)?, mac: row.get(2)? }))
            })
            .await
    }
}

fn head_in(tx: &WriteTx<'_>, head: &Head) -> Result<()> {
    tx.execute(
        "INSERT INTO audit_head (one, seq, hash, mac) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, mac = excluded.mac",
        params![head.seq, head.hash, head.mac],
    )?;
    Ok(())
}

/// Leaves the entry in the transaction of what it tells of.
pub(super) fn record_in(tx: &WriteTx<'_>, action: &Action) -> Result<()> {
    tx.execute(
        "INSERT INTO audit_outbox (at, actor, action, target, request_id, outcome, details) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            now_ms(),
            action.actor,
            action.action,
            action.target,
            action.request_id.map(|id| id.to_string()),
            action.outcome,
            action.details.to_string(),
        ],
    )?;
    Ok(())
}

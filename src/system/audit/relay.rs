//! The relay: moves the outbox of `app` into the chain of `mark`.
//!
//! 1. read the oldest entries of the outbox and the head that `app` remembers
//! 2. in one transaction of `mark`: append those past the watermark, move the watermark
//! 3. in one transaction of `app`: drop what the chain has, remember the new head
//!
//! A crash after 2 leaves entries in the outbox that the watermark skips next time, and a head that is behind,
//! which is no sign of tampering: the chain only has to reach it. A head that is not ours, or that the chain does not
//! have, stays as it is: what is appended after it is never signed for.

use std::time::Duration;

use super::Audit;
use super::chain::GENESIS;
use crate::error::Result;
use crate::system::app::Head;

/// Entries moved in one step.
const STEP: u32 = 256;
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);

impl Audit {
    /// Moves everything that was committed to the outbox before the call.
    pub async fn drain(&self) -> Result<()> {
        let _moving = self.moving.lock().await;
        while self.step().await? {}
        Ok(())
    }

    /// Moves what comes, until it is dropped.
    pub(in crate::system) async fn run(self) {
        loop {
            self.app.outbox_news().notified().await;
            while let Err(error) = self.drain().await {
                tracing::error!(%error, "the audit log could not be moved; it is kept and tried again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Whether there may be more.
    async fn step(&self) -> Result<bool> {
        let pending = self.app.outbox_pending(STEP).await?;
        let Some(last) = pending.last() else { return Ok(false) };
        let (upto, more) = (last.seq, pending.len() == STEP as usize);
        let known = self.app.audit_head().await?;
        let appended = self.mark.audit_append(self.key.clone(), pending, known).await?;
        if appended.head.is_none() {
            tracing::error!(
                "the audit log does not match its remembered head: entries or the head were cut off or changed; see `tenantry audit verify`"
            );
        }
        let head = appended.head.map(|(seq, hash)| self.signed(seq, hash));
        self.app.outbox_moved(upto, head).await?;
        Ok(more)
    }

    /// An `app` put back from an older copy counts its entries from there again, and the watermark would skip them:
    /// its sequence goes on behind the watermark.
    pub(super) async fn pass_watermark(&self) -> Result<()> {
        let mark = self.mark.audit_watermark().await?;
        if let Some(last) = self.app.outbox_catch_up(mark).await? {
            tracing::error!(
                last,
                mark,
                "app.db is OLDER than mark.db: what was done after it was copied is in the audit log, and is undone; \
                 the files of the system folder belong together, put them back from one backup"
            );
        }
        Ok(())
    }

    /// A chain without entries has a head too.
    pub(super) async fn sign_first_head(&self) -> Result<()> {
        if self.mark.audit_is_empty().await? {
            return self.app.outbox_moved(0, Some(self.signed(0, GENESIS.to_vec()))).await;
        }
        tracing::error!("the key of the audit log is gone: what was written with it can no longer be verified");
        Ok(())
    }

    fn signed(&self, seq: i64, hash: Vec<u8>) -> Head {
        let mac = self.key.head(seq, &hash).to_vec();
        Head { seq, hash, mac }
    }
}

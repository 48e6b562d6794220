//! The audit log: every change an operator makes, and every one that was refused. An [`Action`] is committed in
//! `app` with what it tells of; the relay moves it, in order and exactly once, into the chain in `mark`: the
//! watermark moves in the transaction that appends, and the outbox is emptied only after. No commit spans the
//! two files, and a crash between any two steps is repaired by running the relay again.
//!
//! Each entry's hash covers the entry and the hash before it, under a key that is in no database. `app` keeps the
//! signed head of the chain. So an edited, a removed and a cut-off entry show in [`Audit::verify`]. What does not
//! show: a whole data directory put back from an older copy, and what somebody does who has the key file.

mod chain;
mod entry;
mod relay;
mod verify;

use std::path::Path;
use std::sync::Arc;

pub(super) use chain::{ChainKey, GENESIS};
pub use entry::{Action, BEGUN, By, Entry, OK, Record};
pub use verify::{Problem, Verification};

use super::app::App;
use super::mark::Mark;
use crate::error::{Error, Result};

/// Which entries a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub target: Option<String>,
    /// Before this one.
    pub before: Option<i64>,
    pub limit: u32,
}

/// A handle; clones are the same log.
#[derive(Clone)]
pub struct Audit {
    app: App,
    mark: Mark,
    key: Arc<ChainKey>,
    /// Held while the outbox is moved: one mover keeps the order.
    moving: Arc<tokio::sync::Mutex<()>>,
}

impl Audit {
    /// Reads the chain's key (`audit.key` in `keys`, made at first start), moves what a crash left behind, and sees
    /// to it that nothing new is taken for what the chain has already.
    pub(super) async fn open(app: App, mark: Mark, keys: &Path) -> Result<Audit> {
        let path = keys.join("audit.key");
        let known = ChainKey::load(&path)?;
        let first = known.is_none();
        let key = known.map_or_else(ChainKey::new, Ok)?;
        let audit = Audit { app, mark, key: Arc::new(key), moving: Arc::new(tokio::sync::Mutex::new(())) };
        if first {
            // The head before the key: where there is a key, a missing head means that somebody removed it.
            audit.sign_first_head().await?;
            audit.key.store(&path)?;
        }
        audit.drain().await?;
        audit.pass_watermark().await?;
        Ok(audit)
    }

    #[cfg(test)]
    pub(in crate::system) fn key(&self) -> Arc<ChainKey> {
        self.key.clone()
    }

    /// Records an action that had no transaction in `app` of its own: one that failed, or one of another part.
    pub async fn record(&self, action: Action) -> Result<()> {
        self.app.record(action).await
    }

    /// Does an action in a task of its own, so that a client that goes away does not stop it half way, and records
    /// its failure. If it succeeds it has left its own entry, in the transaction of what it did.
    pub async fn attempt<T, F>(&self, by: &By, action: &'static str, target: Option<String>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (audit, by) = (self.clone(), by.clone());
        let task = tokio::spawn(async move {
            let done = work.await;
            if let Err(error) = &done
                && let Err(unrecorded) = audit.record(by.failed(action, target, error)).await
            {
                tracing::error!(%unrecorded, action, actor = by.actor, "a failed action could not be written to the audit log");
            }
            done
        });
        task.await.unwrap_or_else(|ended| Err(Error::internal("an administrative task ended early", &ended)))
    }

    /// Entries, newest first, with everything that was committed before the call.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Entry>> {
        self.drain().await?;
        self.mark.audit_list(filter).await
    }
}

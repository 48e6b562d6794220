//! A [`Change`] is a key while what its entry is made of is being changed elsewhere, in the tenant's database. The entry is
//! thrown away before the change, nobody gets the right to fill it meanwhile, and it is set, if at all, after the change
//! and before the right is free again. So no moment, and no crash at any moment, leaves under the key what was before.
//!
//! - [`Cache::settle`] sets the entry only if nobody else wrote the key, threw it away or changed it since the beginning;
//!   otherwise it deletes what may have been set meanwhile, since nobody knows whether that is older than the change.
//! - A cache file that fails costs the setting, never the change: it is made anew, or there is none.

use std::sync::Arc;
use std::time::Duration;

use super::fill::Ending;
use super::{Cache, Conditions, Done, Etag, Key, Op, Put, written};
use crate::error::{Code, Error, Result};

/// How often the entry of a change that could not set it is deleted, until that is done, and after how long again: each time
/// so much longer.
const RETRACTIONS: u32 = 5;
const RETRACTION: Duration = Duration::from_millis(100);

/// Ends when it is dropped. Keep it for as long as the change may still be made.
pub struct Change {
    key: Key,
    ending: Arc<Ending>,
}

impl Cache<'_> {
    /// Begins a change of what `key` is made of, with nothing under the key from here on. Errors: those of a file that takes
    /// no write and cannot be given up; it could still answer with what was before.
    pub async fn begin_change(&self, key: Key) -> Result<Change> {
        let change = self.begin_late_change(key);
        self.retract(&change).await?;
        Ok(change)
    }

    /// The same with the entry left where it is, since it is what the change brings: see [`Cache::confirm`].
    pub fn begin_late_change(&self, key: Key) -> Change {
        let ending = Arc::new(self.memory.fills().change(self.file, &key));
        Change { key, ending }
    }

    /// The change is made. Sets the entry as `put` has it, or says why it is not there now; `None` where it cannot be stored.
    pub async fn settle(&self, change: Change, put: Put) -> Result<Option<Etag>> {
        let put = Put { key: change.key.clone(), fill: Some(change.ending.clone()), ..put };
        let refused = match self.change_entry(Op::Put(put)).await {
            Ok(Done::Put(etag)) => return Ok(etag),
            Ok(Done::Refused(error)) | Err(error) => error,
            Ok(other) => return Err(super::unexpected(&other)),
        };
        // Whatever the reason: others may have set it meanwhile.
        let mut tries = 1;
        while let Err(error) = self.retract(&change).await {
            if tries == RETRACTIONS {
                tracing::warn!(%error, "what others set during a change could not be thrown away");
                break;
            }
            tokio::time::sleep(RETRACTION * tries).await;
            tries += 1;
        }
        Err(refused)
    }

    /// The change is made, after the entry that it brings was set: deletes any other, and what cannot be read, which may be one.
    pub async fn confirm(&self, change: &Change, brought: &Put) -> Result<()> {
        match self.look_up(change.key.clone()).await {
            Ok(None) => Ok(()),
            Ok(Some(found)) if found.value == brought.value && found.content_type == brought.content_type => Ok(()),
            Err(error) if error.code() != Code::TenantUnavailable => Err(error),
            Ok(Some(_)) | Err(_) => self.retract(change).await,
        }
    }

    /// Deletes whatever the key holds.
    pub async fn retract(&self, change: &Change) -> Result<()> {
        self.change_entry(Op::Delete { key: change.key.clone(), conditions: Conditions::default() }).await.map(drop)
    }

    /// One operation by who holds the key's fill.
    async fn change_entry(&self, op: Op) -> Result<Done> {
        let ops = vec![op];
        let keys = written(&ops);
        self.run(ops, keys).await?.pop().ok_or_else(|| Error::internal("one operation has no outcome", &"none"))
    }
}

#[cfg(test)]
mod tests;

//! A wake-up is a moment at which something must be done for a tenant although nobody asks: a schedule falls due, a
//! delivery is to be tried again. `app` has the earliest one of each tenant, so that no tenant's files have to be
//! opened to know that there is nothing to do; the server's waker looks into those whose moment has come.
//!
//! Invariant: what is to be done at an instant, and is committed in a tenant's file, has a row in `app` with that
//! instant or an earlier one. A crash may leave a row without a cause, never a cause without a row:
//!
//! - Whoever is about to commit a cause takes a [`Hold`] first, and drops it after the commit. The hold is given when
//!   the row is on the disk.
//! - Whoever has looked and puts the moment off ([`Resting::settle`]) does so only if nobody held anything while it
//!   looked, and nobody has asked since: those came after the look, or were seen by it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::Millis;
use crate::error::Result;
use crate::system::App;

pub struct Wakeups {
    app: App,
    known: Mutex<HashMap<Uuid, Known>>,
    released: Notify,
}

/// What is known of a tenant's row while somebody holds it or looks into the tenant.
struct Known {
    /// The row has this or an earlier moment; [`Millis::MAX`] when that is not known.
    by: Millis,
    holds: usize,
}

/// The tenant is looked into at `by` at the latest, also after a crash, for what is committed while this lives.
pub struct Hold {
    wakeups: Arc<Wakeups>,
    tenant: Uuid,
    by: Millis,
}

/// A look has begun that may put the moment off.
pub struct Resting<'a> {
    wakeups: &'a Wakeups,
    tenant: Uuid,
    asked: Option<i64>,
}

impl Wakeups {
    pub fn new(app: App) -> Arc<Wakeups> {
        Arc::new(Wakeups { app, known: Mutex::default(), released: Notify::new() })
    }

    /// Sees to it that the tenant is looked into at `at`. Costs a commit of `app` unless that is so already.
    pub async fn hold(self: &Arc<Self>, tenant: Uuid, at: Millis) -> Result<Hold> {
        let mut hold = self.step_in(tenant);
        if hold.by > at {
            self.app.wakeup_by(tenant, at).await?;
            if let Some(known) = self.known().get_mut(&tenant) {
                known.by = at.min(known.by);
            }
            hold.by = at;
        }
        Ok(hold)
    }

    /// A hold on what is seen to already, if anything is. Costs no commit.
    pub fn held(self: &Arc<Self>, tenant: Uuid) -> Option<Hold> {
        let is_known = self.known().get(&tenant).is_some_and(|known| known.by < Millis::MAX);
        is_known.then(|| self.step_in(tenant)).filter(|hold| hold.by < Millis::MAX)
    }

    /// The row says that the tenant's moment came at `at`: those who work in its files need not ask again meanwhile.
    pub fn begun(&self, tenant: Uuid, at: Millis) {
        let mut known = self.known();
        let known = known.entry(tenant).or_insert(Known { by: at, holds: 0 });
        known.by = at.min(known.by);
    }

    /// Begins a look that may put the moment off. `None` while somebody holds it: what they are about to commit could
    /// not be seen.
    pub async fn resting(&self, tenant: Uuid) -> Result<Option<Resting<'_>>> {
        // Before the holds are counted: who comes in between changes it, or is counted.
        let asked = self.app.wakeup_asked(tenant).await?;
        let mut known = self.known();
        if known.get(&tenant).is_some_and(|known| known.holds > 0) {
            return Ok(None);
        }
        known.remove(&tenant);
        Ok(Some(Resting { wakeups: self, tenant, asked }))
    }

    /// Until somebody lets go of some tenant.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    fn step_in(self: &Arc<Self>, tenant: Uuid) -> Hold {
        let mut all = self.known();
        let known = all.entry(tenant).or_insert(Known { by: Millis::MAX, holds: 0 });
        known.holds += 1;
        Hold { wakeups: self.clone(), tenant, by: known.by }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Uuid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    pub fn by(&self) -> Millis {
        self.by
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.wakeups.known();
        let Some(known) = all.get_mut(&self.tenant) else { return };
        known.holds -= 1;
        if known.holds == 0 {
            if known.by == Millis::MAX {
                all.remove(&self.tenant);
            }
            drop(all);
            self.wakeups.released.notify_waiters();
        }
    }
}

impl Resting<'_> {
    /// The look found nothing to do before `next`. False when somebody has come meanwhile: look again.
    pub async fn settle(self, next: Option<Millis>) -> Result<bool> {
        match self.asked {
            Some(asked) => self.wakeups.app.wakeup_settle(self.tenant, asked, next).await,
            None => Ok(next.is_none()),
        }
    }
}

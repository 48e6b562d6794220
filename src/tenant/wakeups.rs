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

use crate::clock::{Millis, now_ms};
use crate::error::Result;
use crate::system::App;

pub struct Wakeups {
    app: App,
    known: Mutex<HashMap<Uuid, Known>>,
    released: Notify,
}

/// What is known of a tenant's row while somebody holds it, or while its moment has come.
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

    /// Whether the tenant has a moment.
    pub async fn is_kept(&self, tenant: Uuid) -> Result<bool> {
        Ok(self.app.wakeup_asked(tenant).await?.is_some())
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
            // What is far off is asked for again by whoever comes: that costs a commit, and no memory until then.
            if known.by > now_ms() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Durability, Telemetry};
    use crate::sqlite::Engine;
    use crate::system::Systems;
    use crate::system::app::{Answer, NewTenant, Patch, State, TokenRow};
    use crate::system::audit::By;

    struct Bed {
        systems: Systems,
        wakeups: Arc<Wakeups>,
        tenant: Uuid,
        _folder: tempfile::TempDir,
    }

    async fn bed() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap().join("system");
        std::fs::create_dir(&dir).unwrap();
        let config = Config::default();
        let engine = Engine::start(&config.sqlite, &config.executor);
        let systems = Systems::open(&engine, &dir, &Durability::default(), &Telemetry::default()).await.unwrap();
        let (id, text) = (Uuid::now_v7(), || "t".to_owned());
        systems.app.tenant_begin(NewTenant { id, slug: text(), name: text(), plan: text() }, None).await.unwrap();
        let token = TokenRow {
            jti: Uuid::now_v7(),
            tenant_id: id,
            sub: text(),
            role: text(),
            scopes: text(),
            created_at: 0,
            expires_at: i64::MAX,
            revoked_at: None,
        };
        let action = by().did("tenant.create", None, serde_json::json!({}));
        systems.app.tenant_activate(id, token, None, |_| Answer { status: 201, body: Vec::new() }, action).await.unwrap();
        Bed { wakeups: Wakeups::new(systems.app.clone()), systems, tenant: id, _folder: folder }
    }

    fn by() -> By {
        By { actor: "root".to_owned(), request_id: Uuid::now_v7() }
    }

    impl Bed {
        async fn hold(&self, at: Millis) -> Hold {
            self.wakeups.hold(self.tenant, at).await.unwrap()
        }

        async fn rest(&self) -> Option<Resting<'_>> {
            self.wakeups.resting(self.tenant).await.unwrap()
        }

        async fn due(&self, now: Millis) -> Vec<Millis> {
            self.systems.app.wakeups_due(now, 10).await.unwrap().into_iter().map(|due| due.at).collect()
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_moment_is_put_off_only_by_who_has_seen_everything() {
        let bed = bed().await;
        let hold = bed.hold(50).await;
        assert_eq!(bed.due(100).await, [50]);
        assert!(bed.rest().await.is_none(), "what it is for may not be committed yet");
        drop(hold);
        let resting = bed.rest().await.unwrap();
        drop(bed.hold(60).await);
        assert!(!resting.settle(Some(500)).await.unwrap(), "somebody came after the look");
        assert_eq!(bed.due(100).await, [50]);
        assert!(bed.rest().await.unwrap().settle(Some(500)).await.unwrap());
        assert_eq!((bed.due(100).await, bed.due(500).await), (vec![], vec![500]));
        drop(bed.hold(400).await);
        assert_eq!(bed.due(450).await, [400]);
        assert!(bed.rest().await.unwrap().settle(None).await.unwrap());
        assert!(bed.due(Millis::MAX).await.is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_seen_to_already_is_held_without_a_commit() {
        let bed = bed().await;
        assert!(bed.wakeups.held(bed.tenant).is_none());
        let first = bed.hold(50).await;
        let asked = bed.systems.app.wakeup_asked(bed.tenant).await.unwrap();
        let (second, third) = (bed.hold(70).await, bed.wakeups.held(bed.tenant).unwrap());
        assert_eq!((second.by(), third.by()), (50, 50));
        assert_eq!(bed.systems.app.wakeup_asked(bed.tenant).await.unwrap(), asked);
        drop((first, second));
        assert!(bed.rest().await.is_none());
        drop(third);
        assert!(bed.rest().await.is_some());
        assert!(bed.wakeups.held(bed.tenant).is_none(), "a look that may put it off has begun");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_not_active_sleeps_until_it_is() {
        let bed = bed().await;
        drop(bed.hold(50).await);
        let set = async |state| {
            let action = by().did("tenant.update", None, serde_json::json!({}));
            bed.systems.app.tenant_patch(bed.tenant, Patch { state: Some(state), ..Patch::default() }, action).await.unwrap();
        };
        set(State::Suspended).await;
        assert!(bed.due(100).await.is_empty());
        drop(bed.hold(40).await);
        assert!(bed.due(100).await.is_empty());
        set(State::Active).await;
        assert_eq!(bed.due(100).await, [40]);
    }
}

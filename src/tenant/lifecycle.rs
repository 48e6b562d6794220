//! The life of a tenant: provisioned, changed, deleted, brought back, purged. Each step is a change of its row in
//! `app` and a move of its folder, in an order that leaves a crash nothing but a row that is not `settled`,
//! which [`Lifecycle::recover`] settles at the next start.
//!
//! - Files appear after the row and go before it.
//! - A tenant is fenced before its files move or its state changes: nobody is inside, nothing is open.
//! - Every call runs in a task of its own: a client that goes away does not stop it half way.
//! - Every call leaves its audit entry, a failed one too.

mod files;
mod inspect;
mod provision;
mod recover;
mod tokens;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Mutex, MutexGuard, Semaphore};

pub use inspect::{Details, FileDetails};
pub use provision::{BATCH_MAX, Provisioned, Wish};
pub use recover::Recovered;
pub use tokens::TokenWish;

use super::registry::Registry;
use super::target::Target;
use super::{Layout, TenantId, Triples};
use crate::auth::{Signer, Verifier};
use crate::config;
use crate::error::{Error, Result};
use crate::sqlite::Engine;
use crate::system::app::{Patch, State, TenantRow, no_tenant};
use crate::system::audit::By;
use crate::system::{App, Audit};

/// Tenants provisioned at once; the others wait.
const PROVISIONING_MAX: usize = 16;

/// Calls about the same tenant take turns. So do, now and then, calls about two tenants whose ids end alike.
const TURNS: usize = 64;

/// What a [`Lifecycle`] works with.
pub struct Parts {
    pub layout: Layout,
    pub engine: Arc<Engine>,
    pub app: App,
    pub audit: Audit,
    pub registry: Arc<Registry>,
    pub triples: Arc<Triples>,
    pub signer: Arc<Signer>,
    pub verifier: Arc<Verifier>,
    pub target: Arc<Target>,
}

/// A handle; clones are the same.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    /// How long a fence waits for what runs.
    drain: Duration,
    /// How long after its end a token is still taken.
    leeway: Duration,
    /// Lives of tokens, in seconds: when nothing is asked for, and of the service token.
    token_ttl_s: u64,
    service_token_ttl_s: u64,
    provisioning: Semaphore,
    turns: [Mutex<()>; TURNS],
}

impl std::ops::Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Lifecycle {
    pub fn new(parts: Parts, tenants: &config::Tenants, auth: &config::Auth) -> Lifecycle {
        Lifecycle {
            inner: Arc::new(Inner {
                parts,
                drain: Duration::from_millis(tenants.drain_ms),
                leeway: Duration::from_secs(auth.leeway_s),
                token_ttl_s: auth.token_ttl_s.min(auth.token_max_ttl_s),
                service_token_ttl_s: auth.token_max_ttl_s,
                provisioning: Semaphore::new(PROVISIONING_MAX),
                turns: std::array::from_fn(|_| Mutex::new(())),
            }),
        }
    }

    /// Changes name, plan or state. A new plan or state first empties the tenant, so that no request runs under
    /// the old one once this has returned.
    pub async fn patch(&self, by: By, id: TenantId, patch: Patch) -> Result<TenantRow> {
        let details = json!({ "name": patch.name, "plan": patch.plan, "state": patch.state.map(State::as_str) });
        let action = match patch.state {
            Some(State::Suspended) => "tenant.suspend",
            Some(_) => "tenant.resume",
            None => "tenant.update",
        };
        self.run(by, action, Some(id), move |inner, by| async move {
            patch.plan.as_deref().map_or(Ok(()), |plan| inner.known_plan(plan))?;
            patch.name.as_deref().map_or(Ok(()), provision::check_name)?;
            let _turn = inner.turn(id).await;
            let row = inner.existing(id).await?;
            let same_plan = patch.plan.as_ref().is_none_or(|plan| *plan == row.plan);
            let same_state = patch.state.is_none_or(|state| state == row.state);
            let _fence = match same_plan && same_state {
                true => None,
                false => Some(inner.triples.fence(id, inner.drain).await?),
            };
            let _changed = inner.changing(id);
            inner.app.tenant_patch(id.uuid(), patch, by.did(action, Some(id.to_string()), details)).await
        })
        .await
    }

    /// Takes the tenant from everybody and its files to the trash. Its slug is free from then on.
    pub async fn delete(&self, by: By, id: TenantId) -> Result<TenantRow> {
        self.run(by, "tenant.delete", Some(id), move |inner, by| async move {
            let _turn = inner.turn(id).await;
            let details = json!({ "slug": inner.existing(id).await?.slug });
            let _fence = inner.triples.fence(id, inner.drain).await?;
            let changed = inner.changing(id);
            let row = inner.app.tenant_delete(id.uuid(), by.did("tenant.delete", Some(id.to_string()), details)).await?;
            drop(changed);
            inner.verifier.forget_tenant(id.uuid());
            match inner.to_trash(id).await {
                Ok(row) => Ok(row),
                Err(error) => {
                    // Deleted it is; the next start, an undelete or a purge finds the files where they are.
                    tracing::error!(%error, tenant = %id, "the files of a deleted tenant are not in the trash yet");
                    Ok(row)
                }
            }
        })
        .await
    }

    /// Brings a deleted tenant back, active or suspended as it was, unless its slug was given to another.
    pub async fn undelete(&self, by: By, id: TenantId) -> Result<TenantRow> {
        self.run(by, "tenant.undelete", Some(id), move |inner, by| async move {
            let _turn = inner.turn(id).await;
            let details = json!({ "slug": inner.existing(id).await?.slug });
            let _fence = inner.triples.fence(id, inner.drain).await?;
            inner.app.tenant_undelete_begin(id.uuid()).await?;
            if let Err(error) = inner.blocking(move |inner| files::from_trash(&inner.layout, id)).await {
                // In the trash it stays, or what there is of it.
                inner.to_trash(id).await?;
                return Err(error);
            }
            let _changed = inner.changing(id);
            let back = inner.app.tenant_undeleted(id.uuid(), by.did("tenant.undelete", Some(id.to_string()), details)).await;
            if back.as_ref().is_err_and(|error| !undecided(error)) {
                inner.to_trash(id).await?;
            }
            back
        })
        .await
    }

    /// Removes a deleted tenant for good. Returns it as it last was.
    pub async fn purge(&self, by: By, id: TenantId) -> Result<TenantRow> {
        self.run(by, "tenant.purge", Some(id), move |inner, by| async move {
            let _turn = inner.turn(id).await;
            let details = json!({ "slug": inner.existing(id).await?.slug });
            let _fence = inner.triples.fence(id, inner.drain).await?;
            let _changed = inner.changing(id);
            let row = inner.app.tenant_purge_begin(id.uuid(), by.did("tenant.purge", Some(id.to_string()), details)).await?;
            inner.verifier.forget_tenant(id.uuid());
            inner.blocking(move |inner| files::remove(&inner.layout, id)).await?;
            inner.app.tenant_purged(id.uuid()).await?;
            Ok(row)
        })
        .await
    }

    /// Does the work in a task of its own and leaves an audit entry if it fails ([`Audit::attempt`]).
    async fn run<T, F>(&self, by: By, action: &'static str, id: Option<TenantId>, work: impl FnOnce(Arc<Inner>, By) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let work = work(self.inner.clone(), by.clone());
        self.inner.audit.attempt(&by, action, id.map(|id| id.to_string()), work).await
    }
}

impl Inner {
    async fn existing(&self, id: TenantId) -> Result<TenantRow> {
        self.app.tenant(id.uuid()).await?.ok_or_else(|| no_tenant(id.uuid()))
    }

    async fn turn(&self, id: TenantId) -> MutexGuard<'_, ()> {
        self.turns[usize::from(id.uuid().as_bytes()[15]) % TURNS].lock().await
    }

    async fn blocking<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.clone();
        self.engine.blocking(move || work(&inner)).await
    }

    async fn to_trash(self: &Arc<Self>, id: TenantId) -> Result<TenantRow> {
        self.blocking(move |inner| files::to_trash(&inner.layout, id)).await?;
        self.app.tenant_trashed(id.uuid()).await
    }

    /// While this is held the tenant's row may change; dropped, the registry reads it again, whatever came of it.
    fn changing(&self, id: TenantId) -> Changing<'_> {
        Changing { registry: &self.registry, id }
    }

    fn known_plan(&self, plan: &str) -> Result<()> {
        if self.registry.plans().contains_key(plan) {
            return Ok(());
        }
        let plan: String = plan.chars().take(64).collect();
        let names: Vec<_> = self.registry.plans().keys().map(String::as_str).collect();
        Err(Error::bad_request(format!("there is no plan `{plan}`")).hint(format!("The configuration has: {}.", names.join(", "))))
    }
}

/// The outcome of the commit is not known.
fn undecided(error: &Error) -> bool {
    error.code() == crate::error::Code::Unknown
}

struct Changing<'a> {
    registry: &'a Registry,
    id: TenantId,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.registry.changed(self.id);
    }
}

#[cfg(test)]
mod tests;

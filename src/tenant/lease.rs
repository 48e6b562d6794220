//! From a tenant that was looked up to a lease of its files. The look and the lease are two moments; what is given
//! here holds for both. [`Files`] are those of a tenant or the operator's own, for what works on either.

use std::sync::Arc;

use super::registry::{Moment, Registry, Tenant};
use super::triples::LeasedBefore;
use super::{Lease, TenantId, Triples};
use crate::error::Result;
use crate::sqlite::{Allowance, Database};
use crate::system::Systems;

/// A queue and a cache that may be used.
pub enum Files {
    Tenant(Lease),
    /// Open as long as the server runs.
    Operator(Arc<Systems>),
}

impl Files {
    pub fn queue(&self) -> &Arc<Database> {
        match self {
            Files::Tenant(lease) => lease.queue(),
            Files::Operator(systems) => &systems.queue,
        }
    }

    pub fn cache(&self) -> &Arc<Database> {
        match self {
            Files::Tenant(lease) => lease.cache(),
            Files::Operator(systems) => &systems.cache,
        }
    }

    /// What its owner's answers may take.
    pub fn answers(&self) -> &Arc<Allowance> {
        match self {
            Files::Tenant(lease) => lease.answers(),
            Files::Operator(systems) => &systems.answers,
        }
    }
}

/// Looks the tenant up and leases its files.
pub async fn lease(registry: &Registry, triples: &Arc<Triples>, id: TenantId) -> Result<Lease> {
    let known = registry.moment(id);
    lease_of(registry, triples, &*registry.active(id).await?, known, &LeasedBefore::default()).await
}

/// Leases the files of a tenant that was looked up at `known` or after it, and whose lease some have had `before`.
pub async fn lease_of(registry: &Registry, triples: &Arc<Triples>, tenant: &Tenant, known: Moment, before: &LeasedBefore) -> Result<Lease> {
    let mut plan = &tenant.plan;
    let mut now;
    loop {
        let lease = match triples.lease_again(tenant.id, before) {
            Some(lease) => lease?,
            None => triples.lease(tenant.id, plan).await?,
        };
        // Suspending, deleting and changing the plan fence the triple: what holds now that the lease is held,
        // holds until it is given back. What was looked up before may be over.
        if Arc::ptr_eq(lease.plan(), &tenant.plan) && registry.unchanged_since(tenant.id, known) {
            return Ok(lease);
        }
        now = registry.active(tenant.id).await?;
        if Arc::ptr_eq(lease.plan(), &now.plan) {
            return Ok(lease);
        }
        // Somebody who knew the old plan only opened the triple under it.
        drop(lease);
        triples.reopen(tenant.id).await?;
        plan = &now.plan;
    }
}

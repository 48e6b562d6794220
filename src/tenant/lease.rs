//! From a tenant that was looked up to a lease of its files. The look and the lease are two moments; what is given
//! here holds for both.

use std::sync::Arc;

use super::registry::{Moment, Registry, Tenant};
use super::{Lease, TenantId, Triples};
use crate::error::Result;

/// Looks the tenant up and leases its files.
pub async fn lease(registry: &Registry, triples: &Arc<Triples>, id: TenantId) -> Result<Lease> {
    let known = registry.moment(id);
    lease_of(registry, triples, &*registry.active(id).await?, known).await
}

/// Leases the files of a tenant that was looked up at `known` or after it.
pub async fn lease_of(registry: &Registry, triples: &Arc<Triples>, tenant: &Tenant, known: Moment) -> Result<Lease> {
    let mut plan = tenant.plan.clone();
    loop {
        let lease = triples.lease(tenant.id, &plan).await?;
        // Suspending, deleting and changing the plan fence the triple: what holds now that the lease is held,
        // holds until it is given back. What was looked up before may be over.
        if Arc::ptr_eq(lease.plan(), &tenant.plan) && registry.unchanged_since(tenant.id, known) {
            return Ok(lease);
        }
        let now = registry.active(tenant.id).await?;
        if Arc::ptr_eq(lease.plan(), &now.plan) {
            return Ok(lease);
        }
        // Somebody who knew the old plan only opened the triple under it.
        drop(lease);
        triples.reopen(tenant.id).await?;
        plan = now.plan.clone();
    }
}

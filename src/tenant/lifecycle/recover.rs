//! What a crash left half way, settled before the first request: only the rows that say so are looked at, so a
//! start costs what there is to mend, not what there is.

use super::{Lifecycle, files};
use crate::error::Result;
use crate::system::app::{State, TenantRow};
use crate::tenant::TenantId;

/// Rows looked at in one step.
const STEP: u32 = 256;

/// What was settled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Half-provisioned tenants removed.
    pub abandoned: u64,
    /// Deleted tenants whose files are now in the trash.
    pub trashed: u64,
    /// Purges finished.
    pub purged: u64,
    /// Left for the next start; each is in the log.
    pub failed: u64,
}

impl Lifecycle {
    /// Settles what is not settled and tells the verifier which tokens are revoked. Called once, before the first
    /// request.
    pub async fn recover(&self) -> Result<Recovered> {
        for (jti, expires_at) in self.inner.app.tokens_revoked(self.inner.leeway).await? {
            self.inner.verifier.revoke(jti, expires_at / 1_000);
        }
        let mut recovered = Recovered::default();
        let mut after = None;
        loop {
            let rows = self.inner.app.tenants_unsettled(after, STEP).await?;
            let Some(last) = rows.last() else { return Ok(recovered) };
            after = Some(last.id);
            for row in rows {
                match self.settle(&row).await {
                    Ok(()) => match row.state {
                        State::Provisioning => recovered.abandoned += 1,
                        State::Purging => recovered.purged += 1,
                        _ => recovered.trashed += 1,
                    },
                    Err(error) => {
                        recovered.failed += 1;
                        tracing::error!(%error, tenant = %row.id, state = row.state.as_str(), "what a crash left of a tenant could not be settled; tried again at the next start");
                    }
                }
            }
        }
    }

    async fn settle(&self, row: &TenantRow) -> Result<()> {
        let id = TenantId::from(row.id);
        let inner = &self.inner;
        match row.state {
            State::Provisioning => {
                inner.blocking(move |inner| files::remove(&inner.layout, id)).await?;
                inner.app.tenant_abandon(row.id, None).await
            }
            State::Purging => {
                inner.blocking(move |inner| files::remove(&inner.layout, id)).await?;
                inner.app.tenant_purged(row.id).await
            }
            State::Deleted => inner.to_trash(id).await.map(drop),
            State::Active | State::Suspended => Ok(()),
        }
    }
}

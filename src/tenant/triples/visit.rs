//! Visits: work on a tenant's files that is not a request's. A visitor never takes a place in the LRU, so going
//! through all tenants closes nobody's files.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Fence, Pass, TenantId, Triples};
use crate::error::{Code, Result};

/// How long a visitor waits for another who has the tenant fenced.
const FENCED_WAIT: Duration = Duration::from_secs(10);

/// Between two looks whether the other is done.
const FENCED_LOOK: Duration = Duration::from_millis(50);

/// How long a visitor lets run what came between its look and its fence.
const LOOK_DRAIN: Duration = Duration::from_secs(5);

/// While it lives the tenant's files stay where they are, and may be read beside whoever uses them.
pub enum Visit {
    /// The files are in use, or may be.
    Inside(Pass),
    /// Nobody has them open.
    Alone(Fence),
}

impl Triples {
    /// To read files. Disturbs nobody: who comes meanwhile to a tenant that was not in use waits.
    pub async fn look_in(self: &Arc<Self>, id: TenantId) -> Result<Visit> {
        let live = self.live().get(&id).cloned();
        match live.and_then(|triple| triple.gate.enter()) {
            Some(pass) => Ok(Visit::Inside(pass)),
            None => self.hold_up(id, LOOK_DRAIN).await.map(Visit::Alone),
        }
    }

    /// To change files. Waits `drain` for what runs, stops it then, and closes them; who comes meanwhile waits.
    pub async fn hold_up(self: &Arc<Self>, id: TenantId, drain: Duration) -> Result<Fence> {
        let until = Instant::now() + FENCED_WAIT;
        loop {
            match self.fence_as(id, drain, true).await {
                Err(error) if error.code() == Code::Conflict && Instant::now() < until => tokio::time::sleep(FENCED_LOOK).await,
                done => return done,
            }
        }
    }
}

impl super::Triple {
    /// Whether who comes now waits for the fence to go instead of being sent away.
    pub(super) fn is_held_up(&self) -> bool {
        self.held_up.load(Relaxed)
    }
}

//! The waker does for tenants what is due although nobody asks: it fires schedules, delivers to webhooks and writes behind caches. It sleeps
//! until the first moment that `app` has ([`Wakeups`]), then tends to that tenant, and only that one's files are opened.
//! The operator's own queue, which is open anyway, is tended to all the time.
//!
//! Bounds: [`TENDED_MAX`] tenants tended to at once beside those for which something is under way, [`LOOKS_MAX`] of them with their files in use, `queue.deliveries`
//! requests under way and `queue.deliveries_per_tenant` of one tenant; and apart from those, since whom a request waits for is
//! not ours, [`WRITES_MAX`] writes. Tending holds no lease while it waits, so a tenant
//! is suspended, deleted and closed as if nobody did; what it then misses is done when it is back.

mod failing;
mod permits;
mod places;
mod tend;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::relay::Relay;
use crate::cache::Memory;
use crate::clock::{Millis, now_ms};
use crate::config;
use crate::error::Result;
use crate::queue::{Post, Waiters};
use crate::rest::InForce;
use crate::system::{App, Systems};
use crate::tenant::registry::Registry;
use crate::tenant::{Triples, Wakeups};
use failing::Failing;
use places::Places;

/// Tenants tended to at once, beside those for which something is under way; the others' moments wait.
const TENDED_MAX: usize = 256;

/// Tenants looked into at once.
const LOOKS_MAX: usize = 8;

/// Writes behind caches under way at once, over all tenants.
const WRITES_MAX: usize = 64;

/// Between two attempts that failed for no tenant's reason; and between two looks into the outbox of one that is tended to.
const RETRY: Duration = Duration::from_secs(15);

/// The longest that is slept without a look at the clock, which may be set, or stand still with the machine.
const SLICE: Duration = Duration::from_secs(1);

/// What the waker works with.
pub struct Parts {
    pub app: App,
    pub wakeups: Arc<Wakeups>,
    pub registry: Arc<Registry>,
    pub triples: Arc<Triples>,
    pub waiters: Arc<Waiters>,
    pub cache: Arc<Memory>,
    pub post: Arc<Post>,
    pub relay: Relay,
    pub systems: Arc<Systems>,
    pub rules: Arc<InForce>,
}

/// A handle; clones are the same.
#[derive(Clone)]
pub struct Waker {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    looks: Semaphore,
    requests: Arc<Semaphore>,
    requests_of_one: usize,
    writes: Arc<Semaphore>,
    places: Places,
    failing: Failing,
    /// Those who gave their places to others, so that they come for them ever more seldom.
    giving_way: Failing,
    /// What was due before was left by an earlier process.
    began: Millis,
    closing: watch::Sender<bool>,
}

impl std::ops::Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Waker {
    pub fn new(parts: Parts, queue: &config::Queue) -> Waker {
        Waker {
            inner: Arc::new(Inner {
                parts,
                looks: Semaphore::new(LOOKS_MAX),
                requests: Arc::new(Semaphore::new(queue.deliveries)),
                requests_of_one: queue.deliveries_per_tenant,
                writes: Arc::new(Semaphore::new(WRITES_MAX)),
                places: Places::new(TENDED_MAX + queue.deliveries + WRITES_MAX),
                failing: Failing::default(),
                giving_way: Failing::default(),
                began: now_ms(),
                closing: watch::Sender::new(false),
            }),
        }
    }

    /// Runs until [`Waker::close`], and then until what is being delivered is.
    pub async fn run(self) {
        let inner = self.inner;
        let mut closing = inner.closing.subscribe();
        let mut tending = JoinSet::new();
        tending.spawn(inner.clone().tend_to_own());
        let mut tended: HashMap<tokio::task::Id, Uuid> = HashMap::new();
        while !*closing.borrow() {
            // Each is told before what it tells of is looked for.
            let news = inner.app.wakeup_news().notified();
            let next = match inner.begin_due(&mut tending, &mut tended).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "whose moment has come cannot be asked");
                    now_ms() + RETRY.as_millis() as Millis
                }
            };
            tokio::select! {
                () = news => {}
                Some(ended) = tending.join_next_with_id() => {
                    tended.remove(&ended.map_or_else(|panicked| panicked.id(), |(id, ())| id));
                }
                () = until(next) => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
        while tending.join_next().await.is_some() {}
    }

    /// Begins nothing from now on.
    pub fn close(&self) {
        self.inner.closing.send_replace(true);
    }
}

impl Inner {
    /// Begins to tend to those whose moment has come; when the next one's comes.
    async fn begin_due(self: &Arc<Self>, tending: &mut JoinSet<()>, tended: &mut HashMap<tokio::task::Id, Uuid>) -> Result<Millis> {
        let now = now_ms();
        // The rows of those who are tended to stand among them.
        let mut due = self.app.wakeups_due(now, 2 * self.places.max()).await?;
        let had: HashSet<Uuid> = tended.values().copied().collect();
        due.retain(|due| !had.contains(&due.tenant));
        let free = self.places.max().saturating_sub(had.len());
        self.places.are_wanted_by(due.len().saturating_sub(free));
        for due in due.into_iter().take(free) {
            let tenant = due.tenant;
            tended.insert(tending.spawn(self.clone().tend(due)).id(), tenant);
        }
        Ok(self.app.wakeup_after(now).await?.unwrap_or(Millis::MAX))
    }
}

/// Until the clock shows `at`.
async fn until(at: Millis) {
    loop {
        let left = at.saturating_sub(now_ms());
        if left <= 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left.unsigned_abs()).min(SLICE)).await;
    }
}

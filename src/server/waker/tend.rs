//! Tending to one tenant: look into its queue, fire and deliver what is due, until nothing is; then leave the next moment
//! in `app`. A look takes a lease and gives it back; requests are under way between looks, each on a thread that blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Inner, RETRY, until};
use crate::clock::{Millis, now_ms};
use crate::error::{Error, Result};
use crate::queue::{Delivery, Queue, QueueName, Waiting};
use crate::system::app::Due;
use crate::tenant::lease::lease;
use crate::tenant::{Lease, TenantId};

/// After a delivery the tenant is tended to for so long, since further jobs then cost `app` no commit.
const LINGER: Duration = Duration::from_secs(2);

/// Between two looks of which the first found something due and nothing of it to do.
const BREATH: Duration = Duration::from_millis(50);

/// What a look found.
struct Look {
    deliveries: Vec<Delivery>,
    /// When to look again.
    next_at: Option<Millis>,
    /// The queues that have a webhook.
    pushed: Vec<QueueName>,
    listening: Option<Waiting>,
}

/// What is being delivered.
#[derive(Default)]
struct UnderWay {
    requests: JoinSet<()>,
    queues: HashMap<tokio::task::Id, QueueName>,
}

impl UnderWay {
    fn by_queue(&self) -> HashMap<QueueName, usize> {
        let mut counts = HashMap::new();
        for queue in self.queues.values() {
            *counts.entry(queue.clone()).or_default() += 1;
        }
        counts
    }

    /// Until one has ended; for ever if there is none.
    async fn one_ends(&mut self) {
        match self.requests.join_next_with_id().await {
            Some(ended) => drop(self.queues.remove(&ended.map_or_else(|panicked| panicked.id(), |(id, ())| id))),
            None => std::future::pending().await,
        }
    }
}

impl Inner {
    pub(super) async fn tend(self: Arc<Self>, due: Due) {
        self.wakeups.begun(due.tenant, due.at);
        if let Err(error) = self.tend_until_quiet(due.tenant.into()).await {
            tracing::warn!(tenant = %due.tenant, %error, "what is due for a tenant could not be done; it is tried again");
            let put_off = async {
                match self.wakeups.resting(due.tenant).await? {
                    Some(resting) => resting.settle(Some(now_ms() + RETRY.as_millis() as Millis)).await.map(drop),
                    None => Ok(()),
                }
            };
            if let Err(error) = put_off.await {
                tracing::error!(tenant = %due.tenant, %error, "a wake-up could not be put off");
            }
        }
    }

    async fn tend_until_quiet(self: &Arc<Self>, id: TenantId) -> Result<()> {
        let mut closing = self.closing.subscribe();
        let (mut under_way, mut listening, mut lingers_until) = (UnderWay::default(), None, Instant::now());
        let (mut pushed, mut permits) = (Vec::new(), Vec::new());
        while !*closing.borrow() {
            let had_room = !permits.is_empty();
            let look = self.look(id, &under_way, permits.len(), &pushed, listening.take()).await?;
            (pushed, listening) = (look.pushed, look.listening);
            let taken = look.deliveries.len();
            for delivery in look.deliveries {
                let Some(permit) = permits.pop() else { break };
                let queue = delivery.job.queue.clone();
                let task = under_way.requests.spawn(self.clone().deliver(id, delivery, permit)).id();
                under_way.queues.insert(task, queue);
                lingers_until = Instant::now() + LINGER;
            }
            permits.clear();
            let is_due = look.next_at.is_some_and(|at| at <= now_ms());
            let room = self.requests_of_one.saturating_sub(under_way.queues.len());
            if is_due && !pushed.is_empty() && room > 0 {
                if taken == 0 && had_room {
                    tokio::time::sleep(BREATH).await;
                }
                permits = self.permits(room).await?;
                continue;
            }
            let until_next = look.next_at.filter(|_| room > 0).unwrap_or(Millis::MAX);
            let is_near = until_next < now_ms() + LINGER.as_millis() as Millis;
            if under_way.queues.is_empty() && !is_near && Instant::now() >= lingers_until {
                if self.settle(id).await? {
                    return Ok(());
                }
                continue;
            }
            let no_longer = lingers_until.max(Instant::now() + BREATH);
            tokio::select! {
                () = under_way.one_ends() => {}
                () = rung(&mut listening, no_longer) => {}
                () = until(until_next) => {}
                () = tokio::time::sleep_until(no_longer), if under_way.queues.is_empty() => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
        while !under_way.queues.is_empty() {
            under_way.one_ends().await;
        }
        Ok(())
    }

    /// One look into the tenant's queue, with room for so many deliveries.
    async fn look(
        &self,
        id: TenantId,
        under_way: &UnderWay,
        room: usize,
        pushed_before: &[QueueName],
        listening: Option<Waiting>,
    ) -> Result<Look> {
        let _turn = self.turn().await?;
        let lease = self.lease(id).await?;
        let queue = Queue::new(lease.queue(), &self.waiters);
        queue.fire().await?;
        let pushed = queue.pushed().await?;
        let listening = match listening {
            Some(listening) if pushed == pushed_before => Some(listening),
            // Without it, what comes is seen when the others' moments come.
            _ if !pushed.is_empty() => self.waiters.join(lease.queue(), &pushed).ok(),
            _ => None,
        };
        let deliveries = if room > 0 { queue.deliveries(under_way.by_queue(), room).await? } else { Vec::new() };
        let mut counts = under_way.by_queue();
        deliveries.iter().for_each(|delivery| *counts.entry(delivery.job.queue.clone()).or_default() += 1);
        let next_at = queue.next_moment(counts).await?;
        Ok(Look { deliveries, next_at, pushed, listening })
    }

    /// Leaves the next moment in `app`; false if something has come up.
    async fn settle(&self, id: TenantId) -> Result<bool> {
        let Some(resting) = self.wakeups.resting(id.uuid()).await? else {
            // Who holds it is about to commit.
            let _ = tokio::time::timeout(BREATH, self.wakeups.released()).await;
            return Ok(false);
        };
        let _turn = self.turn().await?;
        let lease = self.lease(id).await?;
        let next_at = Queue::new(lease.queue(), &self.waiters).next_moment(HashMap::new()).await?;
        resting.settle(next_at).await
    }

    /// Makes the request, and writes down what came of it.
    async fn deliver(self: Arc<Self>, id: TenantId, delivery: Delivery, permit: OwnedSemaphorePermit) {
        let post = self.post.clone();
        let posted = tokio::task::spawn_blocking(move || {
            let outcome = post.deliver(&delivery);
            (delivery, outcome)
        });
        let settled = async {
            let (delivery, outcome) = posted.await.map_err(|error| Error::internal("a delivery ended early", &error))?;
            drop(permit);
            let lease = self.lease(id).await?;
            Queue::new(lease.queue(), &self.waiters).delivered(delivery, outcome).await
        };
        if let Err(error) = settled.await {
            tracing::warn!(tenant = %id, %error, "what came of a delivery is not written down; it is made again when its lease ends");
        }
    }

    /// One permit for a request, once there is one, and as many more as there are now.
    async fn permits(&self, room: usize) -> Result<Vec<OwnedSemaphorePermit>> {
        let ended = |error| Error::internal("requests cannot be counted any more", &error);
        let mut permits = vec![self.requests.clone().acquire_owned().await.map_err(ended)?];
        while permits.len() < room
            && let Ok(permit) = self.requests.clone().try_acquire_owned()
        {
            permits.push(permit);
        }
        Ok(permits)
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.looks.acquire().await.map_err(|error| Error::internal("looks cannot be counted any more", &error))
    }

    async fn lease(&self, id: TenantId) -> Result<Lease> {
        lease(&self.registry, &self.triples, id).await
    }
}

/// Until something comes for those who listen, at most until `no_longer`; for ever if nobody does.
async fn rung(listening: &mut Option<Waiting>, no_longer: Instant) {
    match listening {
        Some(listening) => drop(listening.woken(None, no_longer).await),
        None => std::future::pending().await,
    }
}

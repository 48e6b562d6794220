//! Tending to one tenant, or to the operator's own: look into the queue, fire and deliver what is due, until nothing is; then leave the next moment
//! in `app`. A look takes a lease and gives it back; requests are under way between looks, each on a thread that blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Inner, RETRY, until};
use crate::clock::{Millis, now_ms};
use crate::error::{Error, Result};
use crate::queue::{Delivery, Queue, QueueName, Waiting};
use crate::system::app::Due;
use crate::tenant::TenantId;
use crate::tenant::lease::{Files, lease};

/// After a delivery the tenant is tended to for so long, since further jobs then cost `app` no commit.
const LINGER: Duration = Duration::from_secs(2);

/// Between two looks of which the first found something due and nothing of it to do.
const BREATH: Duration = Duration::from_millis(50);

/// So many breaths at most, one more after each look that found it still so.
const BREATHS_MAX: u32 = 20;

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

/// How it goes with the outbox of the tenant that is tended to.
struct Relaying {
    /// When it is relayed again, whether or not anything is known to be there.
    next_at: Millis,
    /// It could not be, the last time.
    failed: bool,
}

/// Whose queue is tended to.
#[derive(Clone, Copy)]
enum Whose {
    Tenant(TenantId),
    Operator,
}

impl Inner {
    pub(super) async fn tend(self: Arc<Self>, due: Due) {
        self.wakeups.begun(due.tenant, due.at);
        let Err(error) = self.tend_until_quiet(Whose::Tenant(due.tenant.into())).await else { return };
        tracing::warn!(tenant = %due.tenant, %error, "what is due for a tenant could not be done; it is tried again");
        let until = self.failing.again_at(due.tenant, now_ms());
        if let Err(error) = self.put_off(due.tenant, until).await {
            tracing::error!(tenant = %due.tenant, %error, "a wake-up could not be put off");
            // Its row is still due: whoever returns is begun again.
            self.pause(RETRY).await;
        }
    }

    async fn put_off(&self, tenant: Uuid, until: Millis) -> Result<()> {
        let closing = self.closing.subscribe();
        while !*closing.borrow() {
            if let Some(resting) = self.wakeups.resting(tenant).await? {
                if !resting.settle(Some(until)).await? {
                    // Somebody has asked meanwhile, so it is tended to again, but not in one go.
                    self.pause(BREATH).await;
                }
                return Ok(());
            }
            let _ = tokio::time::timeout(BREATH, self.wakeups.released()).await;
        }
        Ok(())
    }

    /// At most so long: closing ends it.
    async fn pause(&self, time: Duration) {
        let mut closing = self.closing.subscribe();
        let _ = tokio::time::timeout(time, closing.wait_for(|closing| *closing)).await;
    }

    pub(super) async fn tend_to_own(self: Arc<Self>) {
        let closing = self.closing.subscribe();
        while !*closing.borrow() {
            if let Err(error) = self.tend_until_quiet(Whose::Operator).await {
                tracing::warn!(%error, "what is due in the operator's queue could not be done; it is tried again");
                self.pause(RETRY).await;
            }
        }
    }

    async fn tend_until_quiet(self: &Arc<Self>, whose: Whose) -> Result<()> {
        let mut under_way = UnderWay::default();
        let outcome = self.tend_with(whose, &mut under_way).await;
        // Also after a look that failed: a request goes on anyway, and what comes of it is to be written down.
        while !under_way.queues.is_empty() {
            under_way.one_ends().await;
        }
        outcome
    }

    async fn tend_with(self: &Arc<Self>, whose: Whose, under_way: &mut UnderWay) -> Result<()> {
        let mut closing = self.closing.subscribe();
        let (mut listening, mut lingers_until) = (None, Instant::now());
        let (mut pushed, mut permits, mut still_due) = (Vec::new(), Vec::new(), 0);
        let mut relaying = self.relaying(whose);
        while !*closing.borrow() {
            let had_room = !permits.is_empty();
            // The moment may have been left by the relay. While it lasts it may be left again.
            if now_ms() >= relaying.next_at {
                self.relay_first(whose, &mut relaying).await?;
            }
            let look = self.look(whose, under_way, permits.len(), &mut relaying, &pushed, listening.take()).await?;
            (pushed, listening) = (look.pushed, look.listening);
            let taken = look.deliveries.len();
            for delivery in look.deliveries {
                let Some(permit) = permits.pop() else { break };
                let queue = delivery.job.queue.clone();
                let task = under_way.requests.spawn(self.clone().deliver(whose, delivery, permit)).id();
                under_way.queues.insert(task, queue);
                lingers_until = Instant::now() + LINGER;
            }
            permits.clear();
            let is_due = look.next_at.is_some_and(|at| at <= now_ms());
            let room = self.requests_of_one.saturating_sub(under_way.queues.len());
            // What a look leaves due although it had all it needs is not done any better by looking again at once.
            let is_left = is_due && room > 0 && taken == 0 && (had_room || pushed.is_empty());
            still_due = if is_left { BREATHS_MAX.min(still_due + 1) } else { 0 };
            self.pause(BREATH * still_due).await;
            if is_due && !pushed.is_empty() && room > 0 {
                permits = self.permits(room).await?;
                continue;
            }
            let until_next = look.next_at.filter(|_| room > 0).unwrap_or(Millis::MAX);
            let is_near = until_next < now_ms() + LINGER.as_millis() as Millis;
            if under_way.queues.is_empty() && !is_near && Instant::now() >= lingers_until {
                if self.settle(whose, &mut relaying).await? {
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
        Ok(())
    }

    /// What failed a while ago is not tried again because something else is due.
    fn relaying(&self, whose: Whose) -> Relaying {
        let failed_until = match whose {
            Whose::Tenant(id) => self.failing.until(id.uuid()),
            Whose::Operator => None,
        };
        Relaying { next_at: failed_until.unwrap_or(0), failed: failed_until.is_some() }
    }

    /// Relays before the look.
    async fn relay_first(&self, whose: Whose, relaying: &mut Relaying) -> Result<()> {
        let _turn = self.turn().await?;
        self.relay(whose, &self.files(whose).await?, relaying).await;
        Ok(())
    }

    /// Where it fails, what else is to be done is done all the same, and the tenant is not left without a moment at which it
    /// is made good.
    async fn relay(&self, whose: Whose, files: &Files, relaying: &mut Relaying) {
        *relaying = Relaying { next_at: now_ms() + RETRY.as_millis() as Millis, failed: false };
        if let (Whose::Tenant(id), Files::Tenant(lease)) = (whose, files)
            && let Err(error) = self.relay.relay(lease).await
        {
            tracing::warn!(tenant = %id, %error, "an outbox could not be relayed; it is tried again");
            *relaying = Relaying { next_at: self.failing.again_at(id.uuid(), now_ms()), failed: true };
        }
    }

    /// One look into the tenant's queue, with room for so many deliveries.
    async fn look(
        &self,
        whose: Whose,
        under_way: &UnderWay,
        room: usize,
        relaying: &mut Relaying,
        pushed_before: &[QueueName],
        listening: Option<Waiting>,
    ) -> Result<Look> {
        let _turn = self.turn().await?;
        let files = self.files(whose).await?;
        let queue = Queue::new(files.queue(), &self.waiters);
        queue.fire().await?;
        if !relaying.failed && queue.outbox_retry_at().await?.is_some_and(|at| at <= now_ms()) {
            self.relay(whose, &files, relaying).await;
        }
        let pushed = queue.pushed().await?;
        let listening = match listening {
            Some(listening) if pushed == pushed_before => Some(listening),
            // Without it, what comes is seen when the others' moments come.
            _ if !pushed.is_empty() => self.waiters.join(files.queue(), &pushed).ok(),
            _ => None,
        };
        let deliveries = if room > 0 { queue.deliveries(under_way.by_queue(), room).await? } else { Vec::new() };
        let mut counts = under_way.by_queue();
        deliveries.iter().for_each(|delivery| *counts.entry(delivery.job.queue.clone()).or_default() += 1);
        let next_at = next_moment(&queue, counts, relaying).await?;
        Ok(Look { deliveries, next_at, pushed, listening })
    }

    /// Leaves the next moment in `app`, or waits for it; false if something has come up.
    async fn settle(&self, whose: Whose, relaying: &mut Relaying) -> Result<bool> {
        let Whose::Tenant(id) = whose else {
            let mut closing = self.closing.subscribe();
            let files = self.files(whose).await?;
            let next_at = next_moment(&Queue::new(files.queue(), &self.waiters), HashMap::new(), relaying).await?;
            tokio::select! {
                () = until(next_at.unwrap_or(Millis::MAX)) => {}
                () = self.waiters.own_news() => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
            return Ok(false);
        };
        let Some(resting) = self.wakeups.resting(id.uuid()).await? else {
            // Who holds it is about to commit.
            let _ = tokio::time::timeout(BREATH, self.wakeups.released()).await;
            return Ok(false);
        };
        // After the asking is counted: what the relay left before that is what is looked for here.
        let _turn = self.turn().await?;
        let files = self.files(whose).await?;
        if !relaying.failed {
            self.relay(whose, &files, relaying).await;
        }
        let next_at = next_moment(&Queue::new(files.queue(), &self.waiters), HashMap::new(), relaying).await?;
        let settled = resting.settle(next_at).await?;
        if settled && !relaying.failed {
            self.failing.over(id.uuid());
        }
        Ok(settled)
    }

    /// Makes the request, and writes down what came of it.
    async fn deliver(self: Arc<Self>, whose: Whose, delivery: Delivery, permit: OwnedSemaphorePermit) {
        let post = self.post.clone();
        let posted = tokio::task::spawn_blocking(move || {
            let outcome = post.deliver(&delivery);
            // Here, where it has really ended: nothing aborts this thread.
            drop(permit);
            (delivery, outcome)
        });
        let settled = async {
            let (delivery, outcome) = posted.await.map_err(|error| Error::internal("a delivery ended early", &error))?;
            Queue::new(self.files(whose).await?.queue(), &self.waiters).delivered(delivery, outcome).await
        };
        if let Err(error) = settled.await {
            tracing::warn!(%error, "what came of a delivery is not written down; it is made again when its lease ends");
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

    async fn files(&self, whose: Whose) -> Result<Files> {
        match whose {
            Whose::Tenant(id) => lease(&self.registry, &self.triples, id).await.map(Files::Tenant),
            Whose::Operator => Ok(Files::Operator(self.systems.clone())),
        }
    }
}

/// When there is something to do next.
async fn next_moment(queue: &Queue<'_>, under_way: HashMap<QueueName, usize>, relaying: &Relaying) -> Result<Option<Millis>> {
    let outbox = if relaying.failed { Some(relaying.next_at) } else { queue.outbox_retry_at().await? };
    Ok(queue.next_moment(under_way).await?.into_iter().chain(outbox).min())
}

/// Until something comes for those who listen, at most until `no_longer`; for ever if nobody does.
async fn rung(listening: &mut Option<Waiting>, no_longer: Instant) {
    match listening {
        Some(listening) => drop(listening.woken(None, no_longer).await),
        None => std::future::pending().await,
    }
}

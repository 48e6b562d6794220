//! Tending to one tenant, or to the operator's own: look into the queue, fire and deliver what is due, until nothing is; then leave the next moment
//! in `app`. A look takes a lease and gives it back; requests are under way between looks, each on a thread that blocks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::permits::Permits;
use super::{Inner, RETRY, until};
use crate::clock::{Millis, now_ms};
use crate::error::{Error, Result};
use crate::http::cache::behind;
use crate::queue::{AT_ONCE, Claimed, Delivery, Moments, Queue, QueueName, Waiting};
use crate::system::app::Due;
use crate::tenant::TenantId;
use crate::tenant::lease::{Files, lease};

/// After a delivery the tenant is tended to for so long, since further jobs then cost `app` no commit.
const LINGER: Duration = Duration::from_secs(2);

/// Between two looks of which the first found something due and nothing of it to do.
const BREATH: Duration = Duration::from_millis(50);

/// So many breaths at most, one more after each look that found it still so.
const BREATHS_MAX: u32 = 20;

/// What the server does with a job that it has claimed.
enum Errand {
    Deliver(Delivery),
    Write(Claimed),
}

impl Errand {
    fn queue(&self) -> &QueueName {
        match self {
            Errand::Deliver(delivery) => &delivery.job.queue,
            Errand::Write(job) => &job.queue,
        }
    }
}

/// What a look found.
struct Look {
    errands: Vec<Errand>,
    next: Moments,
    /// When the outbox is asked again.
    outbox_at: Option<Millis>,
    /// The queues that the server itself works on.
    pushed: Vec<QueueName>,
    listening: Option<Waiting>,
}

/// How much a look may begin.
#[derive(Clone, Copy)]
struct Room {
    deliveries: usize,
    writes: usize,
}

/// What is being done.
#[derive(Default)]
struct UnderWay {
    errands: JoinSet<()>,
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

    fn deliveries(&self) -> usize {
        self.queues.values().filter(|queue| !queue.is_behind()).count()
    }

    /// Until one has ended; for ever if there is none.
    async fn one_ends(&mut self) {
        match self.errands.join_next_with_id().await {
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

impl Whose {
    fn tenant(self) -> Option<Uuid> {
        match self {
            Whose::Tenant(id) => Some(id.uuid()),
            Whose::Operator => None,
        }
    }
}

impl Inner {
    pub(super) async fn tend(self: Arc<Self>, due: Due) {
        self.wakeups.begun(due.tenant, due.at);
        let Err(error) = self.tend_until_quiet(Whose::Tenant(due.tenant.into()), due.at).await else { return };
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
        let mut since = Millis::MIN;
        while !*closing.borrow() {
            if let Err(error) = self.tend_until_quiet(Whose::Operator, since).await {
                tracing::warn!(%error, "what is due in the operator's queue could not be done; it is tried again");
                since = now_ms();
                self.pause(RETRY).await;
            }
        }
    }

    /// `since`: its moment came then.
    async fn tend_until_quiet(self: &Arc<Self>, whose: Whose, since: Millis) -> Result<()> {
        // Whoever had something under way at a crash has been due since, as a moment is only put off when all has ended.
        if since < self.began {
            self.end_left(whose).await?;
        }
        let mut under_way = UnderWay::default();
        let outcome = self.tend_with(whose, &mut under_way).await;
        // Also after a look that failed: a request goes on anyway, and what comes of it is to be written down.
        while !under_way.queues.is_empty() {
            under_way.one_ends().await;
        }
        outcome
    }

    async fn end_left(&self, whose: Whose) -> Result<()> {
        let _turn = self.turn().await?;
        Queue::new(self.files(whose).await?.queue(), &self.waiters).end_left().await
    }

    async fn tend_with(self: &Arc<Self>, whose: Whose, under_way: &mut UnderWay) -> Result<()> {
        let mut closing = self.closing.subscribe();
        let (mut listening, mut lingers_until) = (None, Instant::now());
        let (mut pushed, mut still_due) = (Vec::new(), 0);
        let (mut requests, mut writes) = (Permits::of(&self.requests), Permits::of(&self.writes));
        let mut relaying = self.relaying(whose);
        while !*closing.borrow() {
            let (had_requests, had_writes) = (requests.count() > 0, writes.count() > 0);
            // The moment may have been left by the relay. While it lasts it may be left again.
            if now_ms() >= relaying.next_at {
                self.relay_first(whose, &mut relaying).await?;
            }
            let room = Room { deliveries: requests.count(), writes: writes.count() };
            let look = self.look(whose, under_way, room, &mut relaying, &pushed, listening.take()).await?;
            (pushed, listening) = (look.pushed, look.listening);
            let taken = look.errands.len();
            for errand in look.errands {
                let permits = if matches!(errand, Errand::Write(_)) { &mut writes } else { &mut requests };
                let Some(permit) = permits.take() else { break };
                let queue = errand.queue().clone();
                let task = under_way.errands.spawn(self.clone().run_errand(whose, errand, permit)).id();
                under_way.queues.insert(task, queue);
                lingers_until = Instant::now() + LINGER;
            }
            requests.give_back();
            writes.give_back();
            if taken > 0 {
                whose.tenant().inspect(|tenant| self.giving_way.over(*tenant));
            }
            let (now, room) = (now_ms(), self.requests_of_one.saturating_sub(under_way.deliveries()));
            let is_due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
            let deliver_at = look.next.deliver.filter(|_| room > 0);
            let others = [look.next.fire, look.outbox_at];
            // What a look leaves due although it had all it needs is not done any better by looking again at once.
            let is_left = taken == 0
                && (others.into_iter().any(is_due) || had_requests && is_due(deliver_at) || had_writes && is_due(look.next.write));
            still_due = if is_left { BREATHS_MAX.min(still_due + 1) } else { 0 };
            self.pause(BREATH * still_due).await;
            // What is due is waited for by who may do it, not by the clock.
            let wanted = if is_due(deliver_at) { room } else { 0 };
            let wanted_writes = if is_due(look.next.write) { AT_ONCE } else { 0 };
            let by_clock = [deliver_at, look.next.write].into_iter().filter(|at| !is_due(*at));
            let until_next = by_clock.chain(others).flatten().min().unwrap_or(Millis::MAX);
            let is_near = wanted + wanted_writes > 0 || until_next < now_ms() + LINGER.as_millis() as Millis;
            if under_way.queues.is_empty() && !is_near && Instant::now() >= lingers_until {
                if self.settle(whose, &mut relaying, Millis::MIN).await? {
                    return Ok(());
                }
                continue;
            }
            let only_waits = under_way.queues.is_empty() && wanted + wanted_writes > 0;
            // Who waits for a permit looks again now and then all the same.
            let pause = if wanted + wanted_writes > 0 { LINGER } else { BREATH };
            let no_longer = lingers_until.max(Instant::now() + pause);
            tokio::select! {
                () = under_way.one_ends() => {}
                () = rung(&mut listening, no_longer) => {}
                () = until(until_next) => {}
                came = requests.come(wanted) => came?,
                came = writes.come(wanted_writes) => came?,
                () = tokio::time::sleep_until(no_longer), if under_way.queues.is_empty() => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
            requests.more(wanted);
            writes.more(wanted_writes);
            if only_waits
                && requests.count() + writes.count() == 0
                && let Some(tenant) = whose.tenant().filter(|_| self.places.is_to_go())
            {
                let until = self.giving_way.again_at(tenant, now_ms());
                if self.settle(whose, &mut relaying, until).await? {
                    return Ok(());
                }
                self.places.is_kept();
            }
        }
        Ok(())
    }

    /// What failed a while ago is not tried again because something else is due.
    fn relaying(&self, whose: Whose) -> Relaying {
        let failed_until = whose.tenant().and_then(|tenant| self.failing.until(tenant));
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

    /// One look into the tenant's queue, with room for so much.
    async fn look(
        &self,
        whose: Whose,
        under_way: &UnderWay,
        room: Room,
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
        let mut counts = under_way.by_queue();
        let mut errands = Vec::new();
        let looked = async {
            errands.extend(queue.writes(&counts, room.writes).await?.into_iter().map(Errand::Write));
            if room.deliveries > 0 {
                let deliveries = queue.deliveries(counts.clone(), room.deliveries).await?;
                errands.extend(deliveries.into_iter().map(Errand::Deliver));
            }
            errands.iter().for_each(|errand| *counts.entry(errand.queue().clone()).or_default() += 1);
            Ok((queue.moments(counts).await?, outbox_at(&queue, relaying).await?))
        };
        let (next, outbox_at) = match looked.await {
            Ok(moments) => moments,
            // What is claimed is done all the same; the next look meets the error again.
            Err(error) if !errands.is_empty() => {
                tracing::warn!(%error, "what else is due could not be asked");
                (Moments { fire: Some(now_ms()), ..Moments::default() }, None)
            }
            Err(error) => return Err(error),
        };
        Ok(Look { errands, next, outbox_at, pushed, listening })
    }

    /// Leaves the next moment in `app`, or waits for it; false if something has come up. What needs a permit is put off until
    /// `permits_at`.
    async fn settle(&self, whose: Whose, relaying: &mut Relaying, permits_at: Millis) -> Result<bool> {
        let Whose::Tenant(id) = whose else {
            let mut closing = self.closing.subscribe();
            let files = self.files(whose).await?;
            let next_at = next_moment(&Queue::new(files.queue(), &self.waiters), relaying, permits_at).await?;
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
        let next_at = next_moment(&Queue::new(files.queue(), &self.waiters), relaying, permits_at).await?;
        let settled = resting.settle(next_at).await?;
        if settled && !relaying.failed {
            self.failing.over(id.uuid());
        }
        Ok(settled)
    }

    async fn run_errand(self: Arc<Self>, whose: Whose, errand: Errand, permit: OwnedSemaphorePermit) {
        let job = match errand {
            Errand::Deliver(delivery) => return self.deliver(whose, delivery, permit).await,
            Errand::Write(job) => job,
        };
        let written = async {
            match self.files(whose).await? {
                Files::Tenant(lease) => behind::write(&lease, &self.cache, &self.waiters, self.rules.now().schemas.policies(), job).await,
                // Behind the operator's own cache there is no database.
                Files::Operator(_) => Ok(()),
            }
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, "a write behind a cache is tried again when its lease ends");
        }
        drop(permit);
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

/// When there is something to do next, while nothing is under way.
async fn next_moment(queue: &Queue<'_>, relaying: &Relaying, permits_at: Millis) -> Result<Option<Millis>> {
    let Moments { fire, deliver, write } = queue.moments(HashMap::new()).await?;
    let permitted = [deliver, write].into_iter().flatten().map(|at| at.max(permits_at));
    Ok(permitted.chain(fire).chain(outbox_at(queue, relaying).await?).min())
}

async fn outbox_at(queue: &Queue<'_>, relaying: &Relaying) -> Result<Option<Millis>> {
    if relaying.failed { Ok(Some(relaying.next_at)) } else { queue.outbox_retry_at().await }
}

/// Until something comes for those who listen, at most until `no_longer`; for ever if nobody does.
async fn rung(listening: &mut Option<Waiting>, no_longer: Instant) {
    match listening {
        Some(listening) => drop(listening.woken(None, no_longer).await),
        None => std::future::pending().await,
    }
}

//! The relay moves what tenants leave in their database's outbox to their queue. It is woken by the commit that wrote
//! there, or by the opening of a database in which something was left; at its start it looks into those that were written
//! and not closed. What it knows is in the files: the queue has the mark, in the transaction that adds the jobs, and the
//! rows behind it are swept away after that. So a crash at any moment costs a look, and no row is lost or taken twice.
//!
//! Bounds: [`RELAYED_MAX`] tenants at once, each of which is remembered once while it waits. Nobody is waited for here:
//! whoever cannot be relayed now (its queue is full, it is suspended, something failed, the server closes) has a moment in
//! `app` at which the waker relays it again, since its database's log, by which a start finds it, may be emptied by then.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::clock::{Millis, now_ms};
use crate::error::{Code, Result};
use crate::queue::{Letter, Queue, TakenIn, Waiters};
use crate::sql::outbox;
use crate::system::App;
use crate::tenant::lease::lease;
use crate::tenant::registry::Registry;
use crate::tenant::{Layout, Lease, Role, TenantId, Triples};

/// Tenants relayed at once.
const RELAYED_MAX: usize = 4;

/// Between two attempts that failed.
const RETRY: Duration = Duration::from_secs(5);

/// A handle; clones are the same.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    app: App,
    registry: Arc<Registry>,
    triples: Arc<Triples>,
    waiters: Arc<Waiters>,
    line: Mutex<Line>,
    news: Notify,
    closing: watch::Sender<bool>,
}

/// Whose outbox is to be looked into.
#[derive(Default)]
struct Line {
    waiting: VecDeque<TenantId>,
    known: HashSet<TenantId>,
    under_way: HashSet<TenantId>,
}

impl Line {
    fn join(&mut self, id: TenantId) {
        if self.known.insert(id) {
            self.waiting.push_back(id);
        }
    }

    /// The first one whom nobody is relaying already.
    fn next(&mut self) -> Option<TenantId> {
        let place = self.waiting.iter().position(|id| !self.under_way.contains(id))?;
        let id = self.waiting.remove(place)?;
        self.known.remove(&id);
        self.under_way.insert(id);
        Some(id)
    }
}

impl Relay {
    /// Watches the tenants' databases from now on.
    pub fn new(layout: Layout, app: App, registry: Arc<Registry>, triples: Arc<Triples>, waiters: Arc<Waiters>) -> Relay {
        let watched = triples.clone();
        let (line, news, closing) = (Mutex::default(), Notify::new(), watch::Sender::new(false));
        let inner = Arc::new(Inner { layout, app, registry, triples, waiters, line, news, closing });
        let told = Arc::downgrade(&inner);
        watched.watch(outbox::ANY_LEFT, move |id, written| {
            if written.has(outbox::VIEW)
                && let Some(inner) = told.upgrade()
            {
                inner.join(id);
            }
        });
        Relay { inner }
    }

    /// Runs until [`Relay::close`], and then until nobody waits.
    pub async fn run(self) {
        let inner = self.inner;
        let layout = inner.layout.clone();
        // Not one after the other with what comes now: it may take a while.
        let mut relaying = JoinSet::new();
        let found = inner.clone();
        relaying.spawn(async move {
            let left = tokio::task::spawn_blocking(move || layout.with_log(Role::Database)).await;
            left.unwrap_or_default().into_iter().for_each(|id| found.join(id));
        });
        let mut closing = inner.closing.subscribe();
        loop {
            let news = inner.news.notified();
            while relaying.len() < RELAYED_MAX
                && let Some(id) = inner.line().next()
            {
                relaying.spawn(inner.clone().relay_one(id));
            }
            if *closing.borrow() && relaying.is_empty() {
                return;
            }
            tokio::select! {
                () = news => {}
                Some(_) = relaying.join_next() => {}
                changed = closing.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Ends the run once what waits is relayed.
    pub fn close(&self) {
        self.inner.closing.send_replace(true);
    }

    /// Leaves those who are still in line, or were being relayed when the run was cut short, to the next start.
    pub async fn leave_rest(&self) -> Result<()> {
        let rest = {
            let line = self.inner.line();
            line.known.union(&line.under_way).map(|id| id.uuid()).collect()
        };
        self.inner.leave(rest, now_ms()).await
    }

    /// Relays all that stands in the tenant's outbox, or as much as its queue takes.
    pub async fn relay(&self, lease: &Lease) -> Result<()> {
        self.inner.relay(lease).await
    }
}

impl Inner {
    fn join(&self, id: TenantId) {
        self.line().join(id);
        self.news.notify_one();
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn relay_one(self: Arc<Self>, id: TenantId) {
        if let Err(error) = self.look_into(id).await {
            // It sleeps, and so will its moment; or is no more, and has none.
            let is_away = matches!(error.code(), Code::TenantSuspended | Code::Unauthenticated | Code::ShuttingDown);
            if !is_away {
                tracing::warn!(tenant = %id, %error, "an outbox could not be relayed; it is tried again");
            }
            let at = now_ms() + if is_away { 0 } else { RETRY.as_millis() as Millis };
            if let Err(error) = self.leave(vec![id.uuid()], at).await {
                tracing::error!(tenant = %id, %error, "an outbox could not be left for later; it is tried again");
                // A slot is held meanwhile, but nobody gets far while `app` cannot be written.
                let mut closing = self.closing.subscribe();
                if tokio::time::timeout(RETRY, closing.wait_for(|closing| *closing)).await.is_err() {
                    self.line().join(id);
                }
            }
        }
        self.line().under_way.remove(&id);
        self.news.notify_one();
    }

    /// A queue is opened only for rows that stand there: what is written may have been the schema alone.
    async fn look_into(&self, id: TenantId) -> Result<()> {
        let lease = lease(&self.registry, &self.triples, id).await?;
        if outbox::any_left(lease.database()).await? { self.relay(&lease).await } else { Ok(()) }
    }

    /// From the commit on the waker relays them at `at`, also after a crash.
    async fn leave(&self, tenants: Vec<Uuid>, at: Millis) -> Result<()> {
        if tenants.is_empty() { Ok(()) } else { self.app.wakeups_by(tenants, at).await }
    }

    async fn relay(&self, lease: &Lease) -> Result<()> {
        let queue = Queue::new(lease.queue(), &self.waiters);
        let mut taken = TakenIn::All;
        loop {
            let mark = queue.mark().await?;
            let standing = outbox::read(lease.database(), mark.at).await?;
            let any_refused = !mark.refused.is_empty();
            if standing.to_sweep || any_refused {
                outbox::sweep(lease.database(), mark.at, mark.refused).await?;
            }
            if taken == TakenIn::Full || standing.letters.is_empty() && !any_refused && !mark.is_behind {
                return Ok(());
            }
            let letter = |letter: outbox::Letter| Letter::new(letter.id, letter.queue, letter.payload, letter.options);
            let letters = standing.letters.into_iter().map(letter).collect();
            taken = queue.take_in(mark.at, letters).await?;
        }
    }
}

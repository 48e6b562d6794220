//! A [`Triple`] is a tenant's three databases; [`Triples`] holds those in use in an LRU. A request takes a
//! [`Lease`], which keeps its triple from being closed.
//!
//! Invariants:
//! - Of a tenant at most one triple is *live* (may have a file open). It leaves the live map only after its
//!   files are closed, so a file has one writer alive, also while an evicted triple is still in use.
//! - The LRU (moka) only decides who is to go. What is in use stays, and when it is asked for again before it
//!   went, comes back.
//! - Suspending, deleting and restoring take a [`Fence`] first: nobody new comes in, what runs ends, the files
//!   are closed.

mod leased;
mod visit;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use moka::notification::RemovalCause;
use tokio::sync::{Notify, mpsc};

use super::target::Target;
use super::{Layout, Role, TenantId};
use crate::clock::Millis;
use crate::config::{Durability, Plan};
use crate::error::{Code, Error, Result};
use crate::sqlite::{Allowance, Database, Engine, Gate, Leave, Options, Party, Pass};
pub use leased::{Lease, LeasedBefore};
pub use visit::Visit;

/// How long a request waits for a triple that is being closed.
const REOPEN_WAIT: Duration = Duration::from_secs(5);

/// How long interrupted work may take to end before a fence gives up.
const INTERRUPT_WAIT: Duration = Duration::from_secs(5);

/// What a triple counts for in the LRU before it has opened anything, in descriptors: one file.
const WEIGHT_AT_FIRST: u32 = 3;

pub struct Triple {
    id: TenantId,
    plan: Arc<Plan>,
    gate: Arc<Gate>,
    files: [Arc<Database>; 3],
    leases: AtomicU32,
    last_used: AtomicI64,
    /// When the LRU was last told that it is used, and how many it had let go by then.
    told: AtomicI64,
    told_at: AtomicU64,
    /// Descriptors its connections hold, and what the LRU was last told of them.
    held: Arc<AtomicU64>,
    weighed: AtomicU64,
    /// What its answers may take.
    answers: Arc<Allowance>,
    /// The LRU has let it go; it closes when nobody uses it.
    evicted: AtomicBool,
    fenced: AtomicBool,
    /// It is fenced for a moment only: who comes waits.
    held_up: AtomicBool,
    /// Told when it has left the live map.
    gone: Notify,
    triples: Weak<Triples>,
}

pub struct Triples {
    engine: Arc<Engine>,
    layout: Layout,
    durability: Durability,
    target: Arc<Target>,
    lru: moka::sync::Cache<TenantId, Arc<Triple>>,
    live: Mutex<HashMap<TenantId, Arc<Triple>>>,
    evictions: Arc<AtomicU64>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Nobody gets a lease any more.
    closing: AtomicBool,
    watch: watch::Watch,
    /// While it lets nobody go, the LRU is told no more often that a triple is used; milliseconds.
    tell_ms: Millis,
    me: Weak<Triples>,
}

/// Nobody uses the tenant's files, and nobody can, until this is dropped.
pub struct Fence {
    triple: Arc<Triple>,
    triples: Arc<Triples>,
}

/// What shows of the triples from outside.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct TriplesState {
    pub live: usize,
    pub leases: u64,
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
    pub files_open: u64,
    pub readers_open: u64,
    pub readers_active: u64,
    pub readers_idle: u64,
    pub writes_waiting: u64,
    pub wal_bytes: u64,
    /// Tenants of which a file could not be opened.
    pub failed: Vec<TenantId>,
}

impl Triples {
    pub fn new(engine: Arc<Engine>, layout: Layout, durability: Durability, target: Arc<Target>, idle_close: Duration) -> Arc<Triples> {
        let (let_go, evicted) = mpsc::unbounded_channel();
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = evictions.clone();
        // A quarter of the descriptors is left for what is in use although it was let go, and for what is
        // opened while that closes.
        let capacity = engine.descriptor_use().1 * 3 / 4;
        let lru = moka::sync::Cache::builder()
            // Not TinyLFU, which would turn a newcomer away as it comes, and so close it after each request.
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .max_capacity(capacity.max(u64::from(WEIGHT_AT_FIRST)))
            .weigher(|_, triple: &Arc<Triple>| triple.weigh())
            .time_to_idle(idle_close)
            .eviction_listener(move |_, triple, cause| {
                if cause.was_evicted() {
                    counted.fetch_add(1, Relaxed);
                    triple.evicted.store(true, Relaxed);
                    // What has to make room is likely to come back; what nobody used for long is not.
                    let leave = if cause == RemovalCause::Size { Leave::EmptyLog } else { Leave::Nothing };
                    if !triple.retire(leave) {
                        // The other end goes when the process does.
                        let _ = let_go.send((triple, leave));
                    }
                }
            })
            .build();
        let triples = Arc::new_cyclic(|me| Triples {
            engine,
            layout,
            durability,
            target,
            lru,
            live: Mutex::default(),
            evictions,
            hits: AtomicU64::default(),
            misses: AtomicU64::default(),
            closing: AtomicBool::default(),
            watch: watch::Watch::default(),
            tell_ms: leased::tell_ms(idle_close),
            me: me.clone(),
        });
        tokio::task::spawn_local(retire_used(evicted));
        triples
    }

    /// The tenant's triple, for one request. 429 past `plan.concurrent_statements`.
    pub async fn lease(self: &Arc<Self>, id: TenantId, plan: &Arc<Plan>) -> Result<Lease> {
        if let Some(triple) = self.lru.get(&id)
            && let Some(pass) = triple.gate.enter()
        {
            self.hits.fetch_add(1, Relaxed);
            triple.was_told(self.evictions.load(Relaxed));
            return self.granted(triple, pass);
        }
        self.misses.fetch_add(1, Relaxed);
        tokio::time::timeout(REOPEN_WAIT, self.revive(id, plan)).await.unwrap_or_else(|_| Err(being_changed()))
    }

    /// The live triple again, or a new one.
    async fn revive(self: &Arc<Self>, id: TenantId, plan: &Arc<Plan>) -> Result<Lease> {
        self.lru.run_pending_tasks();
        loop {
            let leaving = {
                let mut live = self.live();
                if self.closing.load(Relaxed) {
                    return Err(Error::new(Code::ShuttingDown, "the server is stopping").retry_after(Duration::from_secs(1)));
                }
                let triple = live.entry(id).or_insert_with(|| self.triple(id, plan.clone())).clone();
                if let Some(pass) = triple.gate.enter() {
                    triple.evicted.store(false, Relaxed);
                    drop(live);
                    self.lru.insert(id, triple.clone());
                    return self.granted(triple, pass);
                }
                if triple.fenced.load(Relaxed) && !triple.is_held_up() {
                    return Err(being_changed());
                }
                triple
            };
            let gone = leaving.gone.notified();
            if self.live().get(&id).is_some_and(|now| Arc::ptr_eq(now, &leaving)) {
                gone.await;
            }
        }
    }

    /// Keeps everybody out: waits `drain` for what runs, then stops it, and closes the files. 409 when somebody
    /// else has the tenant fenced.
    pub async fn fence(self: &Arc<Self>, id: TenantId, drain: Duration) -> Result<Fence> {
        self.fence_as(id, drain, false).await
    }

    async fn fence_as(self: &Arc<Self>, id: TenantId, drain: Duration, held_up: bool) -> Result<Fence> {
        let triple = {
            let mut live = self.live();
            let triple = live.entry(id).or_insert_with(|| self.triple(id, Arc::default())).clone();
            if triple.fenced.swap(true, Relaxed) {
                return Err(Error::conflict("this tenant is being changed by another request").retry_after(Duration::from_secs(1)));
            }
            triple.held_up.store(held_up, Relaxed);
            triple.gate.fence();
            triple.files.iter().for_each(|file| file.end_transactions());
            triple
        };
        let fence = Fence { triple: triple.clone(), triples: self.clone() };
        self.lru.invalidate(&id);
        let (mut patience, mut stopped) = (drain, false);
        // Between being empty and being closed somebody may look after an idle file.
        while !triple.gate.try_close() && !triple.gate.is_closed() {
            if triple.gate.emptied(patience).await {
                continue;
            }
            if stopped {
                return Err(Error::new(Code::Overloaded, "the tenant's running statements could not be stopped")
                    .hint("Try again; the log says what runs.")
                    .retry_after(Duration::from_secs(5)));
            }
            triple.files.iter().for_each(|file| file.refuse(true));
            (patience, stopped) = (INTERRUPT_WAIT, true);
        }
        Database::close_all(&triple.files, Leave::Nothing).await;
        Ok(fence)
    }

    /// Has the tenant's files opened anew by the next request: they were opened under a plan that is over.
    pub async fn reopen(self: &Arc<Self>, id: TenantId) -> Result<()> {
        self.fence(id, REOPEN_WAIT).await.map(drop).map_err(|_| being_changed())
    }

    /// Whether any of the tenant's files is open.
    pub fn is_open(&self, id: TenantId) -> bool {
        self.live().get(&id).is_some_and(|triple| triple.files.iter().any(|file| file.state().open))
    }

    /// When the tenant was last used since it was opened.
    pub fn last_used(&self, id: TenantId) -> Option<Millis> {
        self.live().get(&id).map(|triple| triple.last_used.load(Relaxed)).filter(|&at| at > 0)
    }

    /// Lets go of what has been idle. Called about once a second by the server.
    pub fn tick(&self) {
        self.lru.run_pending_tasks();
    }

    /// Waits for what runs, at most `drain`, and closes everything.
    pub async fn close(self: &Arc<Self>, drain: Duration) {
        self.closing.store(true, Relaxed);
        let ids: Vec<_> = self.live().keys().copied().collect();
        let fences = ids.into_iter().map(|id| self.fence(id, drain));
        futures_util::future::join_all(fences).await;
    }

    pub fn state(&self) -> TriplesState {
        let live: Vec<_> = self.live().values().cloned().collect();
        let mut state = TriplesState {
            live: live.len(),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            evictions: self.evictions.load(Relaxed),
            ..TriplesState::default()
        };
        for triple in live {
            state.leases += u64::from(triple.leases.load(Relaxed));
            let files = triple.files.each_ref().map(|file| file.state());
            for file in &files {
                state.files_open += u64::from(file.open);
                state.readers_open += u64::from(file.readers);
                state.readers_active += u64::from(file.readers.saturating_sub(file.readers_idle));
                state.readers_idle += u64::from(file.readers_idle);
                state.writes_waiting += file.writes_waiting as u64;
                state.wal_bytes += file.wal_bytes;
            }
            if files.iter().any(|file| file.failed) {
                state.failed.push(triple.id);
            }
        }
        state
    }

    fn triple(&self, id: TenantId, plan: Arc<Plan>) -> Arc<Triple> {
        let gate = Gate::new();
        let held = Arc::new(AtomicU64::new(0));
        let answers = self.engine.answers().one();
        let file = |role: Role| {
            let (level, max_bytes) = match role {
                Role::Database => (self.durability.database, plan.database_bytes),
                Role::Cache => (self.durability.cache, plan.cache_bytes),
                Role::Queue => (self.durability.queue, plan.queue_bytes),
            };
            let options = Options {
                level,
                max_bytes,
                party: Party { id: id.uuid().as_u128(), running_max: usize::MAX },
                migrations: self.target.wanted(role).clone(),
                keep_before: Some(self.layout.kept(id, role)),
                sandboxed: role == Role::Database,
                create: false,
                held: held.clone(),
                answers: answers.clone(),
            };
            let path = self.layout.file(id, role);
            match role {
                Role::Cache => Database::replaceable(&self.engine, &gate, path, options),
                Role::Database | Role::Queue => Database::new(&self.engine, &gate, path, options),
            }
        };
        let files = Role::ALL.map(file);
        self.watch.over(id, &files[Role::Database as usize]);
        Arc::new(Triple {
            id,
            files,
            plan,
            gate,
            leases: AtomicU32::default(),
            last_used: AtomicI64::default(),
            told: AtomicI64::default(),
            told_at: AtomicU64::default(),
            triples: self.me.clone(),
            held,
            weighed: AtomicU64::default(),
            answers,
            evicted: AtomicBool::default(),
            fenced: AtomicBool::default(),
            held_up: AtomicBool::default(),
            gone: Notify::new(),
        })
    }

    /// The triple's files are closed. A fence keeps it in the map until the fence itself is dropped.
    fn remove(&self, triple: &Arc<Triple>, by_fence: bool) {
        let mut live = self.live();
        if triple.fenced.load(Relaxed) && !by_fence {
            return;
        }
        if live.get(&triple.id).is_some_and(|now| Arc::ptr_eq(now, triple)) {
            live.remove(&triple.id);
        }
        drop(live);
        triple.gone.notify_waiters();
    }

    fn live(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Triple>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what the LRU lets go while it is in use, each as soon as nobody uses it.
async fn retire_used(mut evicted: mpsc::UnboundedReceiver<(Arc<Triple>, Leave)>) {
    while let Some((triple, leave)) = evicted.recv().await {
        tokio::task::spawn_local(async move {
            while triple.evicted.load(Relaxed) && !triple.gate.is_closed() && !triple.retire(leave) {
                triple.gate.emptied(REOPEN_WAIT).await;
            }
        });
    }
}

fn being_changed() -> Error {
    Error::new(Code::TenantUnavailable, "this tenant is being changed or closed; try again").retry_after(Duration::from_secs(1))
}

impl Triple {
    fn weigh(&self) -> u32 {
        let held = self.held.load(Relaxed);
        self.weighed.store(held, Relaxed);
        u32::try_from(held).unwrap_or(u32::MAX).max(WEIGHT_AT_FIRST)
    }

    /// Has a lane close it, unless somebody uses it: nobody waits for that but who wants the tenant's files back.
    fn retire(self: &Arc<Self>, leave: Leave) -> bool {
        let closes = self.gate.try_close();
        if closes {
            let triple = self.clone();
            Database::start_closing(&self.files, leave, move || {
                if let Some(triples) = triple.triples.upgrade() {
                    triples.remove(&triple, false);
                }
            });
        }
        closes
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if self.triple.gate.is_closed() {
            self.triples.remove(&self.triple, true);
        } else {
            // The fence gave up: everything goes on as before.
            let live = self.triples.live();
            self.triple.files.iter().for_each(|file| file.refuse(false));
            self.triple.fenced.store(false, Relaxed);
            self.triple.gate.lift();
            drop(live);
            self.triple.gone.notify_waiters();
            self.triples.lru.insert(self.triple.id, self.triple.clone());
        }
    }
}

//! The registry answers who a tenant is, from memory: a bounded map in front of `app`'s `tenants`, which also
//! remembers who is not there. It is the one place that decides whether a token's tenant may be served, and
//! whether it is served by this process (today: always).
//!
//! Invariant: once [`Registry::changed`] has returned, nobody is given what the row said before. A lookup that
//! read the row before the change and would remember it after is told apart by an epoch: it notes the epoch
//! before it reads, and remembers only if no change has come since.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use moka::sync::Cache;
use uuid::Uuid;

use super::id::TenantId;
use super::rate::Rate;
use crate::auth;
use crate::clock::Millis;
use crate::config::Plan;
use crate::error::{Code, Error, Result};
use crate::system::App;
use crate::system::app::{State, TenantRow};

/// Changes are told apart in so many groups of tenants, so that one tenant's change disturbs few other lookups.
const EPOCHS: usize = 64;

/// Rates that are kept before those that nobody holds are looked for.
const RATES_MIN: usize = 1_024;
/// Lookups of one call that a change may spoil; after them the row is used without being remembered.
const ATTEMPTS: u32 = 8;

/// The name of the plan a tenant has unless it was given another.
pub const DEFAULT_PLAN: &str = "default";

/// A tenant as the rest of the server sees it: a row, read, with its plan's limits.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub slug: String,
    pub name: String,
    /// What the row says; the limits of a plan that left the configuration are those of [`DEFAULT_PLAN`].
    pub plan_name: String,
    pub plan: Arc<Plan>,
    pub state: State,
    pub created_at: Millis,
    pub updated_at: Millis,
    rate: Arc<Rate>,
}

impl Tenant {
    /// Lets one request in under the plan's rate, or answers `too_many_requests` with how long to wait.
    pub fn admit(&self) -> Result<()> {
        self.rate.admit(&self.plan)
    }
}

pub struct Registry {
    app: App,
    plans: BTreeMap<String, Arc<Plan>>,
    known: Cache<Uuid, Known>,
    epochs: [Mutex<u64>; EPOCHS],
    rates: Mutex<Rates>,
    counts: Counts,
}

/// The rates of tenants that somebody holds, here or where callers are remembered: one tenant has one, however often its row was
/// forgotten here meanwhile.
#[derive(Default)]
struct Rates {
    by_tenant: HashMap<Uuid, Weak<Rate>>,
    /// At so many those that nobody holds are dropped.
    sweep_at: usize,
}

impl Rates {
    fn of(&mut self, id: Uuid) -> Arc<Rate> {
        if let Some(rate) = self.by_tenant.get(&id).and_then(Weak::upgrade) {
            return rate;
        }
        if self.by_tenant.len() >= self.sweep_at {
            self.by_tenant.retain(|_, rate| rate.strong_count() > 0);
            self.sweep_at = (2 * self.by_tenant.len()).max(RATES_MIN);
        }
        let rate = Arc::default();
        self.by_tenant.insert(id, Arc::downgrade(&rate));
        rate
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

#[derive(Clone)]
enum Known {
    Tenant(Arc<Tenant>),
    Nobody,
    /// Changed since: the row is to be read again. How fast the tenant asked is held meanwhile.
    Changed(#[expect(dead_code, reason = "it is held")] Arc<Rate>),
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Registry {
    /// Remembers at most `remembered` tenants, those that are not there included.
    pub fn new(app: App, plans: &BTreeMap<String, Plan>, remembered: u64) -> Registry {
        let mut plans: BTreeMap<_, _> = plans.iter().map(|(name, plan)| (name.clone(), Arc::new(plan.clone()))).collect();
        plans.entry(DEFAULT_PLAN.to_owned()).or_default();
        Registry {
            app,
            plans,
            known: Cache::new(remembered.max(1)),
            epochs: std::array::from_fn(|_| Mutex::new(0)),
            rates: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// The tenant of a verified token, if it may be served. One that is unknown, deleted or not ready yet gets the
    /// error of an invalid token, so that a token tells nobody which tenants there are. A remembered tenant is
    /// answered without waiting.
    pub async fn active(&self, id: TenantId) -> Result<Arc<Tenant>> {
        let found = match self.remembered(id) {
            Some(found) => found,
            None => self.look_up(id).await?,
        };
        match found {
            Some(tenant) if tenant.state == State::Active => Ok(tenant),
            Some(tenant) if tenant.state == State::Suspended => Err(Error::new(Code::TenantSuspended, "this tenant is suspended")
                .hint("Its operator can resume it with `PATCH /admin/v1/tenants/{id} {\"state\":\"active\"}`.")),
            _ => Err(auth::invalid_token()),
        }
    }

    /// A moment, to ask later whether the tenant was changed since.
    pub fn moment(&self, id: TenantId) -> Moment {
        Moment(*self.epoch(id))
    }

    /// Whether what was known of the tenant at that moment still holds. Now and then it says no although it does.
    pub fn unchanged_since(&self, id: TenantId, moment: Moment) -> bool {
        *self.epoch(id) == moment.0
    }

    /// The same of one that the caller has remembered: answered like a look at what is remembered here.
    pub fn still_knows(&self, id: TenantId, moment: Moment) -> bool {
        let knows = self.unchanged_since(id, moment);
        self.counts.hits.fetch_add(u64::from(knows), Relaxed);
        knows
    }

    /// Told after each commit that changed the tenant's row, and after each that may have.
    pub fn changed(&self, id: TenantId) {
        let mut epoch = self.epoch(id);
        *epoch += 1;
        match self.known.get(&id.uuid()) {
            Some(Known::Tenant(tenant)) => self.known.insert(id.uuid(), Known::Changed(tenant.rate.clone())),
            Some(Known::Nobody) => self.known.invalidate(&id.uuid()),
            Some(Known::Changed(_)) | None => {}
        }
    }

    /// The plans by name, in order.
    pub fn plans(&self) -> &BTreeMap<String, Arc<Plan>> {
        &self.plans
    }

    /// (answered from memory, read from `app`)
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.counts.hits.load(Relaxed), self.counts.misses.load(Relaxed))
    }

    /// `None` if the row must be read; `Some(None)` if it is known that there is none.
    fn remembered(&self, id: TenantId) -> Option<Option<Arc<Tenant>>> {
        let found = match self.known.get(&id.uuid())? {
            Known::Tenant(tenant) => Some(tenant),
            Known::Nobody => None,
            Known::Changed(_) => return None,
        };
        self.counts.hits.fetch_add(1, Relaxed);
        Some(found)
    }

    async fn look_up(&self, id: TenantId) -> Result<Option<Arc<Tenant>>> {
        self.counts.misses.fetch_add(1, Relaxed);
        let mut found = None;
        for _ in 0..ATTEMPTS {
            let before = *self.epoch(id);
            let row = self.app.tenant(id.uuid()).await?;
            match self.remember(id, row, before) {
                Ok(tenant) => return Ok(tenant),
                Err(tenant) => found = tenant,
            }
        }
        Ok(found)
    }

    /// Remembers what was read unless a change has come since the epoch was `before`; `Err` has it all the same.
    fn remember(&self, id: TenantId, row: Option<TenantRow>, before: u64) -> Result<Option<Arc<Tenant>>, Option<Arc<Tenant>>> {
        let epoch = self.epoch(id);
        let rate = || self.rates.lock().unwrap_or_else(PoisonError::into_inner).of(id.uuid());
        let tenant = row.map(|row| Arc::new(self.tenant(row, rate())));
        if *epoch != before {
            return Err(tenant);
        }
        self.known.insert(id.uuid(), tenant.clone().map_or(Known::Nobody, Known::Tenant));
        Ok(tenant)
    }

    fn tenant(&self, row: TenantRow, rate: Arc<Rate>) -> Tenant {
        Tenant {
            id: row.id.into(),
            slug: row.slug,
            name: row.name,
            plan: self.limits(&row.plan),
            plan_name: row.plan,
            state: row.state,
            created_at: row.created_at,
            updated_at: row.updated_at,
            rate,
        }
    }

    /// The limits of a plan by its name; of [`DEFAULT_PLAN`] if the configuration has it no more.
    pub fn limits(&self, plan: &str) -> Arc<Plan> {
        if let Some(limits) = self.plans.get(plan) {
            return limits.clone();
        }
        tracing::warn!(plan, "a tenant has a plan that is not in the configuration; the default's limits hold");
        self.plans.get(DEFAULT_PLAN).cloned().unwrap_or_default()
    }

    fn epoch(&self, id: TenantId) -> MutexGuard<'_, u64> {
        // The last byte of a UUIDv7 is random.
        let group = usize::from(id.uuid().as_bytes()[15]) % EPOCHS;
        self.epochs[group].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

//! Leases, and how one who had a lease before gets the next without a look into the LRU.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Triple, Triples};
use crate::clock::{self, Millis};
use crate::config::Plan;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Allowance, Database, FileState, Pass};
use crate::tenant::{Role, TenantId};

/// How often the LRU is told that a triple is used, at least, in milliseconds.
const TELL_MS: Millis = 1_000;

/// The right to use a tenant's files. Cheap; hold it for a request.
pub struct Lease {
    triple: Arc<Triple>,
    _pass: Pass,
}

/// Which triple a lease was of, for [`Triples::lease_again`]. Keeps nothing open.
#[derive(Clone, Default)]
pub struct LeasedBefore(Weak<Triple>);

impl LeasedBefore {
    pub fn is(&self, lease: &Lease) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&lease.triple))
    }
}

/// How often the LRU is told of a use where idle triples are closed after so long.
pub(super) fn tell_ms(idle_close: Duration) -> Millis {
    Millis::try_from(idle_close.as_millis() / 8).unwrap_or(TELL_MS).min(TELL_MS)
}

impl Triples {
    /// The same for who knows the triple, without looking for it; `None` where it has to be looked for. Looking tells the
    /// LRU that it is used, which matters when somebody is to go: so it is told for each request while it lets some go, and
    /// now and then otherwise.
    pub fn lease_again(&self, id: TenantId, before: &LeasedBefore) -> Option<Result<Lease>> {
        let triple = before.0.upgrade().filter(|triple| triple.id == id && !triple.evicted.load(Relaxed))?;
        let told_ms = clock::now_ms() - triple.told.load(Relaxed);
        if !(0..self.tell_ms).contains(&told_ms) || triple.told_at.load(Relaxed) != self.evictions.load(Relaxed) {
            return None;
        }
        let pass = triple.gate.enter()?;
        self.hits.fetch_add(1, Relaxed);
        Some(self.granted(triple, pass))
    }

    pub(super) fn granted(&self, triple: Arc<Triple>, pass: Pass) -> Result<Lease> {
        let before = triple.leases.fetch_add(1, Relaxed);
        triple.last_used.store(clock::now_ms(), Relaxed);
        let most = triple.plan.concurrent_statements;
        // Counted in any case: dropping the lease takes it off again.
        let lease = Lease { triple, _pass: pass };
        if most > 0 && before >= most {
            return Err(Error::new(Code::TooManyRequests, "too many statements of this tenant at once")
                .hint("The plan's bound is concurrent_statements.")
                .retry_after(Duration::from_secs(1)));
        }
        Ok(lease)
    }
}

impl Triple {
    /// The LRU knows that it is used now, when it has let go so many.
    pub(super) fn was_told(&self, evictions: u64) {
        self.told.store(clock::now_ms(), Relaxed);
        self.told_at.store(evictions, Relaxed);
    }
}

impl Lease {
    pub fn id(&self) -> TenantId {
        self.triple.id
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.triple.plan
    }

    pub fn database(&self) -> &Arc<Database> {
        self.file(Role::Database)
    }

    pub fn cache(&self) -> &Arc<Database> {
        self.file(Role::Cache)
    }

    pub fn queue(&self) -> &Arc<Database> {
        self.file(Role::Queue)
    }

    pub fn file(&self, role: Role) -> &Arc<Database> {
        &self.triple.files[role as usize]
    }

    /// What the tenant's answers may take; it outlives the lease, as the answers do.
    pub fn answers(&self) -> &Arc<Allowance> {
        &self.triple.answers
    }

    /// To ask for it again.
    pub fn leased(&self) -> LeasedBefore {
        LeasedBefore(Arc::downgrade(&self.triple))
    }

    pub fn states(&self) -> [FileState; 3] {
        self.triple.files.each_ref().map(|file| file.state())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let triple = &self.triple;
        triple.leases.fetch_sub(1, Relaxed);
        // It has opened or closed connections since the LRU last weighed it.
        if triple.held.load(Relaxed) != triple.weighed.load(Relaxed)
            && !triple.evicted.load(Relaxed)
            && !triple.fenced.load(Relaxed)
            && let Some(triples) = triple.triples.upgrade()
        {
            triples.lru.insert(triple.id, triple.clone());
        }
    }
}

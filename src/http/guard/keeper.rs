//! A [`Keeper`] lets callers in; each worker has one of its own. Beside what it asks it has the callers of lately: what
//! the verifier, the registry and the LRU of triples said of each, so that the next request asks whether that still holds
//! instead of looking it up. Those three are maps of the whole process, and over many tenants a look into each is memory that
//! no cache has any more.
//!
//! Nobody is let in by what is remembered here alone: a token's time, its revocation and its key, and the tenant's row, are
//! asked about for each request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::{Claims, Fingerprint, Verified, Verifier, fingerprint};
use crate::error::Result;
use crate::rest::Dialect;
use crate::tenant::registry::{Moment, Registry, Tenant};
use crate::tenant::triples::{Lease, LeasedBefore, Triples};
use crate::tenant::{TenantId, lease};

/// Callers that a worker remembers; at more it begins anew.
const CALLERS: usize = 1 << 14;

pub struct Keeper {
    verifier: Arc<Verifier>,
    registry: Arc<Registry>,
    triples: Arc<Triples>,
    pub dialect: Arc<Dialect>,
    callers: RefCell<HashMap<u64, Known>>,
}

/// A caller who was let in.
struct Known {
    fingerprint: Fingerprint,
    verified: Verified,
    let_in: LetIn,
}

/// What is known of a caller at the moment he is let in.
#[derive(Clone)]
pub struct LetIn {
    pub claims: Arc<Claims>,
    pub tenant: Arc<Tenant>,
    /// When the tenant was looked up.
    known: Moment,
    before: LeasedBefore,
    caller: u64,
}

impl Keeper {
    pub fn new(verifier: Arc<Verifier>, registry: Arc<Registry>, triples: Arc<Triples>, dialect: Arc<Dialect>) -> Keeper {
        Keeper { verifier, registry, triples, dialect, callers: RefCell::default() }
    }

    pub async fn let_in(&self, token: &str) -> Result<LetIn> {
        let fingerprint = fingerprint(token);
        // The first bytes of a hash are as good as any.
        let caller = fingerprint.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        if let Some(known) = self.callers.borrow().get(&caller)
            && known.fingerprint == fingerprint
            && self.verifier.still_holds(&known.verified)
            && self.registry.still_knows(known.let_in.tenant.id, known.let_in.known)
        {
            return Ok(known.let_in.clone());
        }
        let verified = self.verifier.verified(token, &fingerprint).await?;
        let id = TenantId::from(verified.claims.tenant);
        let known = self.registry.moment(id);
        let tenant = self.registry.active(id).await?;
        let let_in = LetIn { claims: verified.claims.clone(), tenant, known, before: LeasedBefore::default(), caller };
        let mut callers = self.callers.borrow_mut();
        if callers.len() >= CALLERS {
            callers.clear();
        }
        callers.insert(caller, Known { fingerprint, verified, let_in: let_in.clone() });
        Ok(let_in)
    }

    /// The files of one who was let in.
    pub async fn lease(&self, let_in: &LetIn) -> Result<Lease> {
        let lease = lease::lease_of(&self.registry, &self.triples, &let_in.tenant, let_in.known, &let_in.before).await?;
        if !let_in.before.is(&lease)
            && let Some(known) = self.callers.borrow_mut().get_mut(&let_in.caller)
        {
            known.let_in.before = lease.leased();
        }
        Ok(lease)
    }
}

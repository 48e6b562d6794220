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
use crate::rest::InForce;
use crate::tenant::registry::{Moment, Registry, Tenant};
use crate::tenant::triples::{Lease, LeasedBefore, Triples};
use crate::tenant::{TenantId, lease};

pub struct Keeper {
    verifier: Arc<Verifier>,
    registry: Arc<Registry>,
    triples: Arc<Triples>,
    pub rules: Arc<InForce>,
    callers: RefCell<Lately<Known>>,
}

/// What was of use lately, in two generations: when the young ones weigh half of what is allowed, the old ones go.
struct Lately<T> {
    young: HashMap<u64, (T, u64)>,
    old: HashMap<u64, (T, u64)>,
    /// Of the young ones.
    weight: u64,
    most: u64,
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

impl<T> Lately<T> {
    fn new(most: u64) -> Lately<T> {
        Lately { young: HashMap::new(), old: HashMap::new(), weight: 0, most }
    }

    fn find(&mut self, key: u64) -> Option<&mut T> {
        if !self.young.contains_key(&key)
            && let Some((value, weight)) = self.old.remove(&key)
        {
            self.keep(key, value, weight);
        }
        self.young.get_mut(&key).map(|(value, _)| value)
    }

    fn keep(&mut self, key: u64, value: T, weight: u64) {
        self.forget(key);
        if self.weight + weight > self.most / 2 {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        self.young.insert(key, (value, weight));
    }

    fn forget(&mut self, key: u64) {
        self.old.remove(&key);
        if let Some((_, weight)) = self.young.remove(&key) {
            self.weight -= weight;
        }
    }
}

impl Keeper {
    /// `remembered` is the weight of the tokens that this worker may remember.
    pub fn new(verifier: Arc<Verifier>, registry: Arc<Registry>, triples: Arc<Triples>, rules: Arc<InForce>, remembered: u64) -> Keeper {
        Keeper { verifier, registry, triples, rules, callers: RefCell::new(Lately::new(remembered)) }
    }

    /// Who was let in lately, if he may be again; nobody is waited for.
    pub fn let_in_again(&self, token: &str) -> Option<LetIn> {
        self.again(&fingerprint(token))
    }

    pub async fn let_in(&self, token: &str) -> Result<LetIn> {
        let fingerprint = fingerprint(token);
        if let Some(known) = self.again(&fingerprint) {
            return Ok(known);
        }
        let caller = number(&fingerprint);
        self.callers.borrow_mut().forget(caller);
        let verified = self.verifier.verified(token, &fingerprint).await?;
        let id = TenantId::from(verified.claims.tenant);
        let known = self.registry.moment(id);
        let tenant = self.registry.active(id).await?;
        let let_in = LetIn { claims: verified.claims.clone(), tenant, known, before: LeasedBefore::default(), caller };
        let weight = u64::from(verified.weight());
        self.callers.borrow_mut().keep(caller, Known { fingerprint, verified, let_in: let_in.clone() }, weight);
        Ok(let_in)
    }

    fn again(&self, fingerprint: &Fingerprint) -> Option<LetIn> {
        let mut callers = self.callers.borrow_mut();
        let known = callers.find(number(fingerprint)).filter(|known| {
            known.fingerprint == *fingerprint
                && self.verifier.still_holds(&known.verified)
                && self.registry.still_knows(known.let_in.tenant.id, known.let_in.known)
        })?;
        Some(known.let_in.clone())
    }

    /// The files of one who was let in.
    pub async fn lease(&self, let_in: &LetIn) -> Result<Lease> {
        let lease = lease::lease_of(&self.registry, &self.triples, &let_in.tenant, let_in.known, &let_in.before).await?;
        if !let_in.before.is(&lease)
            && let Some(known) = self.callers.borrow_mut().find(let_in.caller)
        {
            known.let_in.before = lease.leased();
        }
        Ok(lease)
    }
}

/// The first bytes of a hash are as good as any.
fn number(fingerprint: &Fingerprint) -> u64 {
    fingerprint.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_use_stays_and_what_is_not_goes() {
        let mut lately = Lately::new(100);
        for key in 0..1_000 {
            lately.keep(key, key, 1 + key % 3);
            assert_eq!(lately.find(0), Some(&mut 0), "asked for each time");
            let weight = |values: &HashMap<u64, (u64, u64)>| values.values().map(|(_, weight)| weight).sum::<u64>();
            assert!(weight(&lately.young) == lately.weight && lately.weight <= 50 && weight(&lately.old) <= 50);
        }
        assert!(lately.find(999).is_some() && lately.find(800).is_none());
        lately.forget(999);
        assert_eq!(lately.find(999), None);
        // One that weighs more than is allowed is alone.
        lately.keep(7, 7, 1_000);
        assert!(lately.find(7).is_some() && lately.young.len() == 1);
    }
}

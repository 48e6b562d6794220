//! The [`Verifier`] answers one question: what does this token say, if it is valid now? A verified token is
//! remembered under its SHA-256 (so no token is kept in memory), and each later use checks again what can have
//! changed: its time, its revocation, and whether its key still stands. Who keeps a [`Verified`] asks the same of it.
//!
//! Every refusal is the same error, [`invalid_token`](super::invalid_token): whoever probes learns nothing. The
//! reason is in the log, at level debug.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::claims::{Claims, Refused};
use super::issuer::Issuer;
use super::jwk::KeySet;
use super::key::KeyRing;
use super::revoked::Revoked;
use super::token::{TOKEN_MAX, Unverified};
use crate::clock;
use crate::config;
use crate::error::{Error, Result};

/// Issuers in the configuration at most.
const ISSUERS_MAX: usize = 100;

/// SHA-256 of a token.
pub type Fingerprint = [u8; 32];

/// By which a token is remembered; no token is kept in memory.
pub fn fingerprint(token: &str) -> Fingerprint {
    Fingerprint::from(Sha256::digest(token))
}

pub struct Verifier {
    /// Our own first.
    issuers: Vec<Issuer>,
    remembered: Cache<Fingerprint, Verified>,
    revoked: Revoked,
    leeway_s: i64,
}

/// A token that was verified, and on what grounds.
#[derive(Clone)]
pub struct Verified {
    pub claims: Arc<Claims>,
    /// Which of the verifier's issuers.
    issuer: usize,
    /// The issuer's epoch before its key was looked up.
    epoch: u64,
    /// Seconds since the epoch from which it is refused: the token's end, or its key's if that is sooner.
    until: i64,
}

impl Verified {
    /// What it counts for where tokens are remembered.
    pub fn weight(&self) -> u32 {
        1 + u32::try_from(self.claims.payload.len() / 1024).unwrap_or(u32::MAX - 1)
    }
}

impl Verifier {
    /// Reads the files of keys that the configuration names; asks no server.
    pub fn new(config: &config::Auth, ring: Arc<KeyRing>) -> Result<Verifier> {
        if config.issuers.len() > ISSUERS_MAX {
            return Err(Error::bad_request(format!(
                "`auth.issuers` has {} entries; at most {ISSUERS_MAX} are taken",
                config.issuers.len()
            )));
        }
        let mut issuers = vec![Issuer::own(config, ring)?];
        for entry in &config.issuers {
            let issuer = Issuer::configured(entry, config)?;
            if issuers.iter().any(|other| other.rules.issuer == issuer.rules.issuer) {
                return Err(Error::bad_request(format!("two issuers are named {:?}", entry.issuer))
                    .hint("A token's `iss` chooses whose keys it is checked with; `auth.issuer` (our own) and each of `auth.issuers` need names of their own."));
            }
            issuers.push(issuer);
        }
        let remembered = Cache::builder()
            .max_capacity(config.remembered_tokens)
            // A token counts as one, and a large one for each KiB of it, so the bound is also one on memory.
            .weigher(|_, token: &Verified| token.weight())
            .expire_after(UntilItEnds)
            .support_invalidation_closures()
            .build();
        let leeway_s = i64::try_from(config.leeway_s).unwrap_or(i64::MAX);
        Ok(Verifier { issuers, remembered, revoked: Revoked::default(), leeway_s })
    }

    /// What the token says. For a remembered token and for one of ours this does not wait; for one whose key is
    /// not known yet it may wait for the provider's server, at most a few seconds.
    pub async fn verify(&self, token: &str) -> Result<Arc<Claims>> {
        self.verified(token, &fingerprint(token)).await.map(|verified| verified.claims)
    }

    /// The same, with what [`Verifier::still_holds`] wants to know later.
    pub async fn verified(&self, token: &str, fingerprint: &Fingerprint) -> Result<Verified> {
        self.verified_at(token, fingerprint, clock::now_s()).await.map_err(|Refused(why)| {
            tracing::debug!(why, "a token was refused");
            super::invalid_token()
        })
    }

    /// Whether a token that was verified is valid now.
    pub fn still_holds(&self, verified: &Verified) -> bool {
        self.stands(verified, clock::now_s()) && !self.is_revoked(verified)
    }

    async fn verified_at(&self, token: &str, fingerprint: &Fingerprint, now: i64) -> Result<Verified, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused("it is too long"));
        }
        let verified = match self.remembered.get(fingerprint).filter(|verified| self.stands(verified, now)) {
            Some(remembered) => remembered,
            None => {
                let verified = self.verify_anew(token, now).await?;
                self.remembered.insert(*fingerprint, verified.clone());
                verified
            }
        };
        if self.is_revoked(&verified) {
            self.remembered.invalidate(fingerprint);
            return Err(Refused("it was revoked"));
        }
        Ok(verified)
    }

    /// Whether its time is not over and its key has not gone.
    fn stands(&self, verified: &Verified, now: i64) -> bool {
        let issuer = &self.issuers[verified.issuer];
        issuer.keep_fresh();
        now < verified.until && issuer.live().epoch() == verified.epoch
    }

    fn is_revoked(&self, verified: &Verified) -> bool {
        verified.claims.jti.is_some_and(|jti| self.revoked.has(jti))
    }

    async fn verify_anew(&self, token: &str, now: i64) -> Result<Verified, Refused> {
        let token = Unverified::parse(token)?;
        let named = token.issuer().ok_or(Refused("iss is missing"))?;
        let which = self.issuers.iter().position(|issuer| issuer.rules.issuer == named).ok_or(Refused("iss is nobody we know"))?;
        let issuer = &self.issuers[which];

        let kid = token.kid.as_deref().filter(|_| issuer.keys_have_ids());
        let knows = |set: &KeySet| set.select(kid, token.alg).is_some();
        if knows(&issuer.live().set()) {
            issuer.keep_fresh();
        } else {
            issuer.refresh().await;
        }
        let epoch = issuer.live().epoch();
        let set = issuer.live().set();
        let key = set.select(kid, token.alg).ok_or(Refused("no key for this kid and algorithm"))?;
        if key.until.is_some_and(|until| now >= until) {
            return Err(Refused("its key is retired"));
        }
        if !key.verifies(token.message, token.signature) {
            return Err(Refused("the signature is wrong"));
        }
        let claims = issuer.rules.read(&token.members, &token.payload, now)?;
        let until = issuer.rules.end_of(claims.exp).min(key.until.unwrap_or(i64::MAX));
        Ok(Verified { claims: Arc::new(claims), issuer: which, epoch, until })
    }

    /// Refuses this token from now on. `exp` is the token's own (seconds since the epoch): past it, the entry is
    /// dropped. Called for each unexpired revocation at start, and when one is made, after it was stored.
    pub fn revoke(&self, jti: Uuid, exp: i64) {
        self.revoked.add(jti, exp.saturating_add(self.leeway_s), clock::now_s());
    }

    /// Drops the remembered tokens of a tenant. It frees memory and refuses nobody: the registry does.
    pub fn forget_tenant(&self, tenant: Uuid) {
        // It fails only for a cache that was not built for it; ours was.
        let _ = self.remembered.invalidate_entries_if(move |_, token| token.claims.tenant == tenant);
    }

    /// Drops every remembered token, also those being verified at this moment.
    pub fn forget_all(&self) {
        for issuer in &self.issuers {
            issuer.live().forget();
        }
        self.remembered.invalidate_all();
    }

    /// How many tokens are remembered, about.
    pub fn remembered(&self) -> u64 {
        self.remembered.entry_count()
    }
}

/// The longest a token is remembered; then it is verified again.
const REMEMBERED_MAX: Duration = Duration::from_secs(86_400);

/// Frees a token's memory when it is refused anyway. Not what refuses it: that is checked on each use.
struct UntilItEnds;

impl Expiry<Fingerprint, Verified> for UntilItEnds {
    fn expire_after_create(&self, _: &Fingerprint, token: &Verified, _: Instant) -> Option<Duration> {
        let left = Duration::from_secs(u64::try_from(token.until.saturating_sub(clock::now_s())).unwrap_or(0));
        Some(left.min(REMEMBERED_MAX))
    }
}

#[cfg(test)]
mod tests;

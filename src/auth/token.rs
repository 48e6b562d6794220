//! A token on its way in and on its way out. [`Unverified`] is one that was taken apart but that nobody vouches
//! for yet: it says who to ask, and nothing it says is used for more than that. [`Signer`] makes ours.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::claims::{ClaimPath, ROLE_MAX, Refused, SUB_MAX};
use super::jwk::Alg;
use super::key::KeyRing;
use super::scope::Scopes;
use super::strict;
use crate::error::{Error, Result};
use crate::{clock, config};

/// The longest token that is looked at, in bytes.
pub const TOKEN_MAX: usize = 8 << 10;

/// A token taken apart. Its payload is parsed once, here.
pub struct Unverified<'a> {
    pub alg: Alg,
    pub kid: Option<String>,
    pub members: Map<String, Value>,
    /// The payload's JSON.
    pub payload: String,
    /// What the signature is over.
    pub message: &'a str,
    /// In base64url.
    pub signature: &'a str,
}

impl<'a> Unverified<'a> {
    /// Of the header only `alg` and `kid` are read: `jwk`, `jku`, `x5u` and `x5c` would name keys, and keys come
    /// from the configuration alone. `crit` says that the token means nothing to who does not know a further
    /// rule, and we know none.
    pub fn parse(token: &'a str) -> Result<Unverified<'a>, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused("it is too long"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refused("it has not three parts"))?;
        let (header, payload) = message.split_once('.').ok_or(Refused("it has not three parts"))?;
        let header = decode(header).ok_or(Refused("the header is not base64url"))?;
        let header = strict::object(&header).ok_or(Refused("the header is not strict JSON"))?;
        if header.contains_key("crit") {
            return Err(Refused("crit"));
        }
        let alg = header.get("alg").and_then(Value::as_str).and_then(Alg::named).ok_or(Refused("no algorithm that is taken"))?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Refused("kid is no text")),
        };
        let payload = decode(payload).ok_or(Refused("the payload is not base64url"))?;
        let members = strict::object(&payload).ok_or(Refused("the payload is not strict JSON"))?;
        let payload = String::from_utf8(payload).map_err(|_| Refused("the payload is not UTF-8"))?;
        Ok(Unverified { alg, kid, members, payload, message, signature })
    }

    /// Who says to have issued it: only to choose whose keys to try.
    pub fn issuer(&self) -> Option<&str> {
        self.members.get("iss")?.as_str()
    }
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// What a token of ours shall say.
#[derive(Clone, Debug)]
pub struct Mint {
    pub tenant: Uuid,
    /// 1 to 256 bytes.
    pub sub: String,
    /// 1 to 64 bytes.
    pub role: String,
    /// At least one.
    pub scopes: Scopes,
    /// How long it lives, in seconds: from 1 to `auth.token_max_ttl_s`.
    pub ttl_s: u64,
}

#[derive(Clone, Debug)]
pub struct Minted {
    pub token: String,
    pub jti: Uuid,
    /// Seconds since the epoch.
    pub expires_at: i64,
}

/// Signs tokens with the key ring's newest key.
pub struct Signer {
    ring: Arc<KeyRing>,
    issuer: String,
    audience: String,
    tenant: ClaimPath,
    ttl_max_s: u64,
}

impl Signer {
    pub fn new(config: &config::Auth, ring: Arc<KeyRing>) -> Result<Signer> {
        let tenant = ClaimPath::parse(&config.tenant_claim, "auth.tenant_claim")?;
        if ["iss", "aud", "exp", "nbf", "iat", "jti", "sub", "role", "scope", "scopes"].contains(&tenant.first()) {
            return Err(Error::bad_request(format!(
                "`auth.tenant_claim` = {:?} is a claim with another meaning in our own tokens",
                config.tenant_claim
            ))
            .hint("Name another; an identity provider's tokens have their own `tenant_claim`, in `auth.issuers`."));
        }
        Ok(Signer { ring, issuer: config.issuer.clone(), audience: config.audience.clone(), tenant, ttl_max_s: config.token_max_ttl_s })
    }

    /// Makes a token. What it may not say is `bad_request`.
    pub fn sign(&self, mint: Mint) -> Result<Minted> {
        bounded("sub", &mint.sub, SUB_MAX)?;
        bounded("role", &mint.role, ROLE_MAX)?;
        if mint.scopes.is_empty() {
            return Err(Error::bad_request("a token without a scope may do nothing").hint(format!("The scopes are: {}.", Scopes::ALL)));
        }
        let ttl_s = i64::try_from(mint.ttl_s).ok().filter(|ttl| *ttl >= 1 && mint.ttl_s <= self.ttl_max_s);
        let ttl_s = ttl_s.ok_or_else(|| {
            Error::bad_request(format!("a token cannot live {} s", mint.ttl_s))
                .hint(format!("From 1 to {} s; the most is the setting `auth.token_max_ttl_s`.", self.ttl_max_s))
        })?;
        let now = clock::now_s();
        let (jti, expires_at) = (Uuid::now_v7(), now.saturating_add(ttl_s));

        let mut claims = Map::new();
        claims.insert("iss".to_owned(), self.issuer.as_str().into());
        claims.insert("aud".to_owned(), self.audience.as_str().into());
        claims.insert("sub".to_owned(), mint.sub.into());
        claims.insert("role".to_owned(), mint.role.into());
        claims.insert("scopes".to_owned(), mint.scopes.iter().map(|scope| Value::from(scope.as_str())).collect());
        claims.insert("jti".to_owned(), jti.to_string().into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), expires_at.into());
        self.tenant.put(&mut claims, mint.tenant.to_string().into());

        let unsigned = |cause: &dyn std::fmt::Display| Error::internal("a token could not be signed", cause);
        let key = self.ring.signing().ok_or_else(|| unsigned(&"the key ring is empty"))?;
        let header = Header { kid: Some(key.kid().to_owned()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &claims, key.signing()).map_err(|e| unsigned(&e))?;
        Ok(Minted { token, jti, expires_at })
    }
}

fn bounded(name: &str, text: &str, max: usize) -> Result<()> {
    if text.is_empty() || text.len() > max {
        return Err(Error::bad_request(format!("`{name}` has {} bytes; it must have 1 to {max}", text.len())));
    }
    Ok(())
}

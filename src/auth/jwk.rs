//! A [`PublicKey`] is a key together with the one algorithm it is for, and a [`KeySet`] is what an issuer
//! publishes (a JWKS). The algorithm comes from the key and never from a token: a token's header can only agree
//! with it or be refused. Keys are checked when they are read (type, curve, length), so that verifying never
//! meets a malformed one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Keys taken from one document; further ones are passed over.
const KEYS_MAX: usize = 100;
/// The longest `kid` that is taken, in bytes.
const KID_MAX: usize = 256;
/// RSA moduli that are taken, in bytes: 2,048 to 4,096 bits.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=512;

/// The algorithms a token may be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alg {
    Rs256,
    Es256,
    EdDsa,
    /// Only for an issuer configured with a shared secret; never from a key set.
    Hs256,
}

impl Alg {
    /// The algorithm of exactly this name in a header or a key. `Ed25519` is RFC 9864's name for `EdDSA`.
    pub fn named(name: &str) -> Option<Alg> {
        match name {
            "RS256" => Some(Alg::Rs256),
            "ES256" => Some(Alg::Es256),
            "EdDSA" | "Ed25519" => Some(Alg::EdDsa),
            "HS256" => Some(Alg::Hs256),
            _ => None,
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Alg::Rs256 => Algorithm::RS256,
            Alg::Es256 => Algorithm::ES256,
            Alg::EdDsa => Algorithm::EdDSA,
            Alg::Hs256 => Algorithm::HS256,
        }
    }
}

#[derive(Clone, PartialEq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256 { point: Vec<u8> },
    Ed25519 { x: [u8; 32] },
    Secret(Vec<u8>),
}

/// A key that can only verify, and only with its own algorithm.
#[derive(Clone)]
pub struct PublicKey {
    kid: Option<String>,
    alg: Alg,
    material: Material,
    decoding: DecodingKey,
    /// Seconds since the epoch after which it verifies nothing; `None` for as long as it is listed.
    pub until: Option<i64>,
}

impl PublicKey {
    pub fn ed25519(kid: String, x: [u8; 32], until: Option<i64>) -> PublicKey {
        PublicKey { until, ..Self::new(Some(kid), Material::Ed25519 { x }) }
    }

    pub fn secret(secret: &[u8]) -> PublicKey {
        Self::new(None, Material::Secret(secret.to_vec()))
    }

    fn new(kid: Option<String>, material: Material) -> PublicKey {
        let (alg, decoding) = match &material {
            Material::Rsa { n, e } => (Alg::Rs256, DecodingKey::from_rsa_raw_components(n, e)),
            Material::P256 { point } => (Alg::Es256, DecodingKey::from_ec_der(point)),
            Material::Ed25519 { x } => (Alg::EdDsa, DecodingKey::from_ed_der(x)),
            Material::Secret(secret) => (Alg::Hs256, DecodingKey::from_secret(secret)),
        };
        PublicKey { kid, alg, material, decoding, until: None }
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub fn verifies(&self, message: &str, signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.decoding, self.alg.algorithm()).unwrap_or(false)
    }

    /// As a member of a JWKS. `None` for a secret, which is never published.
    pub fn to_jwk(&self) -> Option<Value> {
        let Material::Ed25519 { x } = &self.material else { return None };
        Some(serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": URL_SAFE_NO_PAD.encode(x),
        }))
    }

    fn same_key(&self, other: &PublicKey) -> bool {
        self.kid == other.kid && self.material == other.material
    }
}

/// The keys of one issuer.
#[derive(Clone, Default)]
pub struct KeySet(Vec<PublicKey>);

impl KeySet {
    pub fn new(keys: Vec<PublicKey>) -> KeySet {
        KeySet(keys)
    }

    /// Reads a JWKS. Keys that are not for verifying with one of our algorithms are passed over; the reason in
    /// words when it is no JWKS, or when no key is left.
    pub fn parse(document: &[u8]) -> Result<KeySet, &'static str> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(document).map_err(|_| "it is not JSON of the form {\"keys\":[…]}")?;
        let keys: Vec<_> = document.keys.into_iter().take(KEYS_MAX).filter_map(read_key).collect();
        if keys.is_empty() {
            return Err("it has no key for RS256, ES256 or EdDSA signatures");
        }
        Ok(KeySet(keys))
    }

    /// The key for a token whose header says `alg` and perhaps `kid`. Without a `kid` there must be exactly one
    /// key of the algorithm. The `kid` is compared and never used for anything else.
    pub fn select(&self, kid: Option<&str>, alg: Alg) -> Option<&PublicKey> {
        let mut fitting = self.0.iter().filter(|key| key.alg == alg && (kid.is_none() || key.kid.as_deref() == kid));
        let key = fitting.next()?;
        if kid.is_none() && fitting.next().is_some() {
            return None;
        }
        Some(key)
    }

    /// Whether every key of `self` is also in `newer`.
    pub fn survives_in(&self, newer: &KeySet) -> bool {
        self.0.iter().all(|key| newer.0.iter().any(|other| other.same_key(key)))
    }

    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn read_key(jwk: Value) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    let verifies =
        jwk.usage.as_deref().is_none_or(|u| u == "sig") && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !verifies || jwk.kid.as_ref().is_some_and(|kid| kid.len() > KID_MAX) {
        return None;
    }
    let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            let n = bytes(&jwk.n)?;
            let n = n[n.iter().position(|byte| *byte != 0)?..].to_vec();
            let e = bytes(&jwk.e).filter(|e| !e.is_empty() && e.len() <= 8)?;
            RSA_MODULUS.contains(&n.len()).then_some(Material::Rsa { n, e })?
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            (x.len() == 32 && y.len() == 32).then(|| Material::P256 { point: [&[4][..], &x, &y].concat() })?
        }
        ("OKP", Some("Ed25519")) => Material::Ed25519 { x: bytes(&jwk.x)?.try_into().ok()? },
        _ => return None,
    };
    let key = PublicKey::new(jwk.kid, material);
    jwk.alg.is_none_or(|alg| Alg::named(&alg) == Some(key.alg)).then_some(key)
}

fn bytes(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_deref()?.trim_end_matches('=')).ok()
}

/// A key set that is replaced while others verify with it. `epoch` moves on whenever a key is gone, after it is
/// gone: what was verified under an earlier epoch is no longer vouched for.
#[derive(Default)]
pub struct LiveKeys {
    set: RwLock<Arc<KeySet>>,
    epoch: AtomicU64,
}

impl LiveKeys {
    pub fn new(set: KeySet) -> LiveKeys {
        LiveKeys { set: RwLock::new(Arc::new(set)), epoch: AtomicU64::new(0) }
    }

    pub fn set(&self) -> Arc<KeySet> {
        self.set.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be read before [`set`](LiveKeys::set) by whoever remembers what he verified.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn replace(&self, newer: KeySet) {
        let newer = Arc::new(newer);
        let older = std::mem::replace(&mut *self.set.write().unwrap_or_else(PoisonError::into_inner), newer.clone());
        if !older.survives_in(&newer) {
            self.forget();
        }
    }

    /// Moves the epoch on although every key stays.
    pub fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ed(kid: &str, byte: u8) -> Value {
        serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode([byte; 32])})
    }

    fn set(keys: &[Value]) -> Result<KeySet, &'static str> {
        KeySet::parse(serde_json::json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn only_keys_for_verifying_with_our_algorithms_are_taken() {
        let with = |name: &str, value: &str| {
            let mut key = ed("a", 1);
            key[name] = value.into();
            key
        };
        assert!(set(&[ed("a", 1)]).is_ok());
        assert!(set(&[with("alg", "EdDSA")]).is_ok());
        for (name, value) in
            [("use", "enc"), ("alg", "RS256"), ("alg", "HS256"), ("alg", "none"), ("crv", "Ed448"), ("x", "AAAA"), ("kty", "oct")]
        {
            assert!(set(&[with(name, value)]).is_err(), "{name}: {value}");
        }
        let secret = serde_json::json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 64]), "alg": "HS256"});
        assert!(set(&[secret]).is_err());
        let short = serde_json::json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB"});
        assert!(set(&[short]).is_err());
        assert!(KeySet::parse(b"<html>").is_err());
    }

    #[test]
    fn without_a_kid_the_key_must_be_the_only_one() {
        let one = set(&[ed("a", 1)]).unwrap();
        assert!(one.select(None, Alg::EdDsa).is_some());
        assert!(one.select(None, Alg::Rs256).is_none());
        assert!(one.select(Some("b"), Alg::EdDsa).is_none());
        let two = set(&[ed("a", 1), ed("b", 2)]).unwrap();
        assert!(two.select(None, Alg::EdDsa).is_none());
        assert!(two.select(Some("b"), Alg::EdDsa).is_some());
    }

    #[test]
    fn the_epoch_moves_on_when_a_key_is_gone_or_changed_and_not_when_one_is_added() {
        let live = LiveKeys::new(set(&[ed("a", 1)]).unwrap());
        live.replace(set(&[ed("a", 1), ed("b", 2)]).unwrap());
        assert_eq!(live.epoch(), 0);
        live.replace(set(&[ed("b", 2)]).unwrap());
        assert_eq!(live.epoch(), 1);
        live.replace(set(&[ed("b", 3)]).unwrap());
        assert_eq!(live.epoch(), 2);
    }
}

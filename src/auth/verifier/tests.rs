//! Tokens that are taken, and what becomes of them: remembered, revoked, outlived by their key. How they are
//! refused is in [`refusals`].

mod refusals;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;
use crate::auth::jwks::tests::{Provider, ok};
use crate::auth::{Mint, Scope, Scopes, Signer};
use crate::error::Code;

const RSA: &str = include_str!("../../../tests/it/fixtures/keys/test-rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../../tests/it/fixtures/keys/test-rsa.pub.pem");
const RSA_SHORT: &str = include_str!("../../../tests/it/fixtures/keys/test-rsa-1024.pem");
const EC: &str = include_str!("../../../tests/it/fixtures/keys/test-ec.pem");
const ED: &str = include_str!("../../../tests/it/fixtures/keys/test-ed.pem");
const ED_OTHER: &str = include_str!("../../../tests/it/fixtures/keys/test-ed-other.pem");
const SECRET: &str = "a secret for tests, at least thirty-two bytes long";
const TENANT: &str = "019391f4-8a2b-7c3d-9e4f-5a6b7c8d9e0f";
const NOW: i64 = 1_795_214_602;

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap()
}

fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(EC.as_bytes()).unwrap()
}

fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(ED.as_bytes()).unwrap()
}

fn jwk(key: &EncodingKey, alg: Algorithm, kid: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, alg).unwrap()).unwrap();
    jwk["kid"] = kid.into();
    jwk
}

struct World {
    dir: tempfile::TempDir,
    config: config::Auth,
    ring: Arc<KeyRing>,
    verifier: Verifier,
    signer: Signer,
}

/// Our own keys; `https://idp.example/` with an RSA, a P-256 and an Ed25519 key; `hs` with a shared secret;
/// `lone` with a single key.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let three = json!({"keys": [jwk(&rsa(), Algorithm::RS256, "r"), jwk(&ec(), Algorithm::ES256, "e"), jwk(&ed(), Algorithm::EdDSA, "d")]});
    let one = json!({"keys": [jwk(&ed(), Algorithm::EdDSA, "d")]});
    let (three_path, one_path) = (dir.path().join("three.json"), dir.path().join("one.json"));
    std::fs::write(&three_path, three.to_string()).unwrap();
    std::fs::write(&one_path, one.to_string()).unwrap();
    let issuer = |name: &str| config::Issuer {
        issuer: name.to_owned(),
        audience: "api".to_owned(),
        jwks_url: None,
        jwks_file: None,
        hs256_secret: None,
        tenant_claim: None,
        role_claim: None,
        default_scopes: vec!["sql:read".to_owned()],
    };
    let config = config::Auth {
        issuers: vec![
            config::Issuer { jwks_file: Some(three_path), ..issuer("https://idp.example/") },
            config::Issuer { hs256_secret: Some(SECRET.to_owned()), ..issuer("hs") },
            config::Issuer {
                jwks_file: Some(one_path),
                tenant_claim: Some("/app_metadata/tenant_id".to_owned()),
                role_claim: Some("https://x.example/role".to_owned()),
                ..issuer("lone")
            },
        ],
        ..Default::default()
    };
    let ring = KeyRing::open(dir.path().join("keys"), &config).unwrap();
    let verifier = Verifier::new(&config, ring.clone()).unwrap();
    let signer = Signer::new(&config, ring.clone()).unwrap();
    World { dir, config, ring, verifier, signer }
}

impl World {
    fn minted(&self) -> crate::auth::Minted {
        self.signer
            .sign(Mint { tenant: TENANT.parse().unwrap(), sub: "u1".into(), role: "service".into(), scopes: Scopes::ALL, ttl_s: 60 })
            .unwrap()
    }

    async fn at(&self, token: &str, now: i64) -> Result<Arc<Claims>, &'static str> {
        self.verifier.verified_at(token, &fingerprint(token), now).await.map(|verified| verified.claims).map_err(|Refused(why)| why)
    }

    fn remembers(&self, token: &str) -> bool {
        self.verifier.remembered.get(&fingerprint(token)).is_some_and(|verified| self.verifier.stands(&verified, clock::now_s()))
    }

    /// Whether the P-256 token is taken with these changes to its payload.
    async fn payload(&self, change: impl FnOnce(&mut Value)) -> Result<Arc<Claims>, &'static str> {
        let mut payload = good();
        change(&mut payload);
        self.text(&payload.to_string()).await
    }

    async fn text(&self, payload: &str) -> Result<Arc<Claims>, &'static str> {
        self.at(&signed(&json!({"alg": "ES256", "kid": "e"}), payload, &ec(), Algorithm::ES256), NOW).await
    }

    /// Whether it is taken with this header, rightly signed by that key.
    async fn header(&self, header: Value, key: &EncodingKey, alg: Algorithm) -> Result<Arc<Claims>, &'static str> {
        self.at(&signed(&header, &good().to_string(), key, alg), NOW).await
    }
}

fn good() -> Value {
    json!({"iss": "https://idp.example/", "aud": "api", "sub": "user|1", "exp": NOW + 60, "nbf": NOW, "tenant_id": TENANT})
}

fn signed(header: &Value, payload: &str, key: &EncodingKey, alg: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, alg).unwrap();
    format!("{message}.{signature}")
}

/// Puts text for a claim that JSON values cannot spell.
fn spelled(claim: &str, text: &str) -> String {
    let mut payload = good();
    payload[claim] = "HERE".into();
    payload.to_string().replace("\"HERE\"", text)
}

#[tokio::test]
async fn our_own_token_says_what_was_minted() {
    let world = world();
    let minted = world.minted();
    let claims = world.verifier.verify(&minted.token).await.unwrap();
    assert_eq!((claims.tenant.to_string().as_str(), claims.sub.as_str(), claims.role.as_str()), (TENANT, "u1", "service"));
    assert_eq!((claims.scopes, claims.jti, claims.exp), (Scopes::ALL, Some(minted.jti), minted.expires_at));
    assert_eq!(serde_json::from_str::<Value>(&claims.payload).unwrap()["iss"], "tenantry");
}

#[tokio::test]
async fn each_algorithm_of_an_identity_provider_is_taken() {
    let world = world();
    for (alg, kid, key) in [(Algorithm::RS256, "r", rsa()), (Algorithm::ES256, "e", ec()), (Algorithm::EdDSA, "d", ed())] {
        let claims = world.header(json!({"alg": format!("{alg:?}"), "kid": kid, "typ": "JWT"}), &key, alg).await.unwrap();
        assert_eq!((claims.role.as_str(), claims.scopes), ("authenticated", Scopes::of(Scope::SqlRead)));
        // The only key of its algorithm needs no name.
        assert!(world.header(json!({"alg": format!("{alg:?}")}), &key, alg).await.is_ok());
    }
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let payload = good().to_string().replace("https://idp.example/", "hs");
    for header in [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "whatever the provider calls it"})] {
        assert!(world.at(&signed(&header, &payload, &secret, Algorithm::HS256), NOW).await.is_ok());
    }
}

#[tokio::test]
async fn claims_are_found_where_the_issuer_puts_them() {
    let world = world();
    let payload = json!({"iss": "lone", "aud": ["other", "api"], "sub": "s", "exp": NOW + 9, "app_metadata": {"tenant_id": TENANT},
        "https://x.example/role": "admin", "scope": "openid cache sql:write"});
    let lone =
        async |payload: &Value| world.at(&signed(&json!({"alg": "EdDSA"}), &payload.to_string(), &ed(), Algorithm::EdDSA), NOW).await;
    let claims = lone(&payload).await.unwrap();
    assert_eq!((claims.role.as_str(), claims.scopes.to_string().as_str()), ("admin", "sql:write cache"));
    let mut moved = payload.clone();
    moved["tenant_id"] = TENANT.into();
    moved["app_metadata"] = json!({});
    assert!(lone(&moved).await.is_err());
    let twice = payload.to_string().replace("{\"tenant_id\"", &format!("{{\"tenant_id\":\"{TENANT}\",\"tenant_id\""));
    assert!(world.at(&signed(&json!({"alg": "EdDSA"}), &twice, &ed(), Algorithm::EdDSA), NOW).await.is_err());
}

#[tokio::test]
async fn scopes_come_from_the_token_or_else_from_the_issuer() {
    let world = world();
    let scopes = async |value: Value| world.payload(|p| p["scopes"] = value).await.map(|c| c.scopes.to_string());
    assert_eq!(scopes(json!(["cache", "openid"])).await.as_deref(), Ok("cache"));
    assert_eq!(scopes(json!("cache queue:produce")).await.as_deref(), Ok("cache queue:produce"));
    assert_eq!(scopes(json!(["openid"])).await.as_deref(), Ok("sql:read"));
    for wrong in [json!([1]), json!({}), json!(true), json!([["cache"]])] {
        assert!(scopes(wrong).await.is_err());
    }
}

#[tokio::test]
async fn a_remembered_token_still_expires() {
    let world = world();
    let minted = world.minted();
    world.verifier.verify(&minted.token).await.unwrap();
    assert!(world.remembers(&minted.token));
    let end = minted.expires_at + world.config.leeway_s as i64;
    assert!(world.at(&minted.token, end - 1).await.is_ok());
    assert_eq!(world.at(&minted.token, end).await, Err("it has expired"));
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_remembered_or_not() {
    let world = world();
    let (remembered, fresh, other) = (world.minted(), world.minted(), world.minted());
    for minted in [&remembered, &other] {
        assert!(world.verifier.verify(&minted.token).await.is_ok());
    }
    for minted in [&remembered, &fresh] {
        world.verifier.revoke(minted.jti, minted.expires_at);
        assert!(world.verifier.verify(&minted.token).await.is_err());
    }
    assert!(world.verifier.verify(&other.token).await.is_ok());
}

#[tokio::test]
async fn rotation_keeps_tokens_and_retirement_ends_them_remembered_or_not() {
    let world = world();
    let (remembered, fresh) = (world.minted(), world.minted());
    assert!(world.verifier.verify(&remembered.token).await.is_ok());
    world.ring.rotate().await.unwrap();
    let newer = world.minted();
    for minted in [&remembered, &newer] {
        assert!(world.verifier.verify(&minted.token).await.is_ok());
    }
    world.ring.replace_all().await.unwrap();
    for minted in [&remembered, &fresh, &newer] {
        assert!(world.verifier.verify(&minted.token).await.is_err());
    }
    assert!(world.verifier.verify(&world.minted().token).await.is_ok());
}

#[tokio::test]
async fn a_replaced_key_verifies_nothing_past_its_time_whatever_the_token_says() {
    let world = world();
    // A ring whose longest token lives a minute, and a token that was made when that setting was longer.
    let short = config::Auth { token_max_ttl_s: 60, ..world.config.clone() };
    let ring = KeyRing::open(world.dir.path().join("keys"), &short).unwrap();
    let world = World { verifier: Verifier::new(&short, ring.clone()).unwrap(), ring, ..world };
    let mint = Mint { tenant: Uuid::nil(), sub: "s".into(), role: "r".into(), scopes: Scopes::ALL, ttl_s: 10_000 };
    let (remembered, fresh) = (world.signer.sign(mint.clone()).unwrap(), world.signer.sign(mint).unwrap());
    world.ring.rotate().await.unwrap();
    let now = clock::now_s();
    assert!(world.at(&remembered.token, now + 60).await.is_ok());
    for token in [&remembered.token, &fresh.token] {
        assert_eq!(world.at(token, now + 70).await, Err("its key is retired"));
    }
}

#[tokio::test]
async fn a_providers_server_is_asked_for_its_first_token_and_not_again() {
    let provider = Provider::start(ok(&json!({"keys": [jwk(&ed(), Algorithm::EdDSA, "d")]}).to_string()));
    let world = world();
    let mut config = world.config.clone();
    config.issuers[0].jwks_file = None;
    config.issuers[0].jwks_url = Some(provider.url.clone());
    let world = World { verifier: Verifier::new(&config, world.ring.clone()).unwrap(), ..world };
    assert_eq!(provider.asked(), 0);
    for kid in ["d", "unknown", "another"] {
        let taken = world.header(json!({"alg": "EdDSA", "kid": kid}), &ed(), Algorithm::EdDSA).await;
        assert_eq!((taken.is_ok(), provider.asked()), (kid == "d", 1), "{kid}");
    }
}

#[tokio::test]
async fn a_key_that_left_the_file_ends_its_tokens_remembered_or_not() {
    let world = world();
    let token = signed(&json!({"alg": "EdDSA", "kid": "d"}), &good().to_string(), &ed(), Algorithm::EdDSA);
    assert!(world.at(&token, NOW).await.is_ok());
    let file = world.config.issuers[0].jwks_file.as_ref().unwrap();
    std::fs::write(file, json!({"keys": [jwk(&ec(), Algorithm::ES256, "e")]}).to_string()).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(world.at(&token, NOW).await, Err("no key for this kid and algorithm"));
}

#[tokio::test]
async fn forgetting_makes_tokens_be_verified_anew() {
    let world = world();
    let token = world.minted().token;
    let known = || world.remembers(&token);
    for forget in [(|v: &Verifier| v.forget_all()) as fn(&Verifier), |v| v.forget_tenant(TENANT.parse().unwrap())] {
        world.verifier.verify(&token).await.unwrap();
        assert!(known());
        forget(&world.verifier);
        assert!(!known());
    }
    world.verifier.verify(&token).await.unwrap();
    world.verifier.forget_tenant(Uuid::nil());
    assert!(known());
}

#[test]
fn a_mint_that_cannot_be_is_a_bad_request() {
    let world = world();
    let good = || Mint { tenant: Uuid::nil(), sub: "s".into(), role: "r".into(), scopes: Scopes::ALL, ttl_s: 60 };
    assert!(world.signer.sign(good()).is_ok());
    let max = world.config.token_max_ttl_s;
    for bad in [
        Mint { sub: String::new(), ..good() },
        Mint { sub: "s".repeat(257), ..good() },
        Mint { role: "r".repeat(65), ..good() },
        Mint { scopes: Scopes::NONE, ..good() },
        Mint { ttl_s: 0, ..good() },
        Mint { ttl_s: max + 1, ..good() },
        Mint { ttl_s: u64::MAX, ..good() },
    ] {
        assert_eq!(world.signer.sign(bad).unwrap_err().code(), Code::BadRequest);
    }
    assert!(world.signer.sign(Mint { ttl_s: max, ..good() }).is_ok());
}

#[test]
fn a_configuration_that_would_be_unsafe_stops_the_start() {
    let world = world();
    let refused = |change: &dyn Fn(&mut config::Auth)| {
        let mut config = world.config.clone();
        change(&mut config);
        Verifier::new(&config, world.ring.clone()).is_err() || Signer::new(&config, world.ring.clone()).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|c| c.issuers[1].hs256_secret = Some("short".into())));
    assert!(refused(&|c| c.issuers[1].hs256_secret = Some(RSA_PUBLIC.into())));
    assert!(refused(&|c| c.issuers[1].jwks_url = Some("https://idp.example/jwks".into())));
    assert!(refused(&|c| c.issuers[1].hs256_secret = None));
    assert!(refused(&|c| c.issuers[1].issuer = c.issuer.clone()));
    assert!(refused(&|c| c.issuers[1].audience = String::new()));
    assert!(refused(&|c| c.issuers[1].default_scopes = vec!["sql:raed".into()]));
    assert!(refused(&|c| c.tenant_claim = "sub".into()));
    assert!(refused(&|c| c.tenant_claim = String::new()));
    let short = json!({"keys": [jwk(&EncodingKey::from_rsa_pem(RSA_SHORT.as_bytes()).unwrap(), Algorithm::RS256, "r")]});
    assert!(super::KeySet::parse(short.to_string().as_bytes()).is_err());
}

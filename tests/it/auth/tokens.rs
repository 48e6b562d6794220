//! Tokens made by hand, good and bad, and a server that takes the good ones: one provider with an RSA (`r`), a
//! P-256 (`e`) and an Ed25519 key (`d`), one with a shared secret (`hs`), one that points to its tenant claim
//! (`pointed`). `foreign` is a key that nobody knows.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::support::*;

pub const RSA_PUBLIC: &str = include_str!("../fixtures/keys/test-rsa.pub.pem");
const SECRET: &str = "a secret for tests, at least thirty-two bytes long";
const IDP: &str = "https://idp.example/";

pub struct World {
    pub server: Server,
    _keys: tempfile::TempDir,
}

/// The one server of these tests.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let keys = tempfile::tempdir().unwrap();
        let file = |name: &str, kids: &[&str]| {
            let path = keys.path().join(name);
            let set: Vec<Value> = kids.iter().map(|kid| jwk(kid)).collect();
            std::fs::write(&path, json!({ "keys": set }).to_string()).unwrap();
            path.display().to_string()
        };
        let (three, one) = (file("three.json", &["r", "e", "d"]), file("one.json", &["d"]));
        let common = "audience = \"api\", default_scopes = [\"sql:read\"]";
        let issuers = format!(
            "[{{issuer = \"{IDP}\", jwks_file = \"{three}\", {common}}}, {{issuer = \"hs\", hs256_secret = \"{SECRET}\", {common}}}, \
             {{issuer = \"pointed\", jwks_file = \"{one}\", tenant_claim = \"/app_metadata/tenant_id\", {common}}}]"
        );
        World {
            server: Server::with(|settings| {
                settings.set("auth.issuers", issuers);
            }),
            _keys: keys,
        }
    })
}

/// A token in the making. What it says is the payload's JSON text, so that it can also say what JSON values cannot.
pub struct Forge {
    header: Value,
    payload: String,
    key: EncodingKey,
    alg: Algorithm,
}

/// A token of the provider's that is taken: signed with the RSA key, for this tenant, for ten minutes.
pub fn good(tenant: &TenantClient) -> Forge {
    let payload = json!({ "iss": IDP, "aud": "api", "sub": "user|1", "exp": now() + 600, "nbf": now(), "tenant_id": tenant.id });
    let (key, alg) = key("r");
    Forge { header: json!({ "alg": "RS256", "kid": "r", "typ": "JWT" }), payload: payload.to_string(), key, alg }
}

impl Forge {
    /// Signed by another of the world's keys, and of that one's issuer.
    pub fn by(self, name: &str) -> Forge {
        let (key, alg) = key(name);
        let header = json!({ "alg": format!("{alg:?}"), "kid": if name == "pointed" { "d" } else { name } });
        let named = Forge { header, key, alg, ..self };
        match name {
            "hs" | "pointed" => named.with("iss", json!(name)),
            _ => named,
        }
    }

    pub fn header(mut self, name: &str, value: Value) -> Forge {
        self.header[name] = value;
        self
    }

    pub fn with(self, claim: &str, value: Value) -> Forge {
        self.spelled(claim, &value.to_string())
    }

    /// A claim whose value is this text, JSON or not.
    pub fn spelled(self, claim: &str, text: &str) -> Forge {
        let mut payload: Value = serde_json::from_str(&self.payload).unwrap();
        payload[claim] = json!("HERE");
        self.text(payload.to_string().replace("\"HERE\"", text))
    }

    pub fn without(self, claim: &str) -> Forge {
        let mut payload: Value = serde_json::from_str(&self.payload).unwrap();
        payload.as_object_mut().unwrap().remove(claim);
        self.text(payload.to_string())
    }

    pub fn text(self, payload: String) -> Forge {
        Forge { payload, ..self }
    }

    pub fn payload(&self) -> String {
        self.payload.clone()
    }

    /// Header and payload, not signed.
    pub fn message(&self) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(self.header.to_string()), URL_SAFE_NO_PAD.encode(&self.payload))
    }

    pub fn sign(&self) -> String {
        let message = self.message();
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.alg).unwrap();
        format!("{message}.{signature}")
    }

    /// Signed with HS256 and this secret, as the header then says.
    pub fn hs256(self, secret: &[u8]) -> String {
        Forge { key: EncodingKey::from_secret(secret), alg: Algorithm::HS256, ..self.header("alg", json!("HS256")) }.sign()
    }
}

/// The public half of the key that nobody knows.
pub fn foreign_jwk() -> Value {
    jwk("foreign")
}

/// The `kid` in a token's header.
pub fn kid_of(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn key(name: &str) -> (EncodingKey, Algorithm) {
    match name {
        "r" => (EncodingKey::from_rsa_pem(include_bytes!("../fixtures/keys/test-rsa.pem")).unwrap(), Algorithm::RS256),
        "e" => (EncodingKey::from_ec_pem(include_bytes!("../fixtures/keys/test-ec.pem")).unwrap(), Algorithm::ES256),
        "d" | "pointed" => (EncodingKey::from_ed_pem(include_bytes!("../fixtures/keys/test-ed.pem")).unwrap(), Algorithm::EdDSA),
        "hs" => (EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256),
        _ => (EncodingKey::from_ed_pem(include_bytes!("../fixtures/keys/test-ed-other.pem")).unwrap(), Algorithm::EdDSA),
    }
}

fn jwk(kid: &str) -> Value {
    let (key, alg) = key(kid);
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, alg).unwrap()).unwrap();
    jwk["kid"] = json!(kid);
    jwk
}

//! An [`Issuer`] is somebody whose tokens are taken: ourselves, or an identity provider of the configuration.
//! It joins the [`Rules`] its tokens must follow with the one [`Source`] its keys come from.

use std::sync::Arc;
use std::time::Instant;

use super::claims::Rules;
use super::jwk::{KeySet, LiveKeys, PublicKey};
use super::jwks::{FileKeys, UrlKeys};
use super::key::KeyRing;
use crate::config;
use crate::error::{Error, Result};

/// The shortest HS256 secret, in bytes: as long as the hash it makes (RFC 7518, 3.2).
const SECRET_MIN: usize = 32;

pub struct Issuer {
    pub rules: Rules,
    source: Source,
}

enum Source {
    Own(Arc<KeyRing>),
    Secret(LiveKeys),
    File(FileKeys),
    Url(Arc<UrlKeys>),
}

impl Issuer {
    pub fn own(config: &config::Auth, ring: Arc<KeyRing>) -> Result<Issuer> {
        Ok(Issuer { rules: Rules::own(config)?, source: Source::Own(ring) })
    }

    /// Reads a file of keys; asks no server.
    pub fn configured(issuer: &config::Issuer, config: &config::Auth) -> Result<Issuer> {
        if issuer.issuer.is_empty() || issuer.audience.is_empty() {
            return Err(Error::bad_request("an entry of `auth.issuers` has an empty `issuer` or `audience`")
                .hint("Both are compared with the token's `iss` and `aud`, exactly."));
        }
        let source = match (&issuer.jwks_url, &issuer.jwks_file, &issuer.hs256_secret) {
            (Some(url), None, None) => Source::Url(Arc::new(UrlKeys::new(url)?)),
            (None, Some(path), None) => Source::File(FileKeys::open(path)?),
            (None, None, Some(secret)) => Source::Secret(LiveKeys::new(KeySet::new(vec![shared_secret(secret, &issuer.issuer)?]))),
            _ => {
                return Err(Error::bad_request(format!("the issuer {} must have exactly one source of keys", issuer.issuer))
                    .hint("Set one of `jwks_url`, `jwks_file` and `hs256_secret`."));
            }
        };
        Ok(Issuer { rules: Rules::of(issuer, config)?, source })
    }

    pub fn live(&self) -> &LiveKeys {
        match &self.source {
            Source::Own(ring) => ring.public(),
            Source::Secret(live) => live,
            Source::File(file) => file.live(),
            Source::Url(url) => url.live(),
        }
    }

    /// Whether a token's `kid` says which key it is. A shared secret has none, whatever the provider writes there.
    pub fn keys_have_ids(&self) -> bool {
        !matches!(self.source, Source::Secret(_))
    }

    /// Notices that the keys changed where they come from; never waits for a server.
    pub fn keep_fresh(&self) {
        match &self.source {
            Source::File(file) => file.keep_fresh(Instant::now()),
            Source::Url(url) => url.keep_fresh(Instant::now()),
            Source::Own(_) | Source::Secret(_) => {}
        }
    }

    /// Looks again where the keys come from because one is missing, within the limits on asking; waits for the
    /// provider's server if need be.
    pub async fn refresh(&self) {
        match &self.source {
            Source::Url(url) => url.refresh().await,
            Source::Own(_) | Source::Secret(_) | Source::File(_) => self.keep_fresh(),
        }
    }
}

fn shared_secret(secret: &str, issuer: &str) -> Result<PublicKey> {
    if secret.len() < SECRET_MIN {
        return Err(Error::bad_request(format!("the `hs256_secret` of the issuer {issuer} is shorter than {SECRET_MIN} bytes"))
            .hint("A short secret can be found by trying. Make one with `openssl rand -base64 48`."));
    }
    if secret.contains("-----BEGIN") {
        return Err(Error::bad_request(format!("the `hs256_secret` of the issuer {issuer} is a PEM key"))
            .hint("A public key is no secret. For RS256 or ES256 set `jwks_url` or `jwks_file`."));
    }
    Ok(PublicKey::secret(secret.as_bytes()))
}

//! The rules that a type cannot hold: which values make no sense, alone or together. They are checked once,
//! on the merged configuration; whoever is handed a part of it need not look again.

use ureq::http::Uri;

use super::merge::Merged;
use crate::config::{Config, Issuer};
use crate::error::{Error, Result};

const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The shortest HS256 secret, in bytes: as long as the hash (RFC 7518, 3.2).
const HS256_MIN: usize = 32;

/// Past this, leeway would undo expiry; in seconds.
const LEEWAY_MAX_S: u64 = 3_600;

/// A hundred years, in seconds: far enough for any token, and no sum with the time of day overflows.
const TTL_MAX_S: u64 = 100 * 365 * 86_400;

pub(super) fn check(config: &Config, merged: &Merged) -> Result<()> {
    let rules = Rules { merged };
    rules.not_empty("data_dir", config.data_dir.as_os_str().is_empty())?;
    rules.counts(config)?;
    rules.auth(config)?;
    config.http.cors_origins.iter().try_for_each(|origin| rules.origin("http.cors_origins", origin))?;
    for (name, plan) in &config.plans {
        plan.cors_origins.iter().try_for_each(|origin| rules.origin(&format!("plans.{name}.cors_origins"), origin))?;
    }
    rules.require(LOG_LEVELS.contains(&config.telemetry.log.as_str()), "telemetry.log", || {
        format!("`{}` is no log level; one of {}", config.telemetry.log, LOG_LEVELS.join(", "))
    })?;
    rules.not_empty("telemetry.scrape_key", config.telemetry.scrape_key.as_deref() == Some(""))
}

struct Rules<'a> {
    merged: &'a Merged,
}

impl Rules<'_> {
    fn require(&self, holds: bool, key: &str, why: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { Err(Error::bad_request(format!("`{key}` ({}): {}", self.merged.origin(key), why()))) }
    }

    fn not_empty(&self, key: &str, empty: bool) -> Result<()> {
        self.require(!empty, key, || "it must not be empty".to_owned())
    }

    /// Bounds of which none would be a server that serves nothing.
    fn counts(&self, config: &Config) -> Result<()> {
        let Config { http, auth, sqlite, executor, hrana, queue, tenants, telemetry, .. } = config;
        let positive = [
            ("http.max_body_bytes", http.max_body_bytes as u64),
            ("http.receiving_bytes", http.receiving_bytes),
            ("http.unread_bytes", http.unread_bytes),
            ("http.max_connections", http.max_connections as u64),
            ("http.header_timeout_ms", http.header_timeout_ms),
            ("auth.token_ttl_s", auth.token_ttl_s),
            ("auth.token_max_ttl_s", auth.token_max_ttl_s),
            ("sqlite.page_cache_bytes", sqlite.page_cache_bytes),
            ("sqlite.heap_max_bytes", sqlite.heap_max_bytes),
            ("sqlite.readers_per_file", sqlite.readers_per_file.into()),
            ("sqlite.busy_timeout_ms", sqlite.busy_timeout_ms),
            ("sqlite.checkpoint_bytes", sqlite.checkpoint_bytes),
            ("sqlite.idle_checkpoint_ms", sqlite.idle_checkpoint_ms),
            ("executor.waiting", executor.waiting as u64),
            ("executor.waiting_per_tenant", executor.waiting_per_tenant as u64),
            ("executor.waiting_ms", executor.waiting_ms),
            ("executor.group_max", executor.group_max as u64),
            ("hrana.streams", hrana.streams as u64),
            ("hrana.streams_per_tenant", hrana.streams_per_tenant as u64),
            ("hrana.stream_idle_ms", hrana.stream_idle_ms),
            ("hrana.sockets_per_tenant", hrana.sockets_per_tenant as u64),
            ("hrana.socket_idle_s", hrana.socket_idle_s),
            ("hrana.transactions_per_tenant", hrana.transactions_per_tenant as u64),
            ("hrana.turn_wait_ms", hrana.turn_wait_ms),
            ("hrana.transaction_idle_ms", hrana.transaction_idle_ms),
            ("hrana.transaction_idle_contended_ms", hrana.transaction_idle_contended_ms),
            ("hrana.transaction_ms", hrana.transaction_ms),
            ("queue.deliveries", queue.deliveries as u64),
            ("queue.deliveries_per_tenant", queue.deliveries_per_tenant as u64),
            ("tenants.idle_close_s", tenants.idle_close_s),
            ("tenants.remembered", tenants.remembered),
            ("telemetry.waiting", telemetry.waiting as u64),
            ("telemetry.keep_days", telemetry.keep_days.into()),
        ];
        positive.into_iter().try_for_each(|(key, n)| self.require(n > 0, key, || "it must be at least 1".to_owned()))?;
        self.require(sqlite.wal_max_bytes >= sqlite.checkpoint_bytes, "sqlite.wal_max_bytes", || {
            format!("it must be at least sqlite.checkpoint_bytes ({})", sqlite.checkpoint_bytes)
        })
    }

    fn auth(&self, config: &Config) -> Result<()> {
        let auth = &config.auth;
        self.not_empty("auth.issuer", auth.issuer.is_empty())?;
        self.not_empty("auth.audience", auth.audience.is_empty())?;
        self.claim("auth.tenant_claim", &auth.tenant_claim)?;
        self.require(auth.leeway_s <= LEEWAY_MAX_S, "auth.leeway_s", || format!("at most {LEEWAY_MAX_S} seconds"))?;
        self.require(auth.token_max_ttl_s <= TTL_MAX_S, "auth.token_max_ttl_s", || format!("at most {TTL_MAX_S} seconds"))?;
        self.require(auth.token_ttl_s <= auth.token_max_ttl_s, "auth.token_ttl_s", || {
            format!("it must not exceed auth.token_max_ttl_s ({})", auth.token_max_ttl_s)
        })?;
        for (index, issuer) in auth.issuers.iter().enumerate() {
            let earlier = auth.issuers.iter().take(index).map(|other| &other.issuer);
            let taken = earlier.chain([&auth.issuer]).any(|name| *name == issuer.issuer);
            self.require(!taken, &format!("auth.issuers.{index}.issuer"), || {
                format!("`{}` is already another issuer's name (or auth.issuer)", issuer.issuer)
            })?;
            self.issuer(&format!("auth.issuers.{index}"), issuer)?;
        }
        Ok(())
    }

    fn issuer(&self, key: &str, issuer: &Issuer) -> Result<()> {
        self.not_empty(&format!("{key}.issuer"), issuer.issuer.is_empty())?;
        self.not_empty(&format!("{key}.audience"), issuer.audience.is_empty())?;
        let set = [issuer.jwks_url.is_some(), issuer.jwks_file.is_some(), issuer.hs256_secret.is_some()];
        self.require(set.into_iter().filter(|set| *set).count() == 1, key, || {
            "exactly one of jwks_url, jwks_file and hs256_secret says which keys it signs with".to_owned()
        })?;
        if let Some(url) = &issuer.jwks_url {
            self.require(may_fetch(url), &format!("{key}.jwks_url"), || {
                format!("`{url}` is no https URL (http is taken for loopback addresses only)")
            })?;
        }
        if let Some(secret) = &issuer.hs256_secret {
            self.require(secret.len() >= HS256_MIN, &format!("{key}.hs256_secret"), || {
                format!("an HS256 secret has at least {HS256_MIN} bytes; this one has {}", secret.len())
            })?;
        }
        self.not_empty(&format!("{key}.jwks_file"), issuer.jwks_file.as_ref().is_some_and(|path| path.as_os_str().is_empty()))?;
        issuer.tenant_claim.iter().try_for_each(|claim| self.claim(&format!("{key}.tenant_claim"), claim))?;
        issuer.role_claim.iter().try_for_each(|claim| self.claim(&format!("{key}.role_claim"), claim))
    }

    /// As browsers send it.
    fn origin(&self, key: &str, origin: &str) -> Result<()> {
        let uri = origin.parse::<Uri>().ok();
        let bare = uri.is_some_and(|uri| uri.scheme().is_some() && uri.authority().is_some_and(|host| origin.ends_with(host.as_str())));
        let whole = origin == "*" || (bare && !origin.bytes().any(|byte| byte.is_ascii_uppercase()));
        self.require(whole, key, || {
            format!("`{origin}` is no origin: scheme, host and port in lower case, such as `https://app.example.com`, or `*`")
        })
    }

    /// A claim's name, or a JSON pointer to it.
    fn claim(&self, key: &str, claim: &str) -> Result<()> {
        self.require(!matches!(claim, "" | "/"), key, || "a claim's name, or a JSON pointer such as `/app_metadata/tenant_id`".to_owned())
    }
}

/// Keys come over https, so that nobody on the way can swap them; a test's provider may sit on this machine.
fn may_fetch(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => loopback,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::may_fetch;

    #[test]
    fn keys_are_fetched_over_https_or_from_this_machine() {
        for url in ["https://idp.example/jwks.json", "http://127.0.0.1:9/j", "http://localhost/j", "http://[::1]:80/j"] {
            assert!(may_fetch(url), "{url}");
        }
        for url in [
            "http://idp.example/j",
            "http://127.0.0.1@idp.example/j",
            "http://127.0.0.1.evil.example/",
            "file:///etc/passwd",
            "ftp://a/",
            "jwks",
            "",
        ] {
            assert!(!may_fetch(url), "{url}");
        }
    }
}

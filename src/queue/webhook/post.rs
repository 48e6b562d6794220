//! [`Post`] makes the requests. A name is resolved and each of its addresses looked at before any is connected to, and
//! what was looked at is what is connected to: nothing is resolved twice. Redirects are not followed, no proxy is used,
//! and of an answer nothing but its status and headers is read.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::Delivery;
use super::public::is_public;
use crate::clock::now_s;
use crate::error::{Error, Result};

/// The longest URL, in bytes.
const URL_BYTES: usize = 2_048;

/// The longest that a target may put a job off by `Retry-After`, in seconds: an hour.
const RETRY_AFTER_MAX_S: i64 = 3_600;

/// The longest text kept of why a request failed, in bytes.
const ERROR_BYTES: usize = 500;

/// What a delivery came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    Failed {
        error: String,
        /// What the target asks for, within its bound.
        retry_after_s: Option<i64>,
    },
}

pub struct Post {
    agent: ureq::Agent,
    private: bool,
}

impl Post {
    /// `private`: also to this machine and its network, over http and to any port.
    pub fn new(private: bool) -> Post {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .https_only(!private)
            .proxy(None)
            .max_idle_connections(0)
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
            .build();
        Post { agent: ureq::Agent::with_parts(config, DefaultConnector::default(), Looking { private }), private }
    }

    /// Errors: `bad_request` for a URL that would not be asked, as far as its text shows.
    pub fn check(&self, url: &str) -> Result<()> {
        let refused = |why: &str| Error::bad_request(format!("url {why}")).hint("Such as https://example.com/hooks/jobs.");
        let uri: Uri = url.parse().map_err(|_| refused("is no URL"))?;
        let host = uri.host().unwrap_or_default();
        let (is_https, is_http) = (uri.scheme_str() == Some("https"), uri.scheme_str() == Some("http"));
        if url.len() > URL_BYTES {
            return Err(refused(&format!("is longer than {URL_BYTES} bytes")));
        }
        if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refused("names no host, or a user"));
        }
        if !is_https && !(is_http && self.private) {
            return Err(refused("is not https"));
        }
        let port = uri.port_u16().unwrap_or(443);
        if !self.private && port != 443 && port < 1_024 {
            return Err(refused(&format!("has the port {port}; it can be 443, or 1024 and above")));
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        if literal.is_ok_and(|ip| !self.private && !is_public(ip)) || !self.private && host.eq_ignore_ascii_case("localhost") {
            return Err(refused("leads to an address that is not public").hint("The operator can allow it: queue.private_targets."));
        }
        Ok(())
    }

    /// Asks, and waits for the answer's headers: blocks, at most `timeout_ms`.
    pub fn deliver(&self, delivery: &Delivery) -> Outcome {
        let job = &delivery.job;
        let (id, now_s) = (job.id.to_string(), now_s());
        let signatures: Vec<_> = delivery.secrets.iter().map(|secret| secret.sign(&id, now_s, &job.payload)).collect();
        let request = self
            .agent
            .post(&delivery.url)
            .config()
            .timeout_global(Some(Duration::from_millis(delivery.timeout_ms.unsigned_abs())))
            .build()
            .header("content-type", job.payload_type.as_deref().unwrap_or("application/json"))
            .header("webhook-id", &id)
            .header("webhook-timestamp", now_s.to_string())
            .header("webhook-signature", signatures.join(" "))
            .header("tenantry-queue", job.queue.as_str())
            .header("tenantry-attempt", job.attempt.to_string());
        match request.send(&job.payload[..]) {
            Ok(answer) if answer.status().is_success() => Outcome::Delivered,
            Ok(answer) => {
                let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
                let retry_after_s = retry_after.and_then(|text| retry_after_s(text, now_s));
                Outcome::Failed { error: format!("the target answered {}", answer.status().as_u16()), retry_after_s }
            }
            Err(error) => Outcome::Failed { error: error.to_string().chars().take(ERROR_BYTES / 4).collect(), retry_after_s: None },
        }
    }
}

/// A number of seconds, or a date.
fn retry_after_s(text: &str, now_s: i64) -> Option<i64> {
    let at = || OffsetDateTime::parse(text.trim(), &Rfc2822).ok().map(|at| at.unix_timestamp() - now_s);
    text.trim().parse().ok().or_else(at).map(|seconds: i64| seconds.clamp(0, RETRY_AFTER_MAX_S))
}

/// Resolves, and refuses a name of which any address may not be asked.
#[derive(Debug)]
struct Looking {
    private: bool,
}

impl Resolver for Looking {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        if !self.private && found.iter().any(|address| !is_public(address.ip())) {
            return Err(ureq::Error::Other("the target's name leads to an address that is not public".into()));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_to_usual_ports_of_public_hosts_is_taken() {
        let (post, private) = (Post::new(false), Post::new(true));
        for url in ["https://example.com/", "https://example.com:8443/a?b=c", "https://1.1.1.1/", "https://[2606:4700::1111]/"] {
            assert!(post.check(url).is_ok(), "{url}");
        }
        for url in ["http://127.0.0.1:9/x", "http://example.com/", "https://localhost:1/"] {
            assert!(post.check(url).is_err() && private.check(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "x",
            "/a",
            "ftp://example.com/",
            "https://u:p@example.com/",
            "https://example.com:25/",
            "https://[::1]/",
            "https://169.254.169.254/latest",
            "https://[::ffff:127.0.0.1]/",
            "https://LOCALHOST/",
            &format!("https://example.com/{}", "x".repeat(URL_BYTES)),
        ] {
            assert!(post.check(url).is_err(), "{url}");
        }
        assert!(private.check("ftp://example.com/").is_err() && private.check("https://u@example.com/").is_err());
    }

    #[test]
    fn a_name_that_leads_home_is_not_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = |host: &str| Post::new(false).agent.get(format!("https://{host}:{port}/")).call().unwrap_err().to_string();
        // What the text of the URL does not show, the addresses do; `127.1` and `2130706433` are read by the resolver only.
        for host in ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let error = asked(host);
            assert!(error.contains("not public"), "{host}: {error}");
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody came");
    }

    #[test]
    fn a_wait_that_is_asked_for_is_seconds_or_a_date_within_its_bound() {
        assert_eq!(retry_after_s("120", 0), Some(120));
        assert_eq!(retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_480 - 60), Some(60));
        assert_eq!([retry_after_s("999999999", 0), retry_after_s("-5", 0), retry_after_s("soon", 0)], [Some(3_600), Some(0), None]);
    }
}

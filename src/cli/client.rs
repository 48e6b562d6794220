//! A [`Client`] calls one Tenantry server as one operator. Transport trouble and refusals both come back as an
//! [`Error`] that a person can act on; what the API says of a refusal (code, message, hint, details) is kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{self, Uri};

use crate::error::{Code, Error, Result};

/// How long one call may take: longer than any plan lets a statement run.
const CALL_TIME: Duration = Duration::from_secs(120);

const CONNECT_TIME: Duration = Duration::from_secs(10);

/// The most bytes of an answer that are read.
const ANSWER_MAX: u64 = 256 << 20;

pub struct Client {
    agent: ureq::Agent,
    /// Scheme, host and port, without a slash at the end.
    base: String,
    key: Option<String>,
}

/// One HTTP request, as whoever `bearer` is.
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub bearer: Option<&'a str>,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// No I/O. `url` is the server's address, without a path.
    pub fn new(url: &str, key: Option<String>) -> Result<Client> {
        let not_a_url = || {
            Error::bad_request(format!("`{url}` is no server's address"))
                .hint("It looks like http://127.0.0.1:8080 or https://tenantry.example.")
        };
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        let host = uri.host().filter(|_| matches!(uri.scheme_str(), Some("http" | "https"))).ok_or_else(not_a_url)?;
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(CALL_TIME))
            .timeout_connect(Some(CONNECT_TIME))
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")));
        if is_loopback(host) {
            config = config.proxy(None);
        }
        Ok(Client { agent: config.build().new_agent(), base: url.trim_end_matches('/').to_owned(), key })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, None, &[])
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask("POST", path, Some(body), &[])
    }

    pub fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask("PATCH", path, Some(body), &[])
    }

    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.ask("DELETE", path, None, &[])
    }

    /// One call as the operator; anything but a success is an error.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Result<Answer> {
        let Some(key) = &self.key else {
            return Err(Error::bad_request("no operator's key is at hand")
                .hint("Give it with TENANTRY_ADMIN_KEY or --key, or name the server's folder with --data-dir; `tenantry serve` prints where it keeps the key."));
        };
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        self.checked(&Call { method, path, bearer: Some(key), headers, body }).map_err(|error| match error.code() {
            Code::Unauthenticated => error.hint(
                "The operator's key is not this server's. A server that was last started with a TENANTRY_ADMIN_KEY of its own wants that one, \
                 not the one in its data directory.",
            ),
            _ => error,
        })
    }

    /// One call; anything but a success is an error.
    pub fn checked(&self, call: &Call<'_>) -> Result<Answer> {
        let answer = self.send(call)?;
        if answer.status < 300 { Ok(answer) } else { Err(refusal(call.method, call.path, &answer)) }
    }

    /// One call, whatever its answer; an error means that there was none. A body is sent as JSON unless the
    /// headers say otherwise.
    pub fn send(&self, call: &Call<'_>) -> Result<Answer> {
        let mut request = http::Request::builder().method(call.method).uri(format!("{}{}", self.base, call.path));
        if let Some(bearer) = call.bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let named = |name: &str| call.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        if !call.body.is_empty() && !named("content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        let unsendable = |e: http::Error| Error::bad_request(format!("{} {} cannot be sent: {e}", call.method, call.path));
        let sent = if call.body.is_empty() && matches!(call.method, "GET" | "HEAD" | "DELETE") {
            self.agent.run(request.body(()).map_err(unsendable)?)
        } else {
            self.agent.run(request.body(call.body.as_slice()).map_err(unsendable)?)
        };
        let mut response = sent.map_err(|e| self.no_answer(&e))?;
        let content_type = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().map_err(|e| self.no_answer(&e))?;
        Ok(Answer { status: response.status().as_u16(), content_type, body })
    }

    fn no_answer(&self, cause: &ureq::Error) -> Error {
        let cause = match cause {
            ureq::Error::Io(e) => e.to_string(),
            other => other.to_string(),
        };
        Error::new(Code::Unknown, format!("no answer from {}: {cause}", self.base))
            .hint("Is `tenantry serve` running there? --url or TENANTRY_URL names another server.")
    }
}

/// What the API said of a refused call, for a person.
fn refusal(method: &str, path: &str, answer: &Answer) -> Error {
    let body = answer.json();
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    let (Some(name), Some(message)) = (text("code"), text("message")) else {
        let path = path.split('?').next().unwrap_or(path);
        return Error::new(Code::Internal, format!("{method} {path} answered {} and nothing readable", answer.status))
            .hint("Is this a Tenantry server? --url or TENANTRY_URL names another one.");
    };
    let code = Code::ALL.into_iter().find(|code| code.as_str() == name).unwrap_or(Code::Internal);
    let mut error = Error::new(code, format!("{message} ({name}, {})", answer.status));
    if let Some(hint) = text("hint") {
        error = error.hint(hint.to_owned());
    }
    match body.get("details") {
        Some(Value::Null) | None => error,
        Some(details) => error.details(details.clone()),
    }
}

/// The key that a server with this data directory made at its first start, if this process may read it.
pub fn key_in(data_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join("system/admin.key")).ok()?;
    Some(text.trim().to_owned()).filter(|key| !key.is_empty())
}

/// How to call a server that listens on `addr`: one that listens on every address is called on this machine.
pub fn url_of(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, addr.port()))
}

/// Whether a URL can only mean a server on this machine.
pub fn is_on_this_machine(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(is_loopback))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `?a=1&b=2` of the pairs that have a value, percent-encoded; nothing when none has.
pub fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.push_str(&encode(value));
        }
    }
    text
}

/// Percent-encodes everything but the characters that stand for themselves anywhere in a URL (RFC 3986, 2.3).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_only_what_was_given_and_escapes_it() {
        assert_eq!(query(&[("q", None), ("limit", None)]), "");
        assert_eq!(query(&[("q", Some("a&b=ü/")), ("state", None), ("limit", Some("5"))]), "?q=a%26b%3D%C3%BC%2F&limit=5");
    }

    #[test]
    fn a_server_on_every_address_is_called_on_this_machine() {
        assert_eq!(url_of(SocketAddr::from(([0, 0, 0, 0], 80))), "http://127.0.0.1:80");
        assert_eq!(url_of("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(url_of("192.0.2.1:8080".parse().unwrap()), "http://192.0.2.1:8080");
    }

    #[test]
    fn a_refusal_keeps_what_the_api_said_and_an_unreadable_one_says_so() {
        let body = br#"{"code":"conflict","message":"the slug `a` is taken","details":{"slug":"a"},"hint":"Choose another."}"#;
        let error = refusal("POST", "/x", &Answer { status: 409, content_type: String::new(), body: body.to_vec() });
        assert_eq!(error.code(), Code::Conflict);
        assert_eq!(error.message(), "the slug `a` is taken (conflict, 409)");
        assert_eq!(error.to_json()["hint"], "Choose another.");
        assert_eq!(error.to_json()["details"]["slug"], "a");
        let error = refusal("GET", "/x?y=1", &Answer { status: 502, content_type: String::new(), body: b"<html>".to_vec() });
        assert_eq!(error.message(), "GET /x answered 502 and nothing readable");
    }

    #[test]
    fn a_url_that_only_looks_local_is_not_on_this_machine() {
        assert!(
            is_on_this_machine("http://127.0.0.1:8080") && is_on_this_machine("http://localhost") && is_on_this_machine("http://[::1]:1")
        );
        for url in ["http://127.0.0.1@evil.example", "http://localhost.evil.example", "https://tenantry.example"] {
            assert!(!is_on_this_machine(url), "{url}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_before_any_call() {
        for url in ["", "8080", "localhost:8080", "ftp://host", "http://"] {
            assert!(Client::new(url, None).is_err(), "{url}");
        }
        assert_eq!(Client::new("http://127.0.0.1:8080/", None).map(|c| c.base().to_owned()).ok().as_deref(), Some("http://127.0.0.1:8080"));
    }
}

//! HTTP as a test writes it: `client.post("/v1/sql", json!({…})).expect(200).json()`.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request};

/// The way to one server, shared by all its clients; it follows the server to a new port when it restarts.
pub struct Wire {
    base: RwLock<String>,
    agent: ureq::Agent,
}

impl Wire {
    pub fn new() -> Arc<Wire> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .max_redirects(0)
            .max_idle_connections_per_host(200)
            .max_idle_connections(200)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Arc::new(Wire { base: RwLock::new(String::new()), agent: config.into() })
    }

    pub fn leads_to(&self, base: &str) {
        base.clone_into(&mut self.base.write().unwrap());
    }

    pub fn base(&self) -> String {
        self.base.read().unwrap().clone()
    }
}

/// Speaks to a server with one bearer (an operator's key, a tenant's token) or none. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) wire: Arc<Wire>,
    bearer: Option<String>,
}

impl Client {
    pub(super) fn new(wire: &Arc<Wire>, bearer: Option<&str>) -> Client {
        Client { wire: wire.clone(), bearer: bearer.map(str::to_owned) }
    }

    /// The same server with another bearer.
    pub fn bearer(&self, bearer: &str) -> Client {
        Client::new(&self.wire, Some(bearer))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path).send()
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path).send()
    }

    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path).json(&body).send()
    }

    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path).json(&body).send()
    }

    pub fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path).json(&body).send()
    }

    /// A request to build up; `send` it.
    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        let call = Call { client: self, method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: None };
        match &self.bearer {
            Some(bearer) => call.header("Authorization", &format!("Bearer {bearer}")),
            None => call,
        }
    }
}

pub struct Call<'a> {
    client: &'a Client,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn idempotency_key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub fn json(self, body: &Value) -> Self {
        self.bytes("application/json", body.to_string().into_bytes())
    }

    pub fn bytes(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("Content-Type", content_type)
    }

    /// Fails the test when there is no answer at all.
    #[track_caller]
    pub fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// `Err` when no whole answer came: the server is gone, and what was asked may have happened or not.
    pub fn try_send(self) -> Result<Answer, ureq::Error> {
        let url = format!("{}{}", self.client.wire.base(), self.path);
        let mut request = Request::builder().method(self.method.as_str()).uri(url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let agent = &self.client.wire.agent;
        let mut answer = match self.body {
            Some(body) => agent.run(request.body(body)?)?,
            None => agent.run(request.body(())?)?,
        };
        let body = answer.body_mut().with_config().limit(256 << 20).read_to_vec()?;
        let asked = format!("{} {}", self.method, self.path);
        Ok(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body, asked })
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    asked: String,
}

impl Answer {
    /// Fails the test unless the status is this one, and shows the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{} answered {}: {}", self.asked, self.status, self.text());
        self
    }

    /// Fails the test unless it succeeded, whatever there is to say beside that.
    #[track_caller]
    pub fn succeeds(self) -> Answer {
        assert!((200..300).contains(&self.status), "{} answered {}: {}", self.asked, self.status, self.text());
        self
    }

    /// Fails unless the answer is our JSON error of this status and code, whole: `code`, `message`, `details`
    /// and `hint`, the message not empty. Returns it.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type").unwrap_or(""), "application/json", "{}: errors are JSON", answer.asked);
        let error = answer.json();
        assert_eq!(error["code"], code, "{}: {error}", answer.asked);
        let keys: Vec<_> = error.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "details", "hint", "message"], "{}: {error}", answer.asked);
        assert!(!error["message"].as_str().expect("a message").is_empty());
        error
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{} is not JSON ({error}): {}", self.asked, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A tenant and the client of its service token.
#[derive(Clone)]
pub struct TenantClient {
    pub id: String,
    pub slug: String,
    pub token: String,
    client: Client,
}

impl std::ops::Deref for TenantClient {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TenantClient {
    /// From the answer that provisioned it: `{"tenant":{…},"token"}`.
    #[track_caller]
    pub(super) fn of(wire: &Arc<Wire>, answer: &Value) -> TenantClient {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let token = text(&answer["token"]);
        let client = Client::new(wire, Some(&token));
        TenantClient { id: text(&answer["tenant"]["id"]), slug: text(&answer["tenant"]["slug"]), token, client }
    }

    /// `self` with another of its tokens.
    pub fn with_token(&self, token: &str) -> TenantClient {
        TenantClient { token: token.to_owned(), client: self.client.bearer(token), ..self.clone() }
    }

    /// One statement, whatever comes of it.
    #[track_caller]
    pub fn sql(&self, sql: &str, params: Value) -> Answer {
        self.post("/v1/sql", json!({ "statements": [{ "sql": sql, "params": params }] }))
    }

    /// One statement that succeeds; its `{"columns","rows","rows_affected","last_insert_rowid"}`.
    #[track_caller]
    pub fn result(&self, sql: &str, params: Value) -> Value {
        self.sql(sql, params).expect(200).json()["results"][0].clone()
    }

    /// One statement that succeeds; its rows.
    #[track_caller]
    pub fn rows(&self, sql: &str, params: Value) -> Value {
        self.result(sql, params)["rows"].clone()
    }

    /// A script that succeeds.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.post("/v1/sql", json!({ "script": script })).expect(200).json()
    }
}

/// `text` as one segment of a path, everything but unreserved characters percent-encoded.
pub fn segment(text: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    for &byte in text.as_ref() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

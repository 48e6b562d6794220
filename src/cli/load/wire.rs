//! A [`Wire`] is one kept-alive HTTP/1.1 connection that costs as little as one can: a load generator shares the
//! machine with the server it measures, and what the client spends is missing there. Requests are bytes made
//! beforehand ([`post`], [`get`]); of an answer only the status, three headers and the body are looked at.
//!
//! It speaks what Tenantry answers and no more: bodies with a `Content-Length`, no TLS, no redirects. Everything is
//! bounded: the head by [`HEAD_MAX`], the body by [`BODY_MAX`], a call by its time.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Error, Result};

/// The most bytes of an answer's status line and headers.
pub const HEAD_MAX: usize = 64 << 10;

/// The most bytes of an answer's body.
pub const BODY_MAX: usize = 64 << 20;

/// Where a server is, resolved once.
#[derive(Clone, Debug)]
pub struct Target {
    pub addr: SocketAddr,
    /// What `Host` says.
    pub host: String,
}

impl Target {
    /// From `http://host:port`. Errors: `bad_request` for anything else, TLS included.
    pub fn parse(url: &str) -> Result<Target> {
        let wrong = |why: &str| Error::bad_request(format!("`{url}` cannot be put under load: {why}"));
        let host = url.strip_prefix("http://").ok_or_else(|| {
            wrong("only plain http:// is spoken here")
                .hint("Measure the server itself, not the proxy that ends its TLS; a client that encrypts would measure itself.")
        })?;
        let host = host.trim_end_matches('/');
        let with_port = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) { host.to_owned() } else { format!("{host}:80") };
        let found: Vec<SocketAddr> = with_port.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?.collect();
        // A name such as localhost has several addresses, and a server need not listen on all.
        let listens = |addr: &&SocketAddr| std::net::TcpStream::connect_timeout(addr, Duration::from_secs(2)).is_ok();
        let addr = if found.len() > 1 { found.iter().find(listens) } else { None };
        let addr = *addr.or(found.first()).ok_or_else(|| wrong("its name has no address"))?;
        Ok(Target { addr, host: host.to_owned() })
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    pub body: &'a [u8],
}

/// No whole answer came, and what was asked may have happened or not. The connection is closed.
#[derive(Debug)]
pub enum Broken {
    Io(std::io::Error),
    /// The server closed in the middle, or before any answer.
    Closed,
    TimedOut(Duration),
    /// These are not the bytes of an HTTP answer we know.
    NotHttp(&'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Io(error) => error.fmt(f),
            Broken::Closed => f.write_str("the server closed the connection"),
            Broken::TimedOut(after) => write!(f, "no answer within {after:?}"),
            Broken::NotHttp(why) => write!(f, "not an HTTP answer: {why}"),
        }
    }
}

pub struct Wire {
    addr: SocketAddr,
    patience: Duration,
    stream: Option<TcpStream>,
    /// Holds the answer last read, from its start.
    buffer: Vec<u8>,
}

impl Wire {
    /// No I/O: it connects with the first call, and again after an answer that never came. `patience` bounds a call.
    pub fn new(target: &Target, patience: Duration) -> Wire {
        Wire { addr: target.addr, patience, stream: None, buffer: Vec::new() }
    }

    /// Sends the bytes of one request and waits for its answer.
    pub async fn call(&mut self, request: &[u8]) -> Result<Answer<'_>, Broken> {
        let outcome = match tokio::time::timeout(self.patience, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Broken::TimedOut(self.patience)),
        };
        let head = outcome.inspect_err(|_| self.stream = None)?;
        if head.closes {
            self.stream = None;
        }
        Ok(Answer { status: head.status, retry_after: head.retry_after, body: &self.buffer[head.length..head.length + head.body] })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Head, Broken> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.addr).await.map_err(Broken::Io)?;
                stream.set_nodelay(true).map_err(Broken::Io)?;
                self.stream.insert(stream)
            }
        };
        stream.write_all(request).await.map_err(Broken::Io)?;
        self.buffer.clear();
        let mut head = None;
        loop {
            self.buffer.reserve(4 << 10);
            if stream.read_buf(&mut self.buffer).await.map_err(Broken::Io)? == 0 {
                return Err(Broken::Closed);
            }
            if head.is_none() {
                head = Head::parse(&self.buffer)?;
            }
            match &head {
                Some(head) if self.buffer.len() == head.length + head.body => break,
                Some(head) if self.buffer.len() > head.length + head.body => return Err(Broken::NotHttp("bytes after the body")),
                None if self.buffer.len() > HEAD_MAX => return Err(Broken::NotHttp("an endless head")),
                _ => {}
            }
        }
        head.ok_or(Broken::Closed)
    }
}

/// What an answer's head says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head itself, to the first one of the body.
    length: usize,
    /// Bytes of the body.
    body: usize,
    retry_after: Option<u64>,
    closes: bool,
}

impl Head {
    /// `None` until the bytes hold all of it.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, Broken> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Broken::NotHttp("a head that is not text"))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|rest| rest.get(..3)?.parse().ok());
        let status: u16 = status.ok_or(Broken::NotHttp("no status line"))?;
        let mut head = Head { status, length: end + 4, body: 0, retry_after: None, closes: false };
        let mut sized = matches!(status, 100..=199 | 204 | 304);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { return Err(Broken::NotHttp("a header without a colon")) };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.body = value.parse().ok().filter(|&body| body <= BODY_MAX).ok_or(Broken::NotHttp("a senseless Content-Length"))?;
                sized = true;
            } else if name.eq_ignore_ascii_case("retry-after") {
                head.retry_after = value.parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.eq_ignore_ascii_case("close");
            }
        }
        if sized { Ok(Some(head)) } else { Err(Broken::NotHttp("an answer without a Content-Length")) }
    }
}

/// What every request of one caller to one server has in common.
#[derive(Clone, Debug)]
pub struct Caller {
    headers: Box<str>,
}

impl Caller {
    pub fn new(target: &Target, bearer: &str) -> Caller {
        Caller { headers: format!(" HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {bearer}\r\n", target.host).into() }
    }
}

/// Puts a `GET` into `request`, whatever it held.
pub fn get(request: &mut Vec<u8>, caller: &Caller, path: &str) {
    start(request, "GET ", caller, path);
    request.extend_from_slice(b"\r\n");
}

/// Puts a `POST` of JSON into `request`, whatever it held.
pub fn post(request: &mut Vec<u8>, caller: &Caller, path: &str, body: &[u8]) {
    start(request, "POST ", caller, path);
    finish(request, "application/json", body);
}

/// Puts a `PATCH` of JSON that asks for the rows as they are then into `request`, whatever it held.
pub fn patch(request: &mut Vec<u8>, caller: &Caller, path: &str, body: &[u8]) {
    start(request, "PATCH ", caller, path);
    request.extend_from_slice(b"prefer: return=representation\r\n");
    finish(request, "application/json", body);
}

/// Puts a `PUT` of plain text into `request`, whatever it held.
pub fn put(request: &mut Vec<u8>, caller: &Caller, path: &str, body: &[u8]) {
    start(request, "PUT ", caller, path);
    finish(request, "text/plain", body);
}

fn start(request: &mut Vec<u8>, method: &str, caller: &Caller, path: &str) {
    request.clear();
    for part in [method, path, &caller.headers] {
        request.extend_from_slice(part.as_bytes());
    }
}

fn finish(request: &mut Vec<u8>, content_type: &str, body: &[u8]) {
    use std::io::Write;
    // Into a vector, which takes everything.
    let _ = write!(request, "content-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len());
    request.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_all_of_it_is_there() {
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nRetry-After: 3\r\nConnection: close\r\n\r\n{}";
        for cut in 0..answer.len() - 2 {
            assert_eq!(Head::parse(&answer[..cut]).unwrap(), None);
        }
        let head = Head { status: 429, length: answer.len() - 2, body: 2, retry_after: Some(3), closes: true };
        assert_eq!(Head::parse(answer).unwrap(), Some(head));
    }

    #[test]
    fn what_has_no_length_is_refused_unless_it_has_no_body() {
        assert!(Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().is_some());
        for wrong in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
        ] {
            assert!(Head::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_is_one_run_of_bytes() {
        let target = Target { addr: SocketAddr::from(([127, 0, 0, 1], 1)), host: "h:1".to_owned() };
        let mut request = b"old".to_vec();
        post(&mut request, &Caller::new(&target, "t"), "/v1/sql", b"{}");
        let text = "POST /v1/sql HTTP/1.1\r\nhost: h:1\r\nauthorization: Bearer t\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(request).unwrap(), text);
    }

    #[test]
    fn only_a_plain_http_address_is_a_target() {
        assert_eq!(Target::parse("http://127.0.0.1:8080/").unwrap().addr, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(Target::parse("http://[::1]").unwrap().addr, "[::1]:80".parse().unwrap());
        assert!(Target::parse("https://127.0.0.1").is_err() && Target::parse("127.0.0.1:80").is_err());
    }
}

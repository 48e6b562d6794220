//! Bombs of bytes: connections that never finish what they began, bodies that grow when they are unpacked, requests
//! that end at two places, answers that nobody reads.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

/// `TENANTRY_CONNECTIONS=5000`; by default as many as the test's own descriptors allow for, up to 5,000.
fn connections() -> usize {
    let mine = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let fitting = usize::try_from(mine / 3).unwrap_or(usize::MAX).min(5_000);
    std::env::var("TENANTRY_CONNECTIONS").map_or(fitting, |count| count.parse().expect("TENANTRY_CONNECTIONS is a number"))
}

fn head(tenant: &TenantClient, more: &str) -> String {
    format!(
        "POST /v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{more}\r\n\r\n",
        tenant.token
    )
}

/// What comes back until the server closes.
fn rest(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn thousands_of_slow_headers_and_bodies_hold_nobody_up() {
    let server = Server::with(|c| {
        c.set("http.header_timeout_ms", 1_500);
    });
    let neighbour = Neighbour::of(&server);
    let slow = server.tenant("slow");
    let count = connections();
    let name = format!("{count} slow headers and bodies");
    let headers = neighbour.beside(&name, &server, || {
        let bodies = head(&slow, "Content-Length: 100000");
        let mut streams: Vec<_> = (0..count)
            .map(|at| {
                let mut stream = server.connect();
                stream.write_all(if at % 2 == 0 { b"GET /healthz HTTP/1.1\r\nHost:" } else { bodies.as_bytes() }).unwrap();
                stream
            })
            .collect();
        // Drop by drop.
        for _ in 0..5 {
            for stream in &mut streams {
                let _ = stream.write_all(b"x");
            }
        }
        let (mut headers, mut bodies): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (at, stream) in streams.into_iter().enumerate() {
            if at % 2 == 0 { headers.push(stream) } else { bodies.push(stream) }
        }
        for stream in &mut headers {
            let answer = rest(stream);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        headers.len()
    });
    assert_eq!(headers, count.div_ceil(2), "each was let go");
    slow.sql("SELECT 1", json!([])).expect(200);
}

/// A gzip of ten gigabytes of zeros: members of 64 MiB, one after the other.
fn gzip_bomb() -> Vec<u8> {
    let zeros = std::process::Command::new("sh").args(["-c", "head -c 67108864 /dev/zero | gzip -9"]).output().unwrap();
    assert!(zeros.status.success() && zeros.stdout.len() > 10_000, "gzip");
    zeros.stdout.repeat(160)
}

#[test]
fn a_body_that_grows_when_unpacked_is_not_unpacked() {
    let server = Server::start();
    let neighbour = Neighbour::of(&server);
    let tenant = server.tenant("gzip");
    let bomb = gzip_bomb();
    let send = |body: &[u8]| {
        let head = head(&tenant, &format!("Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: {}", body.len()));
        let mut stream = server.connect();
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        rest(&mut stream)
    };
    let whole = neighbour.beside("gzip of 10 GB", &server, || send(&bomb));
    assert!(whole.starts_with("HTTP/1.1 413") && whole.contains("payload_too_large"), "{whole}");
    let part = neighbour.beside("gzip of 2 GB within the bound", &server, || send(&bomb[..bomb.len() / 5]));
    assert!(part.starts_with("HTTP/1.1 415") && part.contains("unsupported_media_type"), "{part}");
}

#[test]
fn a_request_with_two_lengths_is_400_and_closed() {
    let server = Server::shared();
    let tenant = server.tenant("smuggler");
    tenant.script("CREATE TABLE t (x)");
    let smuggled = head(&tenant, "Content-Length: 52") + r#"{"statements":[{"sql":"INSERT INTO t VALUES (666)"}]}"#;
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: gzip, chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length: +5",
        "Content-Length: 5\r\nTransfer-Encoding: xchunked",
    ] {
        let mut stream = server.connect();
        stream.write_all((head(&tenant, lengths) + "0\r\n\r\n" + &smuggled).as_bytes()).unwrap();
        let answer = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 400"), "{lengths}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "closed after the first: {lengths}: {answer}");
    }
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]), "nothing was smuggled");
}

#[test]
fn an_unbounded_result_to_a_client_that_stops_reading_is_bounded() {
    let server = Server::start();
    let neighbour = Neighbour::of(&server);
    let tenant = server.tenant("deaf");
    let body = json!({ "statements": [{ "sql": "SELECT hex(zeroblob(7000000)) UNION ALL SELECT hex(zeroblob(7000001))" }] }).to_string();
    let request = head(&tenant, &format!("Content-Length: {}", body.len())) + &body;
    let unread = neighbour.beside("16 answers of 28 MB that nobody reads", &server, || {
        let streams: Vec<_> = (0..16)
            .map(|_| {
                let mut stream = server.connect();
                stream.write_all(request.as_bytes()).unwrap();
                stream
            })
            .collect();
        // Each is begun or refused: something of it comes.
        for stream in &streams {
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.peek(&mut [0]).unwrap();
        }
        streams
    });
    drop(unread);
    eventually("served again", || (tenant.sql("SELECT 1", json!([])).status == 200).then_some(()));
}

#[test]
fn ten_thousand_statements_in_one_request_are_taken_and_one_more_is_not() {
    let server = Server::start();
    let neighbour = Neighbour::of(&server);
    let tenant = server.tenant("many");
    tenant.script("CREATE TABLE t (x)");
    let many = |count: usize| {
        let statements: Vec<_> = (0..count).map(|x| json!({ "sql": "INSERT INTO t VALUES (?1)", "params": [x] })).collect();
        tenant.post("/v1/sql", json!({ "statements": statements }))
    };
    neighbour.beside("10,000 statements", &server, || many(10_000)).expect(200);
    many(10_001).refused(400, "bad_request");
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[10_000]]));
}

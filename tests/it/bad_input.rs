//! Whatever is sent: a clear JSON error with the right status, no panic, no 500, and the server goes on.

use std::io::Write;

use crate::support::*;

fn post(client: &Client, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    client.call("POST", path).bytes(content_type, body).send()
}

#[test]
fn malformed_json_says_where() {
    let server = Server::shared();
    let tenant = server.tenant("json");
    for body in [
        "",
        "{",
        "{\"script\": }",
        "nonsense",
        "{\"script\": \"SELECT 1\"} trailing",
        "{\"script\": \"a\", \"script\": \"b\"}",
        "[1, 2",
        "{'script': 'x'}",
    ] {
        post(&tenant, "/v1/sql", "application/json", body).refused(400, "bad_request");
    }
    let error = post(&tenant, "/v1/sql", "application/json", "{\n  \"script\": oops }").refused(400, "bad_request");
    assert!(error.to_string().contains("line 2"), "{error}");
    for body in [
        &b"{\"script\": \"\xff\xfe\"}"[..],
        b"\x00\x01\x02",
        b"{\"script\": \"\xc3\x28\"}",
        b"\"\xed\xa0\x80\"",
        b"{\"script\": \"\\ud800\"}",
    ] {
        post(&tenant, "/v1/sql", "application/json", body).refused(400, "bad_request");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    post(&tenant, "/v1/sql", "application/json", deep.clone()).refused(400, "bad_request");
    post(&tenant, "/v1/queues/q/jobs", "application/json", format!("{{\"payload\": {deep}}}")).refused(400, "bad_request");
}

#[test]
fn unknown_fields_and_wrong_types_name_the_field() {
    let server = Server::shared();
    let tenant = server.tenant("fields");
    let error = tenant.post("/v1/sql", json!({ "scirpt": "SELECT 1" })).refused(400, "bad_request");
    assert!(error.to_string().contains("scirpt"), "{error}");
    for (path, body) in [
        ("/v1/sql", json!({ "script": 7 })),
        ("/v1/sql", json!({ "statements": [{ "sql": ["SELECT 1"] }] })),
        ("/v1/queues/q/jobs", json!({ "payload": 1, "prioritty": 2 })),
        ("/v1/queues/q/jobs", json!({})),
        ("/v1/queues/q/claim", json!({ "max": "many", "lease_s": 30 })),
        ("/v1/queues/q/claim", json!({ "max": 0, "lease_s": 30 })),
        ("/v1/queues/q/claim", json!({ "max": 1, "lease_s": -1 })),
        ("/v1/jobs/0195f000-0000-7000-8000-000000000000/ack", json!({ "lease": "x" })),
    ] {
        tenant.post(path, body).refused(400, "bad_request");
    }
}

#[test]
fn a_wrong_method_is_405_and_says_which_are_allowed() {
    let server = Server::shared();
    let tenant = server.tenant("methods");
    for (client, method, path, allowed) in [
        (&*tenant, "GET", "/v1/sql", "POST"),
        (&*tenant, "DELETE", "/v1/sql", "POST"),
        (&*tenant, "PATCH", "/v1/cache/k", "PUT"),
        (&*tenant, "GET", "/v1/queues/q/claim", "POST"),
        (&server.admin(), "PUT", "/admin/v1/tenants", "POST"),
        (&server.anyone(), "POST", "/healthz", "GET"),
        (&server.anyone(), "DELETE", "/openapi.json", "GET"),
    ] {
        let answer = client.call(method, path).send();
        let allow = answer.header("allow").unwrap_or_default().to_owned();
        assert!(allow.contains(allowed), "{method} {path}: Allow: {allow:?}");
        answer.refused(405, "method_not_allowed");
    }
    let answer = tenant.call("BREW", "/v1/sql").send();
    assert!([400, 405, 501].contains(&answer.status), "{}", answer.status);
}

#[test]
fn a_wrong_content_type_is_415() {
    let server = Server::shared();
    let tenant = server.tenant("types");
    let body = json!({ "script": "SELECT 1" }).to_string();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data; boundary=x"] {
        post(&tenant, "/v1/sql", content_type, body.clone()).refused(415, "unsupported_media_type");
        post(&server.admin(), "/admin/v1/tenants", content_type, body.clone()).refused(415, "unsupported_media_type");
    }
    post(&tenant, "/v1/sql", "application/json; charset=utf-8", body.clone()).expect(200);
    post(&tenant, "/v1/sql", "Application/JSON", body).expect(200);
}

#[test]
fn a_body_over_the_limit_is_413_whether_or_not_it_says_its_length() {
    let server = Server::with(|c| {
        c.set("http.max_body_bytes", 100_000);
    });
    let tenant = server.tenant("large");
    let body = json!({ "script": format!("SELECT '{}'", "x".repeat(200_000)) }).to_string();
    post(&tenant, "/v1/sql", "application/json", body.clone()).refused(413, "payload_too_large");
    tenant.call("PUT", "/v1/cache/k").bytes("text/plain", vec![b'x'; 200_000]).send().refused(413, "payload_too_large");
    // Chunked: no length to believe.
    let chunked = format!(
        "POST /v1/sql HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        tenant.token,
        body.len()
    );
    let answer = server.raw(chunked.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("payload_too_large"), "{answer}");
    tenant.sql("SELECT 1", json!([])).expect(200);
}

#[test]
fn unknown_paths_are_404_in_json() {
    let server = Server::shared();
    let tenant = server.tenant("paths");
    for path in [
        "/v1",
        "/v1/",
        "/v1/sql/",
        "/v1/sqll",
        "/v9/sql",
        "/admin/v1/nope",
        "/.git/config",
        "/v1/../v1/sql",
        "/%2e%2e/etc/passwd",
        "//",
        "/v1/queue",
        "/favicon.ico",
    ] {
        let answer = tenant.call("GET", path).send();
        assert!([404, 405].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        let (status, code) = (answer.status, if answer.status == 404 { "not_found" } else { "method_not_allowed" });
        answer.refused(status, code);
    }
}

#[test]
fn keys_and_names_are_bounded() {
    let server = Server::shared();
    let tenant = server.tenant("names");
    let long = "k".repeat(10 << 10);
    for method in ["GET", "PUT", "DELETE"] {
        let call = tenant.call(method, &format!("/v1/cache/{long}"));
        let call = if method == "PUT" { call.bytes("text/plain", "v") } else { call };
        call.send().refused(400, "bad_request");
    }
    tenant.post(&format!("/v1/queues/{long}/jobs"), json!({ "payload": 1 })).refused(400, "bad_request");
    tenant.post(&format!("/v1/jobs/{long}/ack"), json!({ "lease_token": "x" })).refused(400, "bad_request");
    server.admin().get(&format!("/admin/v1/tenants/{long}")).refused(400, "bad_request");
    for path in ["/v1/cache/%ff%fe", "/v1/cache/%c3%28", "/v1/queues/%ff/jobs", "/v1/queues/a%2fb/jobs", "/v1/queues/%00/jobs"] {
        let answer = tenant.call(if path.contains("queues") { "POST" } else { "GET" }, path).json(&json!({ "payload": 1 })).send();
        assert!([400, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        let (status, code) = (answer.status, if answer.status == 404 { "not_found" } else { "bad_request" });
        answer.refused(status, code);
    }
    for ttl in ["0", "-1", "1.5", "NaN", "99999999999999999999", "soon", ""] {
        tenant.call("PUT", &format!("/v1/cache/k?ttl={ttl}")).bytes("text/plain", "v").send().refused(400, "bad_request");
    }
    tenant.call("PUT", "/v1/cache/k?tll=5").bytes("text/plain", "v").send().refused(400, "bad_request");
}

#[test]
fn a_bearer_that_is_none_is_401() {
    let server = Server::shared();
    let body = json!({ "script": "SELECT 1" });
    server.anyone().post("/v1/sql", body.clone()).refused(401, "unauthenticated");
    for value in
        ["", "Bearer", "Bearer ", "bearer x", "Basic dXNlcjpwYXNz", "Bearer a b", "Token x", &format!("Bearer {}", "x".repeat(6_000))]
    {
        for path in ["/v1/sql", "/admin/v1/tenants"] {
            server.anyone().call("POST", path).header("Authorization", value).json(&body).send().refused(401, "unauthenticated");
        }
    }
    let answer = server.anyone().post("/v1/sql", body);
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{:?}", answer.headers);
}

#[test]
fn bytes_that_are_not_http_close_the_connection_and_nothing_else() {
    let server = Server::shared();
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let headers = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Filler: yes\r\n".repeat(20_000));
    let smuggled =
        "POST /v1/sql HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n";
    let cases: &[&[u8]] = &[
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\xff\xfe\xfd\xfc\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /v1/sql HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/sql HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/sql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        long.as_bytes(),
        headers.as_bytes(),
        smuggled.as_bytes(),
    ];
    at_once(cases.len(), |case| {
        let answer = server.raw(cases[case]);
        let status = answer.get(9..12).unwrap_or("none");
        assert!(["none", "400", "401", "404", "405", "408", "413", "414", "431", "501", "505"].contains(&status), "case {case}: {answer}");
    });
    // Many who begin and never end hold nobody up.
    let idle: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"POST /v1/sql HTTP/1.1\r\nHost:").unwrap();
            stream
        })
        .collect();
    server.anyone().get("/healthz").expect(200);
    drop(idle);
}

#[test]
fn a_client_that_never_finishes_its_headers_is_let_go() {
    use std::io::Read;
    let server = Server::with(|c| {
        c.set("http.header_timeout_ms", 500);
    });
    let mut stream = server.connect();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").unwrap();
    let begun = std::time::Instant::now();
    // The connection ends, with or without a 408.
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_head_request_has_the_headers_and_no_body() {
    let server = Server::shared();
    let answer = server.anyone().call("HEAD", "/healthz").send();
    assert!([200, 405].contains(&answer.status) && answer.body.is_empty(), "{}", answer.status);
}

/// Noise in every field, then the two checks that matter: no 5xx but the clear ones, and no panic in the log.
#[test]
fn nothing_of_all_this_panics() {
    let server = Server::start();
    let tenant = server.tenant("noise");
    let noise = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e308),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}"),
        json!("x".repeat(5_000)),
        json!([]),
        json!([[[]]]),
        json!({}),
        json!({ "a": { "b": {} } }),
        json!("\u{202e}\u{feff}"),
        json!("' OR 1=1 --"),
        json!("${jndi:ldap://x}"),
    ];
    let fields = [
        "script",
        "statements",
        "transaction",
        "sql",
        "params",
        "payload",
        "max",
        "lease_s",
        "lease_token",
        "slug",
        "name",
        "plan",
        "state",
        "scopes",
        "expires_in_s",
        "tenants",
    ];
    let admin = server.admin();
    let id = &tenant.id;
    let routes: Vec<(&Client, &str, String)> = vec![
        (&tenant, "POST", "/v1/sql".into()),
        (&tenant, "POST", "/v1/queues/q/jobs".into()),
        (&tenant, "POST", "/v1/queues/q/claim".into()),
        (&tenant, "POST", format!("/v1/jobs/{id}/ack")),
        (&admin, "POST", "/admin/v1/tenants".into()),
        (&admin, "POST", "/admin/v1/tenants:batch".into()),
        (&admin, "PATCH", format!("/admin/v1/tenants/{id}")),
        (&admin, "POST", format!("/admin/v1/tenants/{id}/tokens")),
    ];
    for (client, method, path) in &routes {
        for (at, value) in noise.iter().enumerate() {
            let mut bodies = vec![value.clone()];
            for field in fields {
                let other = fields[(at * 5 + field.len()) % fields.len()];
                bodies.push(json!({ field: value, other: noise[(at + field.len()) % noise.len()] }));
            }
            for body in bodies {
                let answer = client.call(method, path).json(&body).send();
                assert!(answer.status < 500, "{method} {path} {body}: {} {}", answer.status, answer.text());
                if answer.status >= 400 {
                    assert!(answer.json()["code"].is_string(), "{}", answer.text());
                }
            }
        }
    }
    for query in [
        "?limit=x",
        "?limit=-1",
        "?limit=99999999999999999999",
        "?cursor=%00",
        "?q=%ff",
        "?q='",
        "?state[]=x",
        "?a=b&a=b",
        "?%",
        "?limit=1&limit=2",
    ] {
        for path in ["/admin/v1/tenants", "/admin/v1/audit", "/v1/cache/k"] {
            let client = if path.starts_with("/admin") { &admin } else { &*tenant };
            let answer = client.get(&format!("{path}{query}"));
            assert!(answer.status < 500, "{path}{query}: {} {}", answer.status, answer.text());
        }
    }
    tenant.sql("SELECT 1", json!([])).expect(200);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

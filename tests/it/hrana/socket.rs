//! Hrana on a WebSocket: what a client may rely on, and what ends a socket.

use super::peer::Peer;
use crate::support::*;

const PROTOCOL: u16 = 1002;
const POLICY: u16 = 1008;

fn token(server: &Server, tenant: &TenantClient, expires_in_s: u64) -> Value {
    let body =
        json!({ "role": "service", "sub": "socket", "scopes": ["sql:read", "sql:write", "sql:schema"], "expires_in_s": expires_in_s });
    server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json()
}

#[track_caller]
fn closes(peer: &mut Peer, code: u16, words: &str) {
    match peer.closed() {
        Some((closed, reason)) => assert!(closed == code && reason.contains(words), "{closed} {reason}"),
        None => panic!("hung up without a word"),
    }
}

#[test]
fn many_streams_share_a_socket_and_each_keeps_its_order() {
    let server = Server::shared();
    let tenant = server.tenant("socket");
    tenant.script("CREATE TABLE t (stream, n)");
    let mut peer = Peer::hello(&server, &tenant.token);
    const STREAMS: i32 = 10;
    const STEPS: i32 = 20;
    for stream in 0..STREAMS {
        peer.request(stream, json!({ "type": "open_stream", "stream_id": stream }));
        for step in 1..=STEPS {
            let sql = format!("INSERT INTO t SELECT {stream}, count(*) + 1 FROM t WHERE stream = {stream} RETURNING n");
            peer.request(stream + STREAMS * step, json!({ "type": "execute", "stream_id": stream, "stmt": { "sql": sql } }));
        }
    }
    let mut last = vec![0; STREAMS as usize];
    for _ in 0..STREAMS * (STEPS + 1) {
        let answer = peer.receive();
        assert_eq!(answer["type"], "response_ok", "{answer}");
        let id = answer["request_id"].as_i64().unwrap() as i32;
        if id >= STREAMS {
            let n: i32 = answer["response"]["result"]["rows"][0][0]["value"].as_str().unwrap().parse().unwrap();
            let (stream, step) = (id % STREAMS, id / STREAMS);
            assert_eq!((n, last[stream as usize] + 1), (step, step), "stream {stream}");
            last[stream as usize] = step;
        }
    }
}

#[test]
fn a_client_that_sends_far_ahead_is_answered_in_full() {
    let server = Server::shared();
    let tenant = server.tenant("ahead");
    let mut peer = Peer::hello(&server, &tenant.token);
    peer.open(0);
    const REQUESTS: i32 = 3_000;
    for id in 0..REQUESTS {
        peer.request(id, json!({ "type": "execute", "stream_id": 0, "stmt": { "sql": format!("SELECT {id}, hex(zeroblob(200))") } }));
    }
    for id in 0..REQUESTS {
        let answer = peer.receive();
        assert_eq!((&answer["request_id"], &answer["response"]["result"]["rows"][0][0]["value"]), (&json!(id), &json!(id.to_string())));
    }
}

#[test]
fn a_socket_that_breaks_off_leaves_no_transaction() {
    // No deadline could end it: only the end of the connection does.
    let server = Server::with(|c| {
        for key in ["transaction_idle_ms", "transaction_idle_contended_ms", "transaction_ms"] {
            c.set(&format!("hrana.{key}"), 3_600_000);
        }
    });
    let tenant = server.tenant("broken-off");
    tenant.script("CREATE TABLE t (x)");
    for ends in [|peer: Peer| drop(peer), |mut peer: Peer| peer.send_frame(0x88, &1000_u16.to_be_bytes())] {
        let mut peer = Peer::hello(&server, &tenant.token);
        peer.open(1);
        peer.execute(1, "BEGIN IMMEDIATE");
        peer.execute(1, "INSERT INTO t VALUES ('lost')");
        ends(peer);
        tenant.sql("INSERT INTO t VALUES ('kept')", json!([])).expect(200);
    }
    assert_eq!(tenant.rows("SELECT DISTINCT x FROM t", json!([])), json!([["kept"]]));
}

#[test]
fn closing_a_stream_rolls_back_its_transaction_and_frees_its_number() {
    let server = Server::shared();
    let tenant = server.tenant("closed-stream");
    tenant.script("CREATE TABLE t (x)");
    let mut peer = Peer::hello(&server, &tenant.token);
    peer.open(1);
    peer.execute(1, "BEGIN IMMEDIATE");
    peer.execute(1, "INSERT INTO t VALUES (1)");
    assert_eq!(peer.ask(json!({ "type": "close_stream", "stream_id": 1 }))["type"], "response_ok");
    assert_eq!(peer.ask(json!({ "type": "execute", "stream_id": 1, "stmt": { "sql": "SELECT 1" } }))["type"], "response_error");
    peer.open(1);
    assert_eq!(peer.execute(1, "SELECT count(*) FROM t"), json!([[{ "type": "integer", "value": "0" }]]));
}

#[test]
fn a_cursor_is_read_piece_by_piece_also_ahead_of_its_opening() {
    let server = Server::shared();
    let tenant = server.tenant("fetch");
    let mut peer = Peer::hello(&server, &tenant.token);
    peer.open(1);
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000) SELECT i, hex(zeroblob(50)) FROM n";
    let fetch = |max: u32| json!({ "type": "fetch_cursor", "cursor_id": 7, "max_count": max });
    peer.request(1, json!({ "type": "open_cursor", "stream_id": 1, "cursor_id": 7, "batch": { "steps": [{ "stmt": { "sql": sql } }] } }));
    peer.request(2, fetch(3));
    assert_eq!(peer.receive()["response"], json!({ "type": "open_cursor" }));
    let first = peer.receive();
    let kinds = |answer: &Value| -> Vec<String> {
        answer["response"]["entries"].as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((kinds(&first), &first["response"]["done"]), (["step_begin", "row", "row"].map(str::to_owned).to_vec(), &json!(false)));
    let (mut rows, mut messages) = (2, 0);
    loop {
        let answer = peer.ask(fetch(u32::MAX));
        messages += 1;
        assert!(answer.to_string().len() < 100_000, "a message is bounded");
        rows += kinds(&answer).iter().filter(|kind| *kind == "row").count();
        if answer["response"]["done"] == true {
            break;
        }
    }
    assert!(rows == 10_000 && messages > 10, "{rows} rows in {messages} messages");
    assert_eq!(peer.ask(fetch(1))["response"]["entries"], json!([]));
    assert_eq!(peer.ask(json!({ "type": "close_cursor", "cursor_id": 7 }))["type"], "response_ok");
    assert_eq!(peer.ask(fetch(1))["type"], "response_error");
}

#[test]
fn texts_are_stored_for_all_streams_of_a_socket() {
    let server = Server::shared();
    let tenant = server.tenant("stored");
    let mut peer = Peer::hello(&server, &tenant.token);
    peer.open(1);
    peer.open(2);
    peer.ask(json!({ "type": "store_sql", "sql_id": 5, "sql": "SELECT 42" }));
    for stream in [1, 2] {
        let answer = peer.ask(json!({ "type": "execute", "stream_id": stream, "stmt": { "sql_id": 5 } }));
        assert_eq!(answer["response"]["result"]["rows"], json!([[{ "type": "integer", "value": "42" }]]));
    }
    peer.ask(json!({ "type": "close_sql", "sql_id": 5 }));
    assert_eq!(peer.ask(json!({ "type": "execute", "stream_id": 1, "stmt": { "sql_id": 5 } }))["type"], "response_error");
}

#[test]
fn a_token_that_does_not_serve_is_told_and_ends_the_socket() {
    let server = Server::shared();
    let tenant = server.tenant("hello");
    for jwt in [json!("no.such.token"), Value::Null] {
        let mut peer = Peer::connect(&server, "hrana2");
        peer.send(&json!({ "type": "hello", "jwt": jwt }));
        let answer = peer.receive();
        assert_eq!((&answer["type"], &answer["error"]["code"]), (&json!("hello_error"), &json!("UNAUTHENTICATED")));
        closes(&mut peer, POLICY, "token");
    }
    let mut peer = Peer::hello(&server, &tenant.token);
    peer.send(&json!({ "type": "hello", "jwt": server.tenant("hello").token }));
    assert_eq!(peer.receive()["error"]["code"], "FORBIDDEN");
    closes(&mut peer, POLICY, "first hello");
}

#[test]
fn a_socket_ends_with_its_token() {
    let server = Server::shared();
    let tenant = server.tenant("expiring");
    let mut peer = Peer::hello(&server, token(&server, &tenant, 2)["token"].as_str().unwrap());
    closes(&mut peer, POLICY, "expired");

    let long = token(&server, &tenant, 600);
    let mut peer = Peer::hello(&server, long["token"].as_str().unwrap());
    peer.open(1);
    let jti = long["jti"].as_str().unwrap();
    server.admin().delete(&format!("/admin/v1/tenants/{}/tokens/{jti}", tenant.id)).succeeds();
    let refused = peer.ask(json!({ "type": "execute", "stream_id": 1, "stmt": { "sql": "SELECT 1" } }));
    assert_eq!(refused["error"]["code"], "UNAUTHENTICATED");
    closes(&mut peer, POLICY, "token");
}

#[test]
fn a_new_hello_prolongs_a_socket() {
    let server = Server::shared();
    let tenant = server.tenant("prolonged");
    let mut peer = Peer::hello(&server, token(&server, &tenant, 2)["token"].as_str().unwrap());
    peer.open(1);
    peer.send(&json!({ "type": "hello", "jwt": token(&server, &tenant, 600)["token"] }));
    assert_eq!(peer.receive(), json!({ "type": "hello_ok" }));
    // The first token is over when the server says so of another socket.
    let mut short = Peer::hello(&server, token(&server, &tenant, 2)["token"].as_str().unwrap());
    closes(&mut short, POLICY, "expired");
    peer.execute(1, "SELECT 1");
}

#[test]
fn what_breaks_the_protocol_closes_the_socket_with_its_reason() {
    let server = Server::shared();
    let tenant = server.tenant("broken");
    let after = |broken: &dyn Fn(&mut Peer)| {
        let mut peer = Peer::hello(&server, &tenant.token);
        broken(&mut peer);
        peer
    };
    closes(&mut after(&|peer| peer.send_frame(0x81, b"{")), PROTOCOL, "EOF");
    closes(&mut after(&|peer| peer.send(&json!({ "type": "dance" }))), PROTOCOL, "dance");
    closes(&mut after(&|peer| peer.send_frame(0x82, b"binary")), 1003, "text");
    closes(&mut after(&|peer| peer.send_raw(&[0x81, 0x01, b'x'])), PROTOCOL, "mask");
    let announced = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    closes(&mut after(&|peer| peer.send_raw(&announced)), 1009, "longer");
    let twice = |peer: &mut Peer| (0..2).for_each(|id| peer.request(id, json!({ "type": "open_stream", "stream_id": 1 })));
    closes(&mut after(&twice), PROTOCOL, "stream");
    let mut early = Peer::connect(&server, "hrana3");
    early.request(1, json!({ "type": "open_stream", "stream_id": 1 }));
    closes(&mut early, PROTOCOL, "hello");
    let mut long = Peer::connect(&server, "hrana3");
    long.send_frame(0x81, &[b' '; 20_000]);
    closes(&mut long, 1009, "16384");
}

#[test]
fn pings_are_answered_and_a_closing_handshake_is_returned() {
    let server = Server::shared();
    let tenant = server.tenant("ping");
    let mut peer = Peer::hello(&server, &tenant.token);
    peer.send_frame(0x89, b"are you there");
    assert_eq!(peer.receive(), json!({ "frame": 0x8a, "payload": "are you there" }));
    peer.send_frame(0x88, &1000_u16.to_be_bytes());
    closes(&mut peer, 1000, "");
}

#[test]
fn sockets_are_bounded_and_one_that_asks_nothing_is_closed() {
    let server = Server::with(|c| {
        c.set("hrana.sockets_per_tenant", 1).set("hrana.socket_idle_s", 1).set("hrana.streams_per_tenant", 1);
    });
    let tenant = server.tenant("few");
    let mut first = Peer::hello(&server, &tenant.token);
    let mut second = Peer::connect(&server, "hrana3");
    second.send(&json!({ "type": "hello", "jwt": tenant.token }));
    assert_eq!(second.receive()["error"]["code"], "TOO_MANY_REQUESTS");
    first.open(1);
    let refused = first.ask(json!({ "type": "open_stream", "stream_id": 2 }));
    assert_eq!(refused["error"]["code"], "TOO_MANY_REQUESTS");
    let refused = first.ask(json!({ "type": "execute", "stream_id": 2, "stmt": { "sql": "SELECT 1" } }));
    assert_eq!(refused["type"], "response_error");
    closes(&mut first, 1000, "socket_idle_s");
    Peer::hello(&server, &tenant.token);
}

#[test]
fn a_server_that_stops_says_so_on_its_sockets() {
    let mut server = Server::start();
    let tenant = server.tenant("stopping");
    tenant.script("CREATE TABLE t (x)");
    let mut peer = Peer::hello(&server, &tenant.token);
    peer.open(1);
    peer.execute(1, "BEGIN IMMEDIATE");
    peer.execute(1, "INSERT INTO t VALUES (1)");
    server.terminate();
    closes(&mut peer, 1001, "stopping");
    assert!(server.ended().success());
    server.start_again();
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]));
}

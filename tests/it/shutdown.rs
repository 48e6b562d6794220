//! SIGTERM: `/readyz` turns 503, nothing new is accepted, what runs is finished, files are closed, exit 0.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::support::*;

const SLOW: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?1) SELECT count(*) FROM c";

/// A server on which what runs is finished however slow the machine is.
fn patient() -> Server {
    Server::with(|c| {
        c.set("shutdown.grace_s", 120).set("plans.default.statement_ms", 120_000);
    })
}

/// A parameter for [`SLOW`] that keeps the server busy for about two seconds here.
fn two_seconds(tenant: &TenantClient) -> i64 {
    let (probe, start) = (300_000, Instant::now());
    tenant.sql(SLOW, json!([probe])).expect(200);
    (probe as f64 * 2.0 / start.elapsed().as_secs_f64().max(0.001)) as i64
}

#[test]
fn what_runs_is_finished_and_the_exit_is_clean() {
    let mut server = patient();
    let tenant = server.tenant("stop");
    tenant.script("CREATE TABLE t (x)");
    server.anyone().get("/readyz").expect(200);
    server.anyone().get("/healthz").expect(200);
    let steps = two_seconds(&tenant);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| tenant.sql(&format!("INSERT INTO t {SLOW}"), json!([steps])));
        server.until_at_work();
        server.terminate();
        let ready = eventually("readyz turns 503 or the door is shut", || match server.anyone().call("GET", "/readyz").try_send() {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(Some(answer)),
            Err(_) => Some(None),
        });
        if let Some(answer) = ready {
            answer.expect(503);
        }
        assert_eq!(running.join().unwrap().status, 200, "it was running when the signal came");
    });
    let status = server.ended();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("panic"), "{}", server.log());
    for role in ["database", "cache", "queue"] {
        let wal = server.file(&tenant.id, role).with_extension("sqlite-wal");
        assert!(!wal.exists(), "{role}: closed files have no log left");
    }
    for system in ["app", "mark", "analytics"] {
        assert!(!server.dir().join(format!("system/{system}.db-wal")).exists(), "{system}");
    }
    server.start_again();
    assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[steps]]));
}

#[test]
fn readyz_turns_503_while_requests_finish() {
    use std::io::{Read, Write};
    let mut server = patient();
    let tenant = server.tenant("stop");
    let steps = two_seconds(&tenant);
    // A connection that is there before the signal still hears what is going on.
    let mut kept = server.connect();
    kept.set_read_timeout(Some(SOON)).unwrap();
    let mut ask = |path: &str| -> Option<String> {
        kept.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).ok()?;
        let mut buffer = [0; 4096];
        let read = kept.read(&mut buffer).ok().filter(|&read| read > 0)?;
        Some(String::from_utf8_lossy(&buffer[..read]).into_owned())
    };
    assert!(ask("/readyz").unwrap().contains(" 200 "));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| tenant.sql(SLOW, json!([steps])));
        server.until_at_work();
        server.terminate();
        let seen = eventually("an answer that is not 200", || match ask("/readyz") {
            Some(answer) if answer.contains(" 200 ") => None,
            other => Some(other),
        });
        if let Some(answer) = seen {
            assert!(answer.contains(" 503 "), "{answer}");
        }
        assert_eq!(running.join().unwrap().status, 200);
    });
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn a_request_that_will_not_end_is_cut_off_after_the_grace() {
    let mut server = Server::with(|c| {
        c.set("shutdown.grace_s", 1).set("plans.default.statement_ms", 3_600_000);
    });
    let tenant = server.tenant("stop");
    tenant.script("CREATE TABLE t (x)");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let body = json!({ "statements": [{ "sql": format!("INSERT INTO t {SLOW}"), "params": [1_000_000_000_000i64] }] });
            if let Ok(answer) = tenant.call("POST", "/v1/sql").json(&body).try_send() {
                assert_ne!(answer.status, 200);
            }
        });
        server.until_at_work();
        // Left alone it would take an hour.
        let status = server.sigterm();
        assert_eq!(status.code(), Some(0), "{}", server.log());
    });
    server.start_again();
    assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[0]]), "it was not acknowledged, and left nothing");
}

#[test]
fn stopping_under_load_loses_nothing_that_was_acknowledged() {
    let mut server = Server::start();
    let tenant = server.tenant("stop");
    tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY)");
    let so_far = AtomicUsize::new(0);
    let acknowledged: Vec<i64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let (tenant, so_far) = (&tenant, &so_far);
                scope.spawn(move || {
                    let mut done = Vec::new();
                    for x in (writer * 1_000_000).. {
                        let body = json!({ "statements": [{ "sql": "INSERT INTO t VALUES (?1)", "params": [x] }] });
                        match tenant.call("POST", "/v1/sql").json(&body).try_send() {
                            Ok(answer) if answer.status == 200 => {
                                done.push(x);
                                so_far.fetch_add(1, Relaxed);
                            }
                            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                            Err(_) => break,
                        }
                    }
                    done
                })
            })
            .collect();
        eventually("all are at work", || (so_far.load(Relaxed) > 100).then_some(()));
        assert_eq!(server.sigterm().code(), Some(0));
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    server.start_again();
    let there: std::collections::HashSet<i64> =
        tenant.rows("SELECT x FROM t", json!([])).as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect();
    assert_eq!(acknowledged.iter().filter(|x| !there.contains(x)).count(), 0, "of {}", acknowledged.len());
}

#[test]
fn ctrl_c_is_the_same() {
    let mut server = Server::start();
    server.tenant("stop");
    server.signal(rustix::process::Signal::INT);
    assert_eq!(server.ended().code(), Some(0));
}

/// Whoever starts it may stop it as soon as it has said that it listens.
#[test]
fn a_signal_right_after_the_listening_line_is_heard() {
    for _ in 0..10 {
        let mut server = Server::start();
        assert_eq!(server.sigterm().code(), Some(0), "{}", server.log());
    }
}

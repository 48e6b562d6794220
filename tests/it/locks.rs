//! Locks, seen from outside: one holder at a time, and a fence that only rises, whatever happens to the server and its files.

use crate::support::{Answer, Server, TenantClient, Value, at_once, eventually, json};

fn take(tenant: &TenantClient, name: &str, body: Value) -> Answer {
    tenant.post(&format!("/v1/locks/{name}"), body)
}

/// Takes a lock that is free.
#[track_caller]
fn taken(tenant: &TenantClient, name: &str, ttl_s: u32) -> Value {
    take(tenant, name, json!({ "ttl_s": ttl_s })).expect(200).json()
}

fn release(tenant: &TenantClient, name: &str, lock: &Value) -> Answer {
    tenant.post(&format!("/v1/locks/{name}/release"), json!({ "token": lock["token"] }))
}

fn extend(tenant: &TenantClient, name: &str, lock: &Value, ttl_s: u32) -> Answer {
    tenant.post(&format!("/v1/locks/{name}/extend"), json!({ "token": lock["token"], "ttl_s": ttl_s }))
}

fn fence(lock: &Value) -> i64 {
    lock["fence"].as_i64().unwrap_or_else(|| panic!("{lock}"))
}

#[test]
fn a_lock_has_one_holder_until_it_is_released() {
    let server = Server::shared();
    let tenant = server.tenant("locks");
    let lock = take(&tenant, "invoice:7", json!({ "ttl_s": 60, "owner": "worker 3" })).expect(200).json();
    assert_eq!((&lock["name"], &lock["owner"]), (&json!("invoice:7"), &json!("worker 3")));
    let error = take(&tenant, "invoice:7", json!({ "ttl_s": 60 })).refused(409, "conflict");
    assert_eq!((&error["details"]["owner"], &error["details"]["fence"]), (&json!("worker 3"), &lock["fence"]));
    let seen = tenant.get("/v1/locks/invoice:7").expect(200).json();
    assert!(seen["token"].is_null() && seen["until"] == lock["until"], "{seen}");
    let other = taken(&tenant, "invoice:8", 60);
    assert!(fence(&other) > fence(&lock), "a fence rises over all names");
    release(&tenant, "invoice:7", &other).refused(409, "lease_lost");
    release(&tenant, "invoice:7", &lock).expect(204);
    release(&tenant, "invoice:7", &lock).refused(409, "lease_lost");
    tenant.get("/v1/locks/invoice:7").refused(404, "not_found");
    let again = taken(&tenant, "invoice:7", 60);
    assert!(fence(&again) > fence(&other));
    release(&tenant, "invoice:7", &lock).refused(409, "lease_lost");
    assert_eq!(tenant.get("/v1/locks/invoice:7").expect(200).json()["fence"], again["fence"]);
}

#[test]
fn a_lock_ends_by_itself_and_its_token_with_it() {
    let server = Server::shared();
    let tenant = server.tenant("locks");
    let slow = taken(&tenant, "k", 1);
    let next = take(&tenant, "k", json!({ "ttl_s": 60, "wait_s": 20 })).expect(200).json();
    assert!(fence(&next) > fence(&slow));
    for late in [extend(&tenant, "k", &slow, 60), release(&tenant, "k", &slow)] {
        let error = late.refused(409, "lease_lost");
        assert_eq!(error["details"]["fence"], next["fence"]);
    }
    let alone = taken(&tenant, "alone", 1);
    eventually("it ends", || (tenant.get("/v1/locks/alone").status == 404).then_some(()));
    extend(&tenant, "alone", &alone, 60).refused(409, "lease_lost");
}

#[test]
fn a_lock_whose_answer_was_lost_is_found_again_by_its_key_and_by_nobody_else() {
    let mut server = Server::start();
    let tenant = server.tenant("locks");
    let keyed = |tenant: &TenantClient, name: &str, key: &str, body: Value| {
        tenant.call("POST", &format!("/v1/locks/{name}")).header("idempotency-key", key).json(&body).send()
    };
    let first = keyed(&tenant, "k", "a", json!({ "ttl_s": 600 })).expect(200);
    assert_eq!(first.header("idempotent-replayed"), None);
    let lock = first.json();
    server.kill9();
    server.start_again();
    let again = keyed(&tenant, "k", "a", json!({ "ttl_s": 600, "wait_s": 20 })).expect(200);
    assert_eq!((again.header("idempotent-replayed"), again.json()), (Some("true"), lock.clone()));
    keyed(&tenant, "k", "b", json!({ "ttl_s": 600 })).refused(409, "conflict");
    keyed(&tenant, "k", "a", json!({ "ttl_s": 601 })).refused(409, "conflict");
    keyed(&tenant, "other", "a", json!({ "ttl_s": 600 })).refused(409, "conflict");
    tenant.get("/v1/locks/other").refused(404, "not_found");
    // What became of it meanwhile is what is told.
    let extended = extend(&tenant, "k", &lock, 900).expect(200).json();
    assert_eq!(keyed(&tenant, "k", "a", json!({ "ttl_s": 600 })).expect(200).json(), extended);

    // A key that found it taken has taken nothing, and takes it once it is free.
    release(&tenant, "k", &lock).expect(204);
    keyed(&tenant, "k", "a", json!({ "ttl_s": 600 })).refused(409, "lease_lost");
    tenant.get("/v1/locks/k").refused(404, "not_found");
    let next = keyed(&tenant, "k", "b", json!({ "ttl_s": 600 })).expect(200).json();
    assert!(fence(&next) > fence(&lock));
    keyed(&tenant, "k", "a", json!({ "ttl_s": 600 })).refused(409, "lease_lost");
    // Many at once with one key are one.
    let answers = at_once(8, |_| keyed(&tenant, "crowd", "c", json!({ "ttl_s": 600 })).expect(200).json());
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
}

#[test]
fn a_lock_that_is_extended_does_not_end() {
    let server = Server::shared();
    let tenant = server.tenant("locks");
    let (short, long) = (taken(&tenant, "short", 1), taken(&tenant, "long", 3));
    let extended = extend(&tenant, "long", &long, 600).expect(200).json();
    assert_eq!((&extended["fence"], &extended["token"], &extended["taken_at"]), (&long["fence"], &long["token"], &long["taken_at"]));
    assert!(extended["until"].as_str() > long["until"].as_str());
    eventually("the other one ends", || (tenant.get("/v1/locks/short").status == 404).then_some(()));
    take(&tenant, "long", json!({ "ttl_s": 1 })).refused(409, "conflict");
    release(&tenant, "short", &short).refused(409, "lease_lost");
    release(&tenant, "long", &long).expect(204);
}

#[test]
fn those_who_wait_get_it_one_after_the_other_with_rising_fences() {
    let server = Server::shared();
    let tenant = server.tenant("locks");
    let key = "/v1/cache/guarded";
    tenant.call("PUT", key).bytes("text/plain", "0").send().expect(204);
    let fences = std::sync::Mutex::new(Vec::new());
    at_once(6, |_| {
        for _ in 0..5 {
            let lock = eventually("its turn comes", || {
                let answer = take(&tenant, "k", json!({ "ttl_s": 600, "wait_s": 20 }));
                (answer.status == 200).then(|| answer.json())
            });
            fences.lock().unwrap().push(fence(&lock));
            // Reading and writing back is safe only because nobody else does it now.
            let n = tenant.get(key).expect(200).text().parse::<u32>().unwrap();
            tenant.call("PUT", key).bytes("text/plain", (n + 1).to_string()).send().expect(204);
            release(&tenant, "k", &lock).expect(204);
        }
    });
    assert_eq!(tenant.get(key).text(), "30");
    assert!(fences.into_inner().unwrap().is_sorted_by(|a, b| a < b));
}

#[test]
fn a_flush_of_the_cache_releases_no_lock() {
    let server = Server::shared();
    let tenant = server.tenant("locks");
    let lock = taken(&tenant, "k", 600);
    tenant.delete("/v1/cache?all=true").expect(204);
    tenant.delete("/v1/cache?prefix=").expect(204);
    take(&tenant, "k", json!({ "ttl_s": 1 })).refused(409, "conflict");
    release(&tenant, "k", &lock).expect(204);
}

#[test]
fn a_killed_server_forgets_no_lock_and_its_fences_go_on_rising() {
    let mut server = Server::start();
    let tenant = server.tenant("locks");
    let mut last = 0;
    for round in 0..3 {
        let lock = taken(&tenant, &format!("round:{round}"), 600);
        assert!(fence(&lock) > last);
        last = fence(&lock);
        server.kill9();
        server.start_again();
        take(&tenant, &format!("round:{round}"), json!({ "ttl_s": 1 })).refused(409, "conflict");
        release(&tenant, &format!("round:{round}"), &lock).expect(204);
    }
    // Of a name that was released before, whose row is long gone.
    assert!(fence(&taken(&tenant, "round:0", 600)) > last);
}

#[test]
fn a_lost_cache_file_costs_no_lock_and_an_older_queue_file_no_fence() {
    let mut server = Server::start();
    let tenant = server.tenant("locks");
    let (cache, queue) = (server.file(&tenant.id, "cache"), server.file(&tenant.id, "queue"));
    let held = taken(&tenant, "held", 600);
    server.stop();
    let old = std::fs::read(&queue).unwrap();
    server.start_again();
    for n in 0..50 {
        taken(&tenant, &format!("n:{n}"), 600);
    }
    let last = fence(&tenant.get("/v1/locks/n:49").expect(200).json());
    server.stop();
    std::fs::write(&cache, b"not a database").unwrap();
    std::fs::write(&queue, old).unwrap();
    server.start_again();
    take(&tenant, "held", json!({ "ttl_s": 1 })).refused(409, "conflict");
    let lock = taken(&tenant, "n:49", 600);
    assert!(fence(&lock) > last, "{lock} after {last}");
    release(&tenant, "held", &held).expect(204);
}

#[test]
fn what_is_asked_wrongly_is_refused_clearly_and_by_scope() {
    let server = Server::shared();
    let tenant = server.tenant("locks");
    let bodies =
        [json!({}), json!({ "ttl_s": 0 }), json!({ "ttl_s": 86_401 }), json!({ "ttl_s": 1, "wait_s": 21 }), json!({ "ttl_s": 1.5 })];
    for body in bodies.into_iter().chain([json!({ "ttl_s": 1, "owner": "o".repeat(256) }), json!({ "ttl_s": 1, "own": "x" })]) {
        take(&tenant, "k", body).refused(400, "bad_request");
    }
    take(&tenant, "a%20b", json!({ "ttl_s": 1 })).refused(400, "bad_request");
    tenant.post("/v1/locks/k/release", json!({ "token": "nonsense" })).refused(400, "bad_request");
    tenant.get("/v1/locks/k").refused(404, "not_found");
    let (reader, other) = (server.scoped(&tenant, &["sql:read"]), server.tenant("locks"));
    take(&reader, "k", json!({ "ttl_s": 1 })).refused(403, "forbidden");
    taken(&tenant, "k", 600);
    taken(&other, "k", 600);
}

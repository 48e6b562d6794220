//! Looking at a queue and mending it: depth, lists, pause, drain, the dead.

use super::*;

fn list(tenant: &TenantClient, state: &str, more: &str) -> Value {
    tenant.get(&format!("/v1/queues/q/jobs?state={state}{more}")).expect(200).json()
}

fn ids(page: &Value) -> Vec<String> {
    page["jobs"].as_array().unwrap().iter().map(|job| text(&job["id"]).to_owned()).collect()
}

fn kill(tenant: &TenantClient) -> String {
    let id = enqueue(tenant, "q", json!({ "payload": 1 }));
    let job = claim(tenant, "q", 1, 60).remove(0);
    assert_eq!(job["id"], id);
    tenant.post(&format!("/v1/jobs/{id}/nack"), json!({ "lease_token": job["lease_token"], "dead": true })).expect(200);
    id
}

#[test]
fn a_paused_queue_hands_nothing_out_and_a_draining_one_takes_nothing_in() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let set = |body: Value| tenant.patch("/v1/queues/q", body).expect(200).json();
    let retention = json!({ "done_s": 3_600, "dead_s": 1_209_600, "cancelled_s": 86_400, "expired_s": 86_400 });
    let row = |paused, draining| json!({ "name": "q", "paused": paused, "draining": draining, "retention": retention });
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    enqueue(&tenant, "q", json!({ "payload": 2 }));
    let held = claim(&tenant, "q", 1, 60).remove(0);
    assert_eq!(set(json!({ "paused": true })), row(true, false));
    assert!(claim(&tenant, "q", 1, 60).is_empty());
    enqueue(&tenant, "q", json!({ "payload": 3 }));
    ack(&tenant, &held).expect(200);
    assert_eq!(set(json!({ "paused": false, "draining": true })), row(false, true));
    tenant.post("/v1/queues/q/jobs", json!({ "payload": 4 })).refused(409, "conflict");
    assert_eq!(claim(&tenant, "q", 10, 60).len(), 2);
    set(json!({ "draining": false }));
    enqueue(&tenant, "q", json!({ "payload": 5 }));
    let rows = tenant.get("/v1/queues").expect(200).json();
    assert_eq!(rows["queues"], json!([row(false, false)]));
}

#[test]
fn jobs_are_listed_by_state_page_by_page() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    for (state, job) in [("ready", json!({ "payload": 1 })), ("scheduled", json!({ "payload": 1, "delay_s": 600 }))] {
        let made: Vec<_> = (0..5).map(|_| enqueue(&tenant, "q", job.clone())).collect();
        enqueue(&tenant, "other", job);
        let mut seen = Vec::new();
        let mut page = list(&tenant, state, "&limit=2");
        loop {
            assert!(page["jobs"].as_array().unwrap().iter().all(|job| job["state"] == state && job["queue"] == "q"), "{page}");
            seen.extend(ids(&page));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            page = list(&tenant, state, &format!("&limit=2&after={cursor}"));
        }
        assert_eq!(seen, made, "{state}");
    }
    let leased: Vec<_> = claim(&tenant, "q", 3, 60).iter().map(|job| text(&job["id"]).to_owned()).collect();
    assert_eq!(ids(&list(&tenant, "leased", "")), leased);
    tenant.get("/v1/queues/q/jobs?state=running").refused(400, "bad_request");
    tenant.get("/v1/queues/q/jobs?state=ready&after=x").refused(400, "bad_request");
    tenant.get("/v1/queues/q/jobs?state=ready&limit=0").refused(400, "bad_request");
}

#[test]
fn depth_says_how_much_there_is_to_do() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    tenant.get("/v1/queues/q").refused(404, "not_found");
    for _ in 0..4 {
        enqueue(&tenant, "q", json!({ "payload": 1 }));
    }
    enqueue(&tenant, "q", json!({ "payload": 1, "group": "g" }));
    enqueue(&tenant, "q", json!({ "payload": 1, "delay_s": 60 }));
    let job = claim(&tenant, "q", 2, 60).remove(0);
    ack(&tenant, &job).expect(200);
    let depth = tenant.get("/v1/queues/q").expect(200).json();
    let expected =
        json!({ "waiting": 0, "ready": 3, "scheduled": 1, "blocked": 0, "leased": 1, "done": 1, "dead": 0, "cancelled": 0, "expired": 0 });
    assert_eq!((&depth["jobs"], &depth["exact"]), (&expected, &json!(true)));
    assert!(depth["oldest_ready_ms"].as_i64().unwrap() >= 0);
}

#[test]
fn a_queue_says_how_fast_its_jobs_come_and_go_and_a_restart_forgets_it() {
    let mut server = Server::start();
    let tenant = server.tenant("queue");
    let jobs: Vec<_> = (0..6).map(|n| json!({ "payload": n, "max_attempts": 1 })).collect();
    tenant.post("/v1/queues/q/jobs", json!({ "jobs": jobs })).expect(200);
    // What is refused or taken back is nothing that happened.
    tenant
        .post("/v1/queues/q/jobs", json!({ "payload": 1, "depends_on": ["019aa3f1-0000-7000-8000-000000000000"] }))
        .refused(404, "not_found");
    let claimed = claim(&tenant, "q", 4, 60);
    ack(&tenant, &claimed[0]).expect(200);
    ack(&tenant, &claimed[0]).expect(200);
    let nack = |job: &Value| tenant.post(&format!("/v1/jobs/{}/nack", text(&job["id"])), json!({ "lease_token": job["lease_token"] }));
    nack(&claimed[1]).expect(200);
    nack(&claimed[1]).refused(409, "lease_lost");
    enqueue(&tenant, "other", json!({ "payload": 1 }));

    let depth = tenant.get("/v1/queues/q").expect(200).json();
    for window in ["1m", "5m", "15m"] {
        let per_s = &depth["per_s"][window];
        let one = per_s["done"].as_f64().unwrap();
        assert!(one > 0.0, "{depth}");
        let times = ["added", "claimed", "done", "failed", "dead"].map(|event| (per_s[event].as_f64().unwrap() / one).round());
        assert_eq!(times, [6.0, 4.0, 1.0, 1.0, 1.0], "{window} of {depth}");
    }
    let metrics = server.anyone().get("/metrics").expect(200).text();
    for (event, count) in [("added", 7), ("claimed", 4), ("done", 1), ("failed", 1), ("dead", 1)] {
        assert!(metrics.contains(&format!("tenantry_queue_jobs_total{{event=\"{event}\"}} {count}\n")), "{event} in {metrics}");
    }
    server.restart();
    assert_eq!(tenant.get("/v1/queues/q").expect(200).json()["per_s"]["15m"]["added"], 0.0);
}

#[test]
fn a_queue_keeps_what_has_ended_as_long_as_it_says() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let set = |retention: Value| tenant.patch("/v1/queues/q", json!({ "retention": retention }));
    let kept = || {
        let jobs = &tenant.get("/v1/queues/q").expect(200).json()["jobs"];
        ["ready", "done", "dead", "cancelled"].map(|state| jobs[state].as_i64().unwrap())
    };
    let (dead, waiting) = (kill(&tenant), enqueue(&tenant, "q", json!({ "payload": 1 })));
    tenant.post(&format!("/v1/jobs/{waiting}/cancel"), json!({})).expect(200);
    enqueue(&tenant, "q", json!({ "payload": 2, "unique": { "key": "k", "for_s": 600 } }));
    ack(&tenant, &claim(&tenant, "q", 1, 60).remove(0)).expect(200);
    enqueue(&tenant, "q", json!({ "payload": 3 }));
    ack(&tenant, &claim(&tenant, "q", 1, 60).remove(0)).expect(200);
    enqueue(&tenant, "q", json!({ "payload": 4 }));
    assert_eq!(kept(), [1, 2, 1, 1]);

    let said = set(json!({ "done_s": 60, "cancelled_s": 0 })).expect(200).json();
    let retention = json!({ "done_s": 60, "dead_s": 1_209_600, "cancelled_s": 0, "expired_s": 86_400 });
    assert_eq!((&said["retention"], kept()), (&retention, [1, 2, 1, 0]));
    set(json!({ "done_s": 0, "dead_s": 0 })).expect(200);
    assert_eq!(kept(), [1, 1, 0, 0], "what holds a key for a time is there until then");
    tenant.get(&format!("/v1/jobs/{dead}")).refused(404, "not_found");
    tenant.post("/v1/queues/q/jobs", json!({ "payload": 5, "unique": { "key": "k" } })).refused(409, "conflict");
    tenant.patch("/v1/queues/q", json!({ "paused": false })).expect(200);
    assert_eq!(tenant.get("/v1/queues/q").expect(200).json()["queue"]["retention"]["dead_s"], 0, "what is not named stays");
    for wrong in [json!({ "done_s": -1 }), json!({ "dead_s": 31_536_001 }), json!({ "ready_s": 1 }), json!({ "done_s": "1" })] {
        set(wrong).refused(400, "bad_request");
    }
}

#[test]
fn dead_jobs_are_brought_back_all_or_some_and_purged() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let dead: Vec<_> = (0..3).map(|_| kill(&tenant)).collect();
    let newest_first: Vec<_> = dead.iter().rev().cloned().collect();
    assert_eq!(ids(&list(&tenant, "dead", "")), newest_first);
    let redrive = |body: Value| tenant.post("/v1/queues/q/redrive", body).expect(200).json();
    assert_eq!(redrive(json!({ "ids": [dead[1]], "attempts": 1 })), json!({ "jobs": 1, "more": false }));
    let job = claim(&tenant, "q", 9, 60).remove(0);
    assert_eq!((&job["id"], &job["attempt"]), (&json!(dead[1]), &json!(2)));
    let again = tenant.post(&format!("/v1/jobs/{}/nack", dead[1]), json!({ "lease_token": job["lease_token"] })).expect(200).json();
    assert_eq!(again["job"]["state"], "dead", "one more attempt was granted");
    assert_eq!(redrive(json!({ "max": 2 })), json!({ "jobs": 2, "more": true }));
    assert_eq!(redrive(json!({})), json!({ "jobs": 1, "more": false }));
    assert_eq!(claim(&tenant, "q", 9, 60).len(), 3);

    let dead: Vec<_> = (0..3).map(|_| kill(&tenant)).collect();
    let purge = |body: Value| tenant.post("/v1/queues/q/purge", body).expect(200).json();
    assert_eq!(purge(json!({ "state": "dead", "ids": [dead[0]] })), json!({ "jobs": 1, "more": false }));
    tenant.get(&format!("/v1/jobs/{}", dead[0])).refused(404, "not_found");
    assert_eq!(purge(json!({ "state": "dead" })), json!({ "jobs": 2, "more": false }));
    assert_eq!(list(&tenant, "dead", "")["jobs"], json!([]));
    tenant.post("/v1/queues/q/purge", json!({ "state": "ready" })).refused(400, "bad_request");
    assert_eq!(redrive(json!({ "max": 10 }))["jobs"], 0);
}

#[test]
fn a_queue_brings_back_only_its_own_jobs() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let dead = kill(&tenant);
    enqueue(&tenant, "other", json!({ "payload": 1 }));
    assert_eq!(tenant.post("/v1/queues/other/redrive", json!({ "ids": [dead] })).expect(200).json()["jobs"], 0);
    assert_eq!(tenant.post("/v1/queues/other/purge", json!({ "state": "dead", "ids": [dead] })).expect(200).json()["jobs"], 0);
    let stranger = server.tenant("queue");
    stranger.get(&format!("/v1/jobs/{dead}")).refused(404, "not_found");
    stranger.post(&format!("/v1/jobs/{dead}/cancel"), json!({})).refused(404, "not_found");
    assert_eq!(ids(&list(&tenant, "dead", "")), [dead]);
}

#[test]
fn looking_needs_either_scope_and_mending_the_workers() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let dead = kill(&tenant);
    let (producer, consumer) = (server.scoped(&tenant, &["queue:produce"]), server.scoped(&tenant, &["queue:consume"]));
    let neither = server.scoped(&tenant, &["sql:read"]);
    for path in ["/v1/queues", "/v1/queues/q", "/v1/queues/q/jobs?state=dead", &format!("/v1/jobs/{dead}")] {
        producer.get(path).expect(200);
        consumer.get(path).expect(200);
        neither.get(path).refused(403, "forbidden");
    }
    producer.patch("/v1/queues/q", json!({ "paused": true })).refused(403, "forbidden");
    producer.post("/v1/queues/q/redrive", json!({})).refused(403, "forbidden");
    producer.post("/v1/queues/q/purge", json!({ "state": "dead" })).refused(403, "forbidden");
    consumer.post(&format!("/v1/jobs/{dead}/cancel"), json!({})).refused(403, "forbidden");
}

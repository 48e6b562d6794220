//! The operator's own queue and cache: the same calls with an operator's key, on files of the server's own.

use super::webhook::{Target, allowing};
use super::*;
use crate::support::Client;

fn put(client: &Client, key: &str, value: &str) {
    client.call("PUT", &format!("/v1/cache/{key}")).bytes("text/plain", value).send().expect(204);
}

#[test]
fn an_operators_key_works_on_the_operators_own_queue_and_cache() {
    let mut server = Server::start();
    let (admin, tenant) = (server.admin(), server.tenant("beside"));
    let made = admin.post("/v1/queues/q/jobs", json!({ "payload": "operator's" })).expect(201).json();
    enqueue(&tenant, "q", json!({ "payload": "tenant's" }));
    put(&admin, "k", "operator's");
    put(&tenant, "k", "tenant's");
    server.restart();

    let jobs = admin.post("/v1/queues/q/claim", json!({ "max": 10, "lease_s": 60 })).expect(200).json()["jobs"].clone();
    assert_eq!((jobs.as_array().unwrap().len(), &jobs[0]["payload"]), (1, &json!("operator's")));
    let theirs = claim(&tenant, "q", 10, 60);
    assert_eq!((theirs.len(), &theirs[0]["payload"]), (1, &json!("tenant's")));
    let path = format!("/v1/jobs/{}", text(&made["id"]));
    assert_eq!(admin.get(&path).expect(200).json()["enqueued_by"], "root");
    tenant.get(&path).refused(404, "not_found");
    admin.post(&format!("{path}/ack"), json!({ "lease_token": jobs[0]["lease_token"] })).expect(200);
    assert_eq!(admin.get("/v1/queues/q").expect(200).json()["jobs"]["done"], 1);
    assert_eq!(
        (admin.get("/v1/cache/k").expect(200).text(), tenant.get("/v1/cache/k").expect(200).text()),
        ("operator's".into(), "tenant's".into())
    );

    // There is no database of the operator's, and no other key has any of this.
    admin.post("/v1/sql", json!({ "script": "SELECT 1" })).refused(401, "unauthenticated");
    for stranger in [server.anyone(), admin.bearer("an-operator-key-for-tests-onlY")] {
        stranger.post("/v1/queues/q/claim", json!({})).refused(401, "unauthenticated");
        stranger.get("/v1/cache/k").refused(401, "unauthenticated");
    }
}

#[test]
fn the_operators_queue_waits_has_schedules_and_a_webhook_as_a_tenants_does() {
    let (server, target) = (allowing(), Target::start());
    let admin = server.admin();
    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| admin.post("/v1/queues/later/claim", json!({ "wait_s": 20 })).expect(200).json());
        admin.post("/v1/queues/later/jobs", json!({ "payload": 1, "delay_s": 1 })).expect(201);
        waiting.join().unwrap()
    });
    assert_eq!(waited["jobs"][0]["payload"], 1);
    admin.put("/v1/queues/pushed/webhook", json!({ "url": target.url })).expect(200);
    let schedule = json!({ "cron": "* * * * * *", "job": { "payload": "tick" } });
    admin.put("/v1/queues/pushed/schedules/tick", schedule).expect(200);
    assert!(target.gets(2).iter().all(|posted| posted.body == b"\"tick\""));
    admin.delete("/v1/queues/pushed/schedules/tick").expect(204);
    let by_hand = admin.post("/v1/queues/pushed/jobs", json!({ "payload": "by hand" })).expect(201).json();
    eventually("it is delivered too", || {
        target.posted().iter().any(|posted| posted.header("webhook-id") == text(&by_hand["id"])).then_some(())
    });
}

#[test]
fn how_the_operators_queue_works_is_changed_on_the_record_and_its_jobs_are_not() {
    let server = allowing();
    let (admin, tenant) = (server.admin(), server.tenant("beside"));
    let change = |client: &Client, path: &str| {
        client.patch(path, json!({ "paused": true })).expect(200);
        client.put(&format!("{path}/schedules/s"), json!({ "cron": "0 0 1 1 *", "job": { "payload": 1 } })).expect(200);
        client.delete(&format!("{path}/schedules/none")).refused(404, "not_found");
        client.put(&format!("{path}/webhook"), json!({ "url": "http://127.0.0.1:9/?key=hush" })).expect(200);
        client.delete(&format!("{path}/webhook")).expect(204);
        client.post(&format!("{path}/purge"), json!({ "state": "dead" })).expect(200);
        client.post(&format!("{path}/jobs"), json!({ "payload": 1 })).expect(201);
    };
    change(&admin, "/v1/queues/q");
    change(&tenant, "/v1/queues/q");
    let entries = admin.get("/admin/v1/audit?limit=1000").expect(200).json()["entries"].as_array().unwrap().clone();
    let of_queues = |entry: &&Value| ["queue.", "webhook.", "schedule.", "job"].iter().any(|kind| text(&entry["action"]).starts_with(kind));
    let told: Vec<_> =
        entries.iter().rev().filter(of_queues).map(|entry| ["action", "target", "outcome"].map(|what| text(&entry[what]))).collect();
    let changes = [
        ("queue.set", "q", "ok"),
        ("schedule.set", "q/s", "ok"),
        ("schedule.delete", "q/none", "not_found"),
        ("webhook.set", "q", "ok"),
        ("webhook.delete", "q", "ok"),
        ("queue.purge", "q", "ok"),
    ];
    let expected: Vec<_> =
        changes.iter().flat_map(|(action, target, outcome)| [[*action, *target, "begun"], [*action, *target, *outcome]]).collect();
    assert_eq!(told, expected);
    assert!(!format!("{entries:?}").contains("hush"));
}

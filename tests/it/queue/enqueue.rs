//! What can be asked for with a job: several at once, bytes, a time, a key of its own, a group, a limit.

use super::*;

fn add(tenant: &TenantClient, body: Value) -> crate::support::Answer {
    tenant.post("/v1/queues/q/jobs", body)
}

fn payloads(jobs: &[Value]) -> Vec<Value> {
    jobs.iter().map(|job| job["payload"].clone()).collect()
}

#[test]
fn of_several_jobs_each_has_its_own_result_and_none_stalls_the_others() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let unique = json!({ "key": "k" });
    let body = json!({ "jobs": [
        { "payload": 1, "unique": unique },
        { "payload": 2, "unique": unique },
        { "payload": 3, "priority": 9_000_000 },
        { "payload": 4 },
    ] });
    let send = || tenant.call("POST", "/v1/queues/q/jobs").idempotency_key("batch").json(&body).send().expect(200);
    let first = send();
    let results = first.json()["results"].clone();
    assert_eq!((&results[0]["job"]["state"], &results[3]["job"]["state"]), (&json!("ready"), &json!("ready")));
    assert_eq!((&results[1]["error"]["code"], &results[1]["error"]["details"]["job"]), (&json!("conflict"), &results[0]["job"]["id"]));
    assert!(text(&results[2]["error"]["message"]).contains("priority"));
    let again = send();
    assert_eq!((again.header("idempotent-replayed"), again.text()), (Some("true"), first.text()));
    assert_eq!(payloads(&claim(&tenant, "q", 10, 60)), [json!(1), json!(4)]);
    for refused in
        [json!({ "jobs": [] }), json!({ "jobs": [{ "payload": 1, "x": 2 }] }), json!({ "jobs": vec![json!({ "payload": 1 }); 501] })]
    {
        add(&tenant, refused).refused(400, "bad_request");
    }
    assert!(claim(&tenant, "q", 10, 60).is_empty());
}

#[test]
fn bytes_travel_with_their_type() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let id = enqueue(&tenant, "q", json!({ "payload": { "base64": "AP8=" }, "payload_type": "image/png" }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    assert_eq!((&job["payload"], &job["payload_type"]), (&json!({ "base64": "AP8=" }), &json!("image/png")));
    assert_eq!(tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()["payload"], json!({ "base64": "AP8=" }));
    add(&tenant, json!({ "payload": "AP8=", "payload_type": "image/png" })).refused(400, "bad_request");
}

#[test]
fn run_at_is_an_instant_and_a_past_one_is_now() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let later = add(&tenant, json!({ "payload": 1, "run_at": "2100-01-01T01:00:00+01:00" })).expect(201).json();
    assert_eq!((&later["state"], &later["run_at"]), (&json!("scheduled"), &json!("2100-01-01T00:00:00.000Z")));
    assert_eq!(add(&tenant, json!({ "payload": 2, "run_at": "2001-01-01T00:00:00Z" })).expect(201).json()["state"], "ready");
    add(&tenant, json!({ "payload": 1, "run_at": "2100-01-01T00:00:00Z", "delay_s": 1 })).refused(400, "bad_request");
    assert_eq!(payloads(&claim(&tenant, "q", 10, 60)), [json!(2)]);
}

#[test]
fn a_job_nobody_began_in_time_expires() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let id = enqueue(&tenant, "q", json!({ "payload": 1, "ttl_s": 1 }));
    outlast_a_second();
    assert!(claim(&tenant, "q", 1, 60).is_empty());
    assert_eq!(tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()["job"]["state"], "expired");
}

#[test]
fn a_unique_key_has_one_holder_however_many_ask_at_once() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let body = json!({ "payload": 1, "unique": { "key": "k" } });
    let statuses = at_once(16, |_| add(&tenant, body.clone()).status);
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 15, "{statuses:?}");
    let job = claim(&tenant, "q", 10, 60);
    assert_eq!(job.len(), 1);
    add(&tenant, body.clone()).refused(409, "conflict");
    ack(&tenant, &job[0]).expect(200);
    add(&tenant, body.clone()).expect(201);
    // Another queue's key is another key.
    tenant.post("/v1/queues/other/jobs", body).expect(201);
}

#[test]
fn a_unique_key_can_answer_with_its_holder_or_replace_it() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let ask =
        |payload: u8, on_conflict: &str| add(&tenant, json!({ "payload": payload, "unique": { "key": "k", "on_conflict": on_conflict } }));
    let first = ask(1, "existing").expect(201).json();
    let found = ask(2, "existing").expect(200).json();
    assert_eq!((&found["id"], &found["existing"]), (&first["id"], &json!(true)));
    let second = ask(3, "replace").expect(201).json();
    assert_ne!(second["id"], first["id"]);
    assert_eq!(tenant.get(&format!("/v1/jobs/{}", text(&first["id"]))).expect(200).json()["job"]["state"], "cancelled");
    let job = claim(&tenant, "q", 10, 60);
    assert_eq!(payloads(&job), [json!(3)]);
    ask(4, "replace").refused(409, "conflict");
    assert_eq!(ask(5, "existing").expect(200).json()["state"], "leased");
}

#[test]
fn a_unique_key_can_be_held_for_a_time_or_in_some_states_only() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let timed = json!({ "payload": 1, "unique": { "key": "timed", "for_s": 600 } });
    add(&tenant, timed.clone()).expect(201);
    ack(&tenant, &claim(&tenant, "q", 1, 60)[0]).expect(200);
    add(&tenant, timed).refused(409, "conflict");
    let brief = json!({ "payload": 1, "unique": { "key": "brief", "for_s": 1 } });
    add(&tenant, brief.clone()).expect(201);
    outlast_a_second();
    add(&tenant, brief).expect(201);
    let waiting = json!({ "payload": 2, "priority": 1, "unique": { "key": "waiting", "states": ["ready", "scheduled"] } });
    add(&tenant, waiting.clone()).expect(201);
    add(&tenant, waiting.clone()).refused(409, "conflict");
    assert_eq!(payloads(&claim(&tenant, "q", 1, 60)), [json!(2)]);
    add(&tenant, waiting).expect(201);
}

#[test]
fn no_more_than_the_limit_are_worked_on_at_once_and_a_lost_worker_gives_its_place_back() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    for n in 0..4 {
        enqueue(&tenant, "q", json!({ "payload": n, "limit": { "key": "api", "max": 2 } }));
    }
    enqueue(&tenant, "q", json!({ "payload": "free" }));
    let held = claim(&tenant, "q", 10, 1);
    assert_eq!(payloads(&held), [json!(0), json!(1), json!("free")]);
    assert_eq!(tenant.get("/v1/queues/q").expect(200).json()["jobs"]["blocked"], 2);
    outlast_a_second();
    let again = claim(&tenant, "q", 10, 60);
    assert_eq!(payloads(&again), [json!(0), json!(1), json!("free")], "the two that were lost, and no third");
    ack(&tenant, &again[0]).expect(200);
    let third = claim(&tenant, "q", 10, 60);
    assert_eq!(payloads(&third), [json!(2)]);
    tenant.post(&format!("/v1/jobs/{}/nack", text(&third[0]["id"])), json!({ "lease_token": third[0]["lease_token"] })).expect(200);
    assert_eq!(payloads(&claim(&tenant, "q", 10, 60)), [json!(3)]);
}

#[test]
fn no_more_than_the_rate_are_handed_out_and_a_waiting_claim_gets_the_next() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    for n in 0..2 {
        enqueue(&tenant, "q", json!({ "payload": n, "rate": { "key": "api", "per_s": 0.5 } }));
    }
    let first = claim(&tenant, "q", 1, 60).remove(0);
    let second = tenant.post("/v1/queues/q/claim", json!({ "wait_s": 20, "lease_s": 60 })).expect(200).json()["jobs"][0].clone();
    assert_eq!((&first["payload"], &second["payload"]), (&json!(0), &json!(1)));
    let begun = |job: &Value| text(&tenant.get(&format!("/v1/jobs/{}", text(&job["id"]))).expect(200).json()["job"]["since"]).to_owned();
    let window = |at: String| tenantry::clock::parse_rfc3339(&at).unwrap() / 2_000;
    assert!(window(begun(&second)) > window(begun(&first)), "in another window of two seconds");
}

#[test]
fn a_large_group_does_not_hold_up_a_small_one() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let jobs: Vec<_> = (0..50).map(|n| json!({ "payload": n, "group": "large" })).collect();
    add(&tenant, json!({ "jobs": jobs })).expect(200);
    enqueue(&tenant, "q", json!({ "payload": "small", "group": "small" }));
    enqueue(&tenant, "q", json!({ "payload": "none" }));
    let first: Vec<_> = (0..3).flat_map(|_| payloads(&claim(&tenant, "q", 1, 60))).collect();
    assert_eq!(first, [json!(0), json!("small"), json!("none")]);
    assert_eq!(payloads(&claim(&tenant, "q", 2, 60)), [json!(1), json!(2)]);
}

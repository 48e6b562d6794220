//! What the holder of a lease may do with its job, and that nobody else may.

use super::*;

fn step(tenant: &TenantClient, job: &Value, verb: &str, mut body: Value) -> crate::support::Answer {
    body["lease_token"] = job["lease_token"].clone();
    tenant.post(&format!("/v1/jobs/{}/{verb}", text(&job["id"])), body)
}

fn look(tenant: &TenantClient, id: &Value) -> Value {
    tenant.get(&format!("/v1/jobs/{}", text(id))).expect(200).json()
}

#[test]
fn a_job_that_failed_waits_keeps_its_error_and_dies_after_its_last_attempt() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let backoff = json!({ "kind": "fixed", "base_s": 3600 });
    enqueue(&tenant, "q", json!({ "payload": 1, "max_attempts": 3, "backoff": backoff }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    let failed = step(&tenant, &job, "nack", json!({ "error": "no route" })).expect(200).json();
    assert_eq!(failed["job"]["state"], "scheduled");
    assert!(text(&failed["job"]["run_at"]) > text(&job["lease_until"]), "at least half an hour: {failed}");
    assert!(claim(&tenant, "q", 1, 60).is_empty());
    let seen = look(&tenant, &job["id"]);
    assert_eq!((&seen["job"]["state"], &seen["job"]["error"]), (&json!("scheduled"), &json!("no route")));

    // Without a wait by its worker's word, then given up for good.
    let other = enqueue(&tenant, "now", json!({ "payload": 1, "max_attempts": 3 }));
    let first = claim(&tenant, "now", 1, 60).remove(0);
    assert_eq!(step(&tenant, &first, "nack", json!({ "delay_s": 0 })).expect(200).json()["job"]["state"], "ready");
    let second = claim(&tenant, "now", 1, 60).remove(0);
    assert_eq!((&second["id"], &second["attempt"]), (&json!(other), &json!(2)));
    assert_eq!(step(&tenant, &second, "nack", json!({ "dead": true, "error": "hopeless" })).expect(200).json()["job"]["state"], "dead");
    let seen = look(&tenant, &second["id"]);
    let tries: Vec<_> = seen["attempts"].as_array().unwrap().iter().map(|a| (a["attempt"].clone(), a["error"].clone())).collect();
    assert_eq!(tries, [(json!(1), json!(null)), (json!(2), json!("hopeless"))]);
}

#[test]
fn a_stale_token_is_refused_by_every_verb_and_changes_nothing() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    let stale = claim(&tenant, "q", 1, 1).remove(0);
    let holder = next(&tenant, "q", 600);
    let before = look(&tenant, &holder["id"]);
    for (verb, body) in [
        ("ack", json!({ "result": "mine" })),
        ("nack", json!({ "dead": true, "error": "mine" })),
        ("extend", json!({ "lease_s": 1 })),
        ("progress", json!({ "progress": "mine", "lease_s": 1 })),
        ("snooze", json!({ "delay_s": 9 })),
    ] {
        step(&tenant, &stale, verb, body).refused(409, "lease_lost");
    }
    assert_eq!(look(&tenant, &holder["id"]), before);
    ack(&tenant, &holder).expect(200);
}

#[test]
fn a_lease_is_extended_no_longer_than_the_jobs_timeout() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "q", json!({ "payload": 1, "timeout_s": 100 }));
    let job = claim(&tenant, "q", 1, 50).remove(0);
    let longer = step(&tenant, &job, "extend", json!({ "lease_s": 90 })).expect(200).json()["job"]["lease_until"].clone();
    assert!(text(&longer) > text(&job["lease_until"]));
    step(&tenant, &job, "extend", json!({ "lease_s": 40_000 })).expect(200);
    enqueue(&tenant, "q", json!({ "payload": 1, "timeout_s": 100 }));
    let claimed = claim(&tenant, "q", 1, 40_000).remove(0);
    let instant = |value: &Value| tenantry::clock::parse_rfc3339(text(value)).unwrap();
    for id in [&job["id"], &claimed["id"]] {
        let seen = look(&tenant, id)["job"].clone();
        assert_eq!(instant(&seen["lease_until"]) - instant(&seen["since"]), 100_000);
    }
    step(&tenant, &job, "extend", json!({ "lease_s": 0 })).refused(400, "bad_request");
}

#[test]
fn progress_and_result_are_kept_with_the_job() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "q", json!({ "payload": "x".repeat(100_000) }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    let half = step(&tenant, &job, "progress", json!({ "progress": { "done": 0.5 } })).expect(200).json();
    assert_eq!((&half["job"]["cancelled"], &half["job"]["lease_until"]), (&json!(false), &job["lease_until"]));
    assert_eq!(look(&tenant, &job["id"])["progress"], json!({ "done": 0.5 }));
    step(&tenant, &job, "ack", json!({ "result": [1, 2] })).expect(200);
    let done = look(&tenant, &job["id"]);
    assert_eq!((&done["job"]["state"], &done["result"], &done["progress"]), (&json!("done"), &json!([1, 2]), &json!({ "done": 0.5 })));
    step(&tenant, &job, "progress", json!({ "progress": "x".repeat(70_000) })).refused(413, "payload_too_large");
}

#[test]
fn snoozing_spends_no_attempt() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "q", json!({ "payload": 1, "max_attempts": 1 }));
    let first = claim(&tenant, "q", 1, 60).remove(0);
    assert_eq!(step(&tenant, &first, "snooze", json!({ "delay_s": 1 })).expect(200).json()["job"]["state"], "scheduled");
    step(&tenant, &first, "ack", json!({})).refused(409, "lease_lost");
    let again = next(&tenant, "q", 60);
    assert_eq!((&again["id"], &again["attempt"]), (&first["id"], &json!(1)));
    assert_eq!(step(&tenant, &again, "nack", json!({})).expect(200).json()["job"]["state"], "dead");
}

#[test]
fn a_cancelled_job_is_not_begun_and_who_works_on_one_is_told() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let cancel = |id: &str| tenant.post(&format!("/v1/jobs/{id}/cancel"), json!({}));
    let waiting = enqueue(&tenant, "q", json!({ "payload": 1 }));
    assert_eq!(cancel(&waiting).expect(200).json()["job"]["state"], "cancelled");
    assert_eq!(cancel(&waiting).expect(200).json()["job"]["state"], "cancelled");
    assert!(claim(&tenant, "q", 1, 60).is_empty());

    let id = enqueue(&tenant, "q", json!({ "payload": 2 }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    let asked = cancel(&id).expect(200).json()["job"].clone();
    assert_eq!((&asked["state"], &asked["cancelled"]), (&json!("leased"), &json!(true)));
    assert_eq!(step(&tenant, &job, "extend", json!({ "lease_s": 60 })).expect(200).json()["job"]["cancelled"], true);
    assert_eq!(step(&tenant, &job, "nack", json!({ "delay_s": 0 })).expect(200).json()["job"]["state"], "cancelled");
    assert!(claim(&tenant, "q", 1, 60).is_empty(), "not tried again");

    let id = enqueue(&tenant, "q", json!({ "payload": 3 }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    cancel(&id).expect(200);
    ack(&tenant, &job).expect(200);
    cancel(&id).refused(409, "conflict");
    assert_eq!(look(&tenant, &json!(id))["job"]["state"], "done");
}

//! The queue, seen from outside: who gets which job, what a lease is worth, and what survives.

mod checker;
mod control;
mod effect;
mod enqueue;
mod failing;
mod lease;
mod operator;
mod outbox;
mod schedule;
mod wait;
pub mod webhook;
mod workflow;

use std::collections::HashSet;

use crate::support::{Server, TenantClient, Value, at_once, eventually, json};

#[track_caller]
fn enqueue(tenant: &TenantClient, queue: &str, body: Value) -> String {
    let made = tenant.post(&format!("/v1/queues/{queue}/jobs"), body).expect(201).json();
    made["id"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn claim(tenant: &TenantClient, queue: &str, max: u32, lease_s: u32) -> Vec<Value> {
    let jobs = tenant.post(&format!("/v1/queues/{queue}/claim"), json!({ "max": max, "lease_s": lease_s })).expect(200).json();
    jobs["jobs"].as_array().expect("jobs").clone()
}

/// Claims until there is a job.
fn next(tenant: &TenantClient, queue: &str, lease_s: u32) -> Value {
    eventually("a job is ready", || claim(tenant, queue, 1, lease_s).pop())
}

fn ack(tenant: &TenantClient, job: &Value) -> crate::support::Answer {
    tenant.post(&format!("/v1/jobs/{}/ack", text(&job["id"])), json!({ "lease_token": job["lease_token"] }))
}

/// Lets a lease of one second end where nothing may touch the queue to see whether it did.
fn outlast_a_second() {
    std::thread::sleep(std::time::Duration::from_millis(1_100));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn a_job_goes_in_is_worked_on_and_is_done() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let made = tenant.post("/v1/queues/emails/jobs", json!({ "payload": { "to": "ada@example.com" } })).expect(201).json();
    assert_eq!((&made["queue"], &made["state"], &made["priority"]), (&json!("emails"), &json!("ready"), &json!(0)));
    let jobs = claim(&tenant, "emails", 10, 30);
    assert_eq!(jobs.len(), 1);
    let job = &jobs[0];
    assert_eq!((&job["id"], &job["attempt"], &job["enqueued_at"]), (&made["id"], &json!(1), &made["enqueued_at"]));
    assert_eq!(job["payload"], json!({ "to": "ada@example.com" }));
    assert!(text(&job["lease_until"]) > text(&made["enqueued_at"]));
    assert!(claim(&tenant, "emails", 10, 30).is_empty(), "a leased job is nobody else's");
    let done = ack(&tenant, job).expect(200).json();
    assert_eq!(done, json!({ "job": { "id": made["id"], "state": "done" } }));
    assert!(claim(&tenant, "emails", 10, 30).is_empty());
}

#[test]
fn a_payload_keeps_its_bytes() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let odd = r#"{ "z":1,"a" : [1.50, 12345678901234567890123, "\u00e4ü"],"a":null }"#;
    tenant.call("POST", "/v1/queues/q/jobs").bytes("application/json", format!("{{\"payload\":{odd}}}")).send().expect(201);
    for payload in [json!(null), json!(false), json!("text"), json!([])] {
        enqueue(&tenant, "q", json!({ "payload": payload }));
    }
    let answer = tenant.post("/v1/queues/q/claim", json!({ "max": 10, "lease_s": 30 })).expect(200);
    assert!(answer.text().contains(odd), "{}", answer.text());
    let jobs = answer.json()["jobs"].as_array().unwrap()[1..].iter().map(|job| job["payload"].clone()).collect::<Vec<_>>();
    assert_eq!(jobs, [json!(null), json!(false), json!("text"), json!([])]);
}

#[test]
fn higher_priority_comes_first_and_then_the_older() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    for (name, priority) in [("a", 0), ("b", 5), ("c", -5), ("d", 5), ("e", 0)] {
        enqueue(&tenant, "q", json!({ "payload": name, "priority": priority }));
    }
    let order: Vec<_> =
        claim(&tenant, "q", 2, 30).into_iter().chain(claim(&tenant, "q", 10, 30)).map(|job| text(&job["payload"]).to_owned()).collect();
    assert_eq!(order, ["b", "d", "a", "e", "c"]);
}

#[test]
fn a_delayed_job_waits_for_its_time() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let made = tenant.post("/v1/queues/q/jobs", json!({ "payload": "later", "delay_s": 1, "priority": 9 })).expect(201).json();
    assert_eq!(made["state"], "scheduled");
    assert!(text(&made["run_at"]) > text(&made["enqueued_at"]));
    enqueue(&tenant, "q", json!({ "payload": "now" }));
    assert_eq!(claim(&tenant, "q", 1, 30)[0]["payload"], "now");
    assert_eq!(next(&tenant, "q", 30)["payload"], "later");
}

#[test]
fn a_lease_that_ended_gives_the_job_back_and_its_token_is_worth_nothing() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    let first = claim(&tenant, "q", 1, 1).remove(0);
    let second = next(&tenant, "q", 60);
    assert_eq!((&second["id"], &second["attempt"]), (&first["id"], &json!(2)));
    assert_ne!(second["lease_token"], first["lease_token"]);
    ack(&tenant, &first).refused(409, "lease_lost");
    let done = ack(&tenant, &second).expect(200).json();
    assert_eq!(ack(&tenant, &second).expect(200).json(), done, "an answer that was lost can be had again");
    ack(&tenant, &first).refused(409, "lease_lost");
}

#[test]
fn an_idempotency_key_adds_a_job_once() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let post = |tenant: &TenantClient, queue: &str, payload: u8| {
        let body = json!({ "payload": payload, "delay_s": payload, "priority": 7 });
        tenant.call("POST", &format!("/v1/queues/{queue}/jobs")).idempotency_key("k").json(&body).send()
    };
    let first = post(&tenant, "q", 0).expect(201);
    assert_eq!(first.header("idempotent-replayed"), None);
    let claimed = claim(&tenant, "q", 10, 60);
    assert_eq!(claimed.len(), 1);
    ack(&tenant, &claimed[0]).expect(200);
    let again = post(&tenant, "q", 0).expect(201);
    assert_eq!((again.header("idempotent-replayed"), again.text()), (Some("true"), first.text()));
    post(&tenant, "q", 1).refused(409, "conflict");
    post(&tenant, "other", 0).refused(409, "conflict");
    assert!(claim(&tenant, "q", 10, 60).is_empty() && claim(&tenant, "other", 10, 60).is_empty());

    let stranger = server.tenant("queue");
    let theirs = post(&stranger, "q", 1).expect(201);
    assert_eq!((theirs.header("idempotent-replayed"), theirs.json()["state"].clone()), (None, json!("scheduled")));
    assert_eq!(post(&stranger, "q", 1).expect(201).text(), theirs.text());
    let answers = at_once(20, |_| tenant.call("POST", "/v1/queues/q/jobs").idempotency_key("l").json(&json!({ "payload": 1 })).send());
    let ids: HashSet<_> = answers.into_iter().map(|answer| text(&answer.expect(201).json()["id"]).to_owned()).collect();
    assert_eq!(ids.len(), 1);
    tenant.call("POST", "/v1/queues/q/jobs").idempotency_key("a b").json(&json!({ "payload": 1 })).send().refused(400, "bad_request");
}

#[test]
fn a_lease_that_ended_is_lost_also_when_nobody_took_the_job() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    let job = claim(&tenant, "q", 1, 1).remove(0);
    outlast_a_second();
    ack(&tenant, &job).refused(409, "lease_lost");
    assert_eq!(claim(&tenant, "q", 1, 30)[0]["id"], job["id"]);
}

#[test]
fn a_token_is_good_for_its_own_job_only() {
    let server = Server::shared();
    let (tenant, other) = (server.tenant("queue"), server.tenant("queue"));
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    enqueue(&tenant, "q", json!({ "payload": 2 }));
    let jobs = claim(&tenant, "q", 2, 60);
    let path = format!("/v1/jobs/{}/ack", text(&jobs[0]["id"]));
    for token in [&jobs[1]["lease_token"], &json!(""), &json!("x".repeat(10_000))] {
        tenant.post(&path, json!({ "lease_token": token })).refused(409, "lease_lost");
    }
    other.post(&path, json!({ "lease_token": jobs[0]["lease_token"] })).refused(404, "not_found");
    tenant
        .post("/v1/jobs/0190a5c6-0000-7000-8000-000000000000/ack", json!({ "lease_token": jobs[0]["lease_token"] }))
        .refused(404, "not_found");
    tenant.post("/v1/jobs/1/ack", json!({ "lease_token": jobs[0]["lease_token"] })).refused(400, "bad_request");
    ack(&tenant, &jobs[0]).expect(200);
}

#[test]
fn a_job_out_of_attempts_is_not_handed_out_again() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "q", json!({ "payload": "poison", "max_attempts": 2 }));
    for attempt in [1, 2] {
        assert_eq!(next(&tenant, "q", 1)["attempt"], attempt);
    }
    outlast_a_second();
    enqueue(&tenant, "q", json!({ "payload": "healthy" }));
    let jobs = claim(&tenant, "q", 10, 30);
    assert_eq!(jobs.iter().map(|job| text(&job["payload"])).collect::<Vec<_>>(), ["healthy"]);
}

#[test]
fn queues_of_a_tenant_are_apart_and_so_are_tenants() {
    let server = Server::shared();
    let (tenant, other) = (server.tenant("queue"), server.tenant("queue"));
    enqueue(&tenant, "a", json!({ "payload": 1 }));
    assert!(claim(&tenant, "b", 10, 30).is_empty());
    assert!(claim(&other, "a", 10, 30).is_empty());
    assert_eq!(claim(&tenant, "a", 10, 30).len(), 1);
}

#[test]
fn many_workers_get_every_job_once() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let made: Vec<_> = at_once(4, |producer| {
        (0..50).map(|n| enqueue(&tenant, "q", json!({ "payload": { "producer": producer, "n": n } }))).collect::<Vec<_>>()
    });
    let made: HashSet<String> = made.into_iter().flatten().collect();
    let worked = at_once(8, |_| {
        let mut mine = Vec::new();
        loop {
            let jobs = claim(&tenant, "q", 7, 600);
            if jobs.is_empty() {
                return mine;
            }
            for job in jobs {
                ack(&tenant, &job).expect(200);
                mine.push(text(&job["id"]).to_owned());
            }
        }
    });
    let worked: Vec<String> = worked.into_iter().flatten().collect();
    assert_eq!((made.len(), worked.len()), (200, 200));
    assert_eq!(worked.into_iter().collect::<HashSet<_>>(), made);
}

#[test]
fn what_lies_outside_the_bounds_is_refused_and_named() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let jobs = "/v1/queues/q/jobs";
    for (body, named) in [
        (json!({}), "payload"),
        (json!({ "payload": 1, "priority": 1_000_001 }), "priority"),
        (json!({ "payload": 1, "priority": 1.5 }), ""),
        (json!({ "payload": 1, "delay_s": -1 }), "delay_s"),
        (json!({ "payload": 1, "delay_s": 9_223_372_036_854_775_807_i64 }), "delay_s"),
        (json!({ "payload": 1, "max_attempts": 0 }), "max_attempts"),
        (json!({ "payload": 1, "delay": 1 }), "delay"),
        (json!([1]), ""),
    ] {
        let error = tenant.post(jobs, body.clone()).refused(400, "bad_request");
        assert!(text(&error["message"]).contains(named), "{body}: {error}");
    }
    for (body, named) in [
        (json!({ "max": 0, "lease_s": 1 }), "max"),
        (json!({ "max": 101, "lease_s": 1 }), "max"),
        (json!({ "max": 1, "lease_s": 0 }), "lease_s"),
        (json!({ "max": 1, "lease_s": 43_201 }), "lease_s"),
        (json!({ "max": "1", "lease_s": 1 }), ""),
    ] {
        let error = tenant.post("/v1/queues/q/claim", body.clone()).refused(400, "bad_request");
        assert!(text(&error["message"]).contains(named), "{body}: {error}");
    }
    for name in ["a%20b", "a%2Fb", "%C3%A4", &"n".repeat(129)] {
        tenant.post(&format!("/v1/queues/{name}/jobs"), json!({ "payload": 1 })).refused(400, "bad_request");
        tenant.post(&format!("/v1/queues/{name}/claim"), json!({ "max": 1, "lease_s": 1 })).refused(400, "bad_request");
    }
    assert!(claim(&tenant, "q", 10, 30).is_empty());
}

#[test]
fn a_payload_has_a_largest_size_and_a_claim_a_largest_answer() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let payload = "x".repeat((256 << 10) - 2);
    for _ in 0..20 {
        enqueue(&tenant, "q", json!({ "payload": payload }));
    }
    tenant.post("/v1/queues/q/jobs", json!({ "payload": format!("{payload}x") })).refused(413, "payload_too_large");
    let first = claim(&tenant, "q", 100, 60).len();
    assert!((1..20).contains(&first), "{first} jobs at once");
    assert_eq!(first + claim(&tenant, "q", 100, 60).len(), 20);
}

#[test]
fn scopes_tell_producers_from_consumers() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let (producer, consumer) = (server.scoped(&tenant, &["queue:produce"]), server.scoped(&tenant, &["queue:consume"]));
    enqueue(&producer, "q", json!({ "payload": 1 }));
    producer.post("/v1/queues/q/claim", json!({ "max": 1, "lease_s": 60 })).refused(403, "forbidden");
    consumer.post("/v1/queues/q/jobs", json!({ "payload": 1 })).refused(403, "forbidden");
    let job = claim(&consumer, "q", 1, 60).remove(0);
    ack(&producer, &job).refused(403, "forbidden");
    ack(&consumer, &job).expect(200);
}

#[test]
fn an_acknowledged_job_survives_a_kill_and_so_does_its_lease() {
    let mut server = Server::start();
    let tenant = server.tenant("queue");
    for n in 0..20 {
        enqueue(&tenant, "q", json!({ "payload": n }));
    }
    let leased = claim(&tenant, "q", 5, 600);
    ack(&tenant, &leased[0]).expect(200);
    server.kill9();
    server.start_again();
    let rest: Vec<_> = claim(&tenant, "q", 100, 600).into_iter().map(|job| job["payload"].clone()).collect();
    assert_eq!(rest, (5..20).map(|n| json!(n)).collect::<Vec<_>>());
    ack(&tenant, &leased[0]).expect(200);
    ack(&tenant, &leased[1]).expect(200);
}

#[test]
fn a_full_queue_refuses_more_can_still_be_worked_off_and_then_takes_again() {
    let server = Server::with(|s| {
        s.set("plans.tiny.queue_bytes", 1 << 20);
    });
    let tenant = server.tenant_on("tiny", "queue");
    let payload = "x".repeat(16 << 10);
    let fill = || {
        for taken in 0.. {
            let answer = tenant.post("/v1/queues/q/jobs", json!({ "payload": payload }));
            if answer.status != 201 {
                answer.refused(507, "quota_exceeded");
                return taken;
            }
            assert!(taken < 100, "the plan's bytes are not held");
        }
        unreachable!()
    };
    let first = fill();
    assert!(first > 20, "{first} jobs");
    let jobs = claim(&tenant, "q", 100, 600);
    assert_eq!(jobs.len(), first);
    for job in &jobs {
        ack(&tenant, job).expect(200);
    }
    let second = fill();
    assert!(second >= first - 2, "{second} jobs after {first} were done");
}

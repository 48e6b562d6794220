//! Claims that wait for a job.

use super::*;

pub fn wait(tenant: &TenantClient, queue: &str, wait_s: u32, lease_s: u32) -> Vec<Value> {
    let body = json!({ "max": 1, "lease_s": lease_s, "wait_s": wait_s });
    tenant.post(&format!("/v1/queues/{queue}/claim"), body).expect(200).json()["jobs"].as_array().unwrap().clone()
}

/// Until so many claims of the server wait.
fn until_waiting(server: &Server, claims: u32) {
    let line = format!("\ntenantry_claims_waiting {claims}\n");
    eventually("claims wait", || server.anyone().get("/metrics").expect(200).text().contains(&line).then_some(()));
}

/// Runs `then` once a claim waits, and returns what the claim came to. The server is the test's own.
pub fn while_waiting<T: Send>(server: &Server, waiter: impl Fn() -> T + Sync, then: impl Fn() + Sync) -> T {
    std::thread::scope(|scope| {
        let claimed = scope.spawn(&waiter);
        until_waiting(server, 1);
        then();
        claimed.join().unwrap()
    })
}

#[test]
fn a_waiting_claim_gets_the_job_that_comes() {
    let server = Server::start();
    let tenant = server.tenant("queue");
    // One whose time runs out answers without looking again.
    let jobs = while_waiting(&server, || wait(&tenant, "q", 20, 60), || drop(enqueue(&tenant, "q", json!({ "payload": "came" }))));
    assert_eq!(jobs[0]["payload"], "came");
}

#[test]
fn it_is_woken_also_by_a_delay_a_lost_lease_a_failed_try_and_a_queue_that_goes_on() {
    let server = Server::start();
    let tenant = server.tenant("queue");
    enqueue(&tenant, "delay", json!({ "payload": 1, "delay_s": 1 }));
    assert_eq!(wait(&tenant, "delay", 20, 60).len(), 1);
    let jobs = while_waiting(
        &server,
        || wait(&tenant, "delay2", 20, 60),
        || drop(enqueue(&tenant, "delay2", json!({ "payload": 1, "delay_s": 1 }))),
    );
    assert_eq!(jobs.len(), 1);

    enqueue(&tenant, "lost", json!({ "payload": 1 }));
    claim(&tenant, "lost", 1, 1);
    assert_eq!(wait(&tenant, "lost", 20, 60)[0]["attempt"], 2);

    enqueue(&tenant, "nack", json!({ "payload": 1 }));
    let job = claim(&tenant, "nack", 1, 600).remove(0);
    let nack = || {
        let body = json!({ "lease_token": job["lease_token"], "delay_s": 0 });
        tenant.post(&format!("/v1/jobs/{}/nack", text(&job["id"])), body).expect(200);
    };
    assert_eq!(while_waiting(&server, || wait(&tenant, "nack", 20, 60), nack)[0]["attempt"], 2);

    enqueue(&tenant, "paused", json!({ "payload": 1 }));
    tenant.patch("/v1/queues/paused", json!({ "paused": true })).expect(200);
    let resume = || drop(tenant.patch("/v1/queues/paused", json!({ "paused": false })).expect(200));
    assert_eq!(while_waiting(&server, || wait(&tenant, "paused", 20, 60), resume).len(), 1);

    for n in 0..2 {
        enqueue(&tenant, "limit", json!({ "payload": n, "limit": { "key": "k", "max": 1 } }));
    }
    let first = claim(&tenant, "limit", 1, 600).remove(0);
    let done = || drop(ack(&tenant, &first).expect(200));
    assert_eq!(while_waiting(&server, || wait(&tenant, "limit", 20, 60), done)[0]["payload"], 1);
}

#[test]
fn one_claim_waits_for_several_queues_and_takes_the_first_first() {
    let server = Server::start();
    let tenant = server.tenant("queue");
    let several = |wait_s: u32| {
        let body = json!({ "queues": ["a", "b", "a"], "max": 5, "wait_s": wait_s });
        tenant.post("/v1/claim", body).expect(200).json()["jobs"].as_array().unwrap().clone()
    };
    enqueue(&tenant, "b", json!({ "payload": 2, "priority": 9 }));
    enqueue(&tenant, "a", json!({ "payload": 1 }));
    let order: Vec<_> = several(0).iter().map(|job| (job["queue"].clone(), job["payload"].clone())).collect();
    assert_eq!(order, [(json!("a"), json!(1)), (json!("b"), json!(2))]);
    let jobs = while_waiting(&server, || several(20), || drop(enqueue(&tenant, "b", json!({ "payload": 3 }))));
    assert_eq!((jobs.len(), &jobs[0]["payload"]), (1, &json!(3)));
    tenant.post("/v1/claim", json!({ "queues": [] })).refused(400, "bad_request");
    tenant.post("/v1/claim", json!({ "queues": vec!["q"; 17] })).refused(400, "bad_request");
    tenant.post("/v1/queues/q/claim", json!({ "wait_s": 21 })).refused(400, "bad_request");
}

#[test]
fn many_waiting_claims_share_what_comes_and_none_is_forgotten() {
    let server = Server::start();
    let tenant = server.tenant("queue");
    let worked = std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..12).map(|_| scope.spawn(|| wait(&tenant, "q", 20, 600))).collect();
        until_waiting(&server, 12);
        // Two come together and ten one by one.
        tenant.post("/v1/queues/q/jobs", json!({ "jobs": [{ "payload": 0 }, { "payload": 1 }] })).expect(200);
        for n in 2..12 {
            enqueue(&tenant, "q", json!({ "payload": n }));
        }
        waiters.into_iter().flat_map(|waiter| waiter.join().unwrap()).map(|job| job["payload"].as_i64().unwrap()).collect::<HashSet<_>>()
    });
    assert_eq!(worked, (0..12).collect());
}

#[test]
fn a_tenant_is_suspended_and_a_server_stopped_while_claims_wait() {
    let mut server = Server::start();
    let (tenant, other) = (server.tenant("queue"), server.tenant("queue"));
    std::thread::scope(|scope| {
        let suspended = scope.spawn(|| tenant.post("/v1/queues/q/claim", json!({ "wait_s": 3 })).status);
        let stopped = scope.spawn(|| other.post("/v1/queues/q/claim", json!({ "wait_s": 20 })).expect(200).json());
        until_waiting(&server, 2);
        let path = format!("/admin/v1/tenants/{}", tenant.id);
        server.admin().patch(&path, json!({ "state": "suspended" })).expect(200);
        assert_eq!(suspended.join().unwrap(), 200, "nothing had come");
        tenant.post("/v1/queues/q/claim", json!({ "wait_s": 3 })).refused(403, "tenant_suspended");
        server.terminate();
        assert_eq!(stopped.join().unwrap(), json!({ "jobs": [] }));
    });
    assert!(server.ended().success());
}

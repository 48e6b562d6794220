//! Jobs that wait for others: chains, fan-in, batches with a job that comes after them.

use super::*;

fn add(tenant: &TenantClient, body: Value) -> Value {
    tenant.post("/v1/queues/q/jobs", body).expect(200).json()
}

fn id_of(result: &Value) -> String {
    text(&result["job"]["id"]).to_owned()
}

fn state(tenant: &TenantClient, id: &str) -> String {
    text(&look(tenant, id)["job"]["state"]).to_owned()
}

fn look(tenant: &TenantClient, id: &str) -> Value {
    tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()
}

/// Claims one job, which is to be this one, and finishes it.
#[track_caller]
fn work(tenant: &TenantClient, queue: &str, payload: &str) -> Value {
    let jobs = claim(tenant, queue, 9, 60);
    assert_eq!(jobs.iter().map(|job| &job["payload"]).collect::<Vec<_>>(), [payload]);
    ack(tenant, &jobs[0]).expect(200);
    jobs[0].clone()
}

fn kill(tenant: &TenantClient, job: &Value) {
    let body = json!({ "lease_token": job["lease_token"], "dead": true });
    tenant.post(&format!("/v1/jobs/{}/nack", text(&job["id"])), body).expect(200);
}

#[test]
fn a_chain_and_a_fan_in_run_in_their_order_whatever_the_order_of_the_request() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let made = add(
        &tenant,
        json!({ "jobs": [
            { "key": "report", "payload": "report", "depends_on": ["left", "right"] },
            { "key": "load", "payload": "load" },
            { "key": "left", "payload": "left", "depends_on": ["load"] },
            { "key": "right", "payload": "right", "depends_on": ["left", "load"], "delay_s": 1 },
        ] }),
    );
    let states: Vec<_> = made["results"].as_array().unwrap().iter().map(|result| text(&result["job"]["state"])).collect();
    assert_eq!(states, ["waiting", "ready", "waiting", "waiting"]);
    let report = id_of(&made["results"][0]);
    let other = tenant.post("/v1/queues/mail/jobs", json!({ "payload": "mail", "depends_on": [report] })).expect(201).json();
    assert_eq!(tenant.get("/v1/queues/q").expect(200).json()["jobs"]["waiting"], 3);
    let waiting = tenant.get("/v1/queues/q/jobs?state=waiting").expect(200).json();
    assert_eq!(waiting["jobs"].as_array().unwrap().len(), 3);

    work(&tenant, "q", "load");
    work(&tenant, "q", "left");
    let right = next(&tenant, "q", 60);
    assert_eq!(right["payload"], "right", "not before its delay is over");
    assert_eq!(look(&tenant, &report)["waits_for"], json!({ "jobs": 2, "done": 1, "dead": 0, "cancelled": 0, "expired": 0 }));
    ack(&tenant, &right).expect(200);
    let report = work(&tenant, "q", "report");
    assert_eq!(report["waited_for"]["done"], 2);
    assert_eq!(work(&tenant, "mail", "mail")["id"], other["id"]);
}

#[test]
fn a_waiting_claim_is_woken_by_the_end_of_what_its_job_waits_for() {
    let server = Server::start();
    let tenant = server.tenant("queue");
    let first = enqueue(&tenant, "q", json!({ "payload": 1 }));
    enqueue(&tenant, "then", json!({ "payload": 2, "depends_on": [first] }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    let came = super::wait::while_waiting(&server, || super::wait::wait(&tenant, "then", 20, 60), || drop(ack(&tenant, &job).expect(200)));
    assert_eq!(came[0]["payload"], 2);
}

#[test]
fn a_batch_counts_its_jobs_and_what_comes_after_them_comes_once() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let jobs: Vec<_> = (0..5).map(|n| json!({ "payload": n, "max_attempts": 1 })).collect();
    let body = json!({ "jobs": jobs, "then": { "queue": "after", "job": { "payload": "all" } } });
    let send = || tenant.call("POST", "/v1/queues/q/jobs").idempotency_key("b").json(&body).send().expect(200);
    let made = send();
    assert_eq!((send().text(), send().header("idempotent-replayed")), (made.text(), Some("true")));
    let made = made.json();
    assert_eq!((&made["then"]["job"]["queue"], &made["then"]["job"]["state"]), (&json!("after"), &json!("waiting")));
    let then = id_of(&made["then"]);
    let held = claim(&tenant, "q", 4, 60);
    tenant.post(&format!("/v1/jobs/{}/cancel", id_of(&made["results"][4])), json!({})).expect(200);
    kill(&tenant, &held[0]);
    for job in &held[1..] {
        assert!(claim(&tenant, "after", 1, 60).is_empty());
        ack(&tenant, job).expect(200);
    }
    let counts = json!({ "jobs": 5, "done": 3, "dead": 1, "cancelled": 1, "expired": 0 });
    assert_eq!(look(&tenant, &then)["waits_for"], counts);
    let after = work(&tenant, "after", "all");
    assert_eq!((&after["waited_for"], after["id"].as_str()), (&counts, Some(then.as_str())));

    tenant.post("/v1/queues/q/redrive", json!({})).expect(200);
    ack(&tenant, &claim(&tenant, "q", 1, 60)[0]).expect(200);
    assert!(claim(&tenant, "after", 1, 60).is_empty(), "not again when a dead one is brought back");
}

#[test]
fn a_failure_takes_with_it_who_waits_for_it_as_each_has_asked() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let made = add(
        &tenant,
        json!({ "jobs": [
            { "key": "a", "payload": "a" },
            { "key": "b", "payload": "b", "depends_on": ["a"] },
            { "key": "c", "payload": "c", "depends_on": ["b"] },
            { "key": "run", "payload": "run", "depends_on": ["a", "c"], "on_failure": "run" },
            { "key": "wait", "payload": "wait", "depends_on": ["a"], "on_failure": "wait" },
        ] }),
    );
    let ids: Vec<_> = made["results"].as_array().unwrap().iter().map(id_of).collect();
    kill(&tenant, &claim(&tenant, "q", 9, 60)[0]);
    let states: Vec<_> = ids.iter().map(|id| state(&tenant, id)).collect();
    assert_eq!(states, ["dead", "cancelled", "cancelled", "ready", "waiting"]);
    assert!(text(&look(&tenant, &ids[2])["job"]["error"]).ends_with(&format!("job {} is cancelled", ids[1])));
    work(&tenant, "q", "run");
    let late =
        |on_failure: &str| tenant.post("/v1/queues/q/jobs", json!({ "payload": 1, "depends_on": [ids[0]], "on_failure": on_failure }));
    assert_eq!(late("cancel").refused(409, "conflict")["details"]["job"], ids[0]);
    assert_eq!(late("wait").expect(201).json()["state"], "waiting");
    tenant.post("/v1/queues/q/redrive", json!({})).expect(200);
    work(&tenant, "q", "a");
    let after: Vec<_> = claim(&tenant, "q", 9, 60).iter().map(|job| job["payload"].clone()).collect();
    assert_eq!(after, [json!("wait"), json!(1)]);
}

#[test]
fn who_waits_for_a_dead_job_learns_when_it_is_purged_or_its_own_time_is_over() {
    let server = Server::shared();
    let tenant = server.tenant("queue");
    let dead = enqueue(&tenant, "q", json!({ "payload": 1 }));
    let waits = |ttl_s: u32| enqueue(&tenant, "w", json!({ "payload": 1, "depends_on": [dead], "on_failure": "wait", "ttl_s": ttl_s }));
    let (brief, patient) = (waits(1), waits(600));
    kill(&tenant, &claim(&tenant, "q", 1, 60)[0]);
    outlast_a_second();
    assert!(claim(&tenant, "w", 1, 60).is_empty());
    assert_eq!((state(&tenant, &brief).as_str(), state(&tenant, &patient).as_str()), ("expired", "waiting"));
    let purge = |state: &str| tenant.post("/v1/queues/q/purge", json!({ "state": state })).expect(200).json()["jobs"].clone();
    assert_eq!(purge("dead"), 1);
    assert_eq!((state(&tenant, &dead).as_str(), state(&tenant, &patient).as_str()), ("cancelled", "cancelled"));
    assert_eq!(purge("cancelled"), 1);
    tenant.get(&format!("/v1/jobs/{dead}")).refused(404, "not_found");
}

#[test]
fn circles_strangers_and_what_is_not_there_are_refused_and_the_rest_is_added() {
    let server = Server::shared();
    let (tenant, other) = (server.tenant("queue"), server.tenant("queue"));
    let stranger = enqueue(&other, "q", json!({ "payload": 1 }));
    let made = add(
        &tenant,
        json!({ "jobs": [
            { "key": "a", "payload": 1, "depends_on": ["b"] },
            { "key": "b", "payload": 2, "depends_on": ["a"] },
            { "payload": 3, "depends_on": ["a"] },
            { "payload": 4, "depends_on": ["nobody"] },
            { "payload": 5, "depends_on": [stranger] },
            { "key": "ok", "payload": 6 },
            { "payload": 7, "depends_on": ["ok", "ok"] },
        ] }),
    );
    let codes: Vec<_> =
        made["results"].as_array().unwrap().iter().map(|result| result["error"]["code"].as_str().unwrap_or("added")).collect();
    assert_eq!(codes, ["bad_request", "bad_request", "conflict", "bad_request", "not_found", "added", "added"]);
    assert!(text(&made["results"][0]["error"]["message"]).ends_with("a → b → a"));
    tenant.post("/v1/queues/q/jobs", json!({ "payload": 1, "depends_on": ["ok"] })).refused(400, "bad_request");
    tenant.post("/v1/queues/q/jobs", json!({ "payload": 1, "depends_on": vec!["ok"; 501] })).refused(400, "bad_request");
    let nothing = add(&tenant, json!({ "jobs": [{ "payload": 1, "priority": 9_000_000 }], "then": { "job": { "payload": 1 } } }));
    assert_eq!(nothing["then"]["error"]["code"], "conflict");
    assert_eq!(claim(&tenant, "q", 9, 60).len(), 1);
}

#[test]
fn a_workflow_survives_kills_at_any_step() {
    let mut server = Server::start();
    let tenant = server.tenant("queue");
    let link = |n: usize| match n {
        0 => json!({ "key": "0", "payload": 0 }),
        n => json!({ "key": n.to_string(), "payload": n, "depends_on": [(n - 1).to_string()] }),
    };
    let jobs: Vec<_> = (0..12).map(link).collect();
    let made = add(&tenant, json!({ "jobs": jobs, "then": { "job": { "payload": "end" } } }));
    let mut order = Vec::new();
    for step in 0..13 {
        let job = next(&tenant, "q", 600);
        order.push(job["payload"].clone());
        if step % 3 == 0 {
            server.kill9();
            server.start_again();
        }
        ack(&tenant, &job).expect(200);
        if step % 3 == 1 {
            server.kill9();
            server.start_again();
        }
    }
    assert_eq!(order, (0..12).map(|n| json!(n)).chain([json!("end")]).collect::<Vec<_>>());
    assert_eq!(look(&tenant, &id_of(&made["then"]))["waits_for"]["done"], 12);
    assert!(claim(&tenant, "q", 9, 60).is_empty());
}

//! `ack` with statements: the effect is in the database once, whoever sends it how often, and whenever the server dies.

use super::*;
use crate::support::shim::*;

fn work(server: &Server) -> TenantClient {
    let tenant = server.tenant("queue");
    tenant.script("CREATE TABLE paid (job TEXT, cents INTEGER CHECK (cents > 0))");
    tenant
}

/// The body of an `ack` that pays once.
fn paying(job: &Value, cents: i64) -> Value {
    let sql = "INSERT INTO paid VALUES (?1, ?2)";
    json!({ "lease_token": job["lease_token"], "statements": [{ "sql": sql, "params": [job["id"], cents] }] })
}

fn pay(tenant: &TenantClient, job: &Value, cents: i64) -> crate::support::Answer {
    tenant.post(&format!("/v1/jobs/{}/ack", text(&job["id"])), paying(job, cents))
}

fn paid(tenant: &TenantClient) -> Value {
    tenant.rows("SELECT count(*), sum(cents) FROM paid", json!([]))[0].clone()
}

#[test]
fn the_effect_and_the_end_of_the_job_come_together_and_a_repeated_ack_does_nothing() {
    let server = Server::shared();
    let tenant = work(&server);
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    let done = pay(&tenant, &job, 5).expect(200).json();
    assert_eq!(done["job"], json!({ "id": job["id"], "state": "done", "applied": true }));
    assert_eq!(pay(&tenant, &job, 5).expect(200).json()["job"]["applied"], false);
    assert_eq!(paid(&tenant), json!([1, 5]));
}

#[test]
fn statements_that_fail_leave_nothing_and_the_job_in_its_workers_hands() {
    let server = Server::shared();
    let tenant = work(&server);
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    let job = claim(&tenant, "q", 1, 60).remove(0);
    let mut body = paying(&job, 5);
    body["statements"].as_array_mut().unwrap().push(json!({ "sql": "INSERT INTO paid VALUES (1, -1)" }));
    let refused = tenant.post(&format!("/v1/jobs/{}/ack", text(&job["id"])), body).refused(409, "constraint_violation");
    assert_eq!(refused["details"]["statement"], 1);
    assert_eq!(paid(&tenant), json!([0, null]));
    let (consumer, reader) = (server.scoped(&tenant, &["queue:consume"]), server.scoped(&tenant, &["queue:consume", "sql:read"]));
    pay(&consumer, &job, 5).refused(403, "forbidden");
    pay(&reader, &job, 5).refused(403, "forbidden");
    assert_eq!(pay(&tenant, &job, 7).expect(200).json()["job"]["applied"], true);
    assert_eq!(paid(&tenant), json!([1, 7]));
}

#[test]
fn of_two_workers_that_hold_a_job_one_after_the_other_one_has_its_effect() {
    let server = Server::shared();
    let tenant = work(&server);
    enqueue(&tenant, "q", json!({ "payload": 1 }));
    let first = claim(&tenant, "q", 1, 1).remove(0);
    let second = next(&tenant, "q", 60);
    pay(&tenant, &first, 1).refused(409, "lease_lost");
    let answers = at_once(8, |_| pay(&tenant, &second, 2).expect(200).json()["job"]["applied"] == true);
    assert_eq!(answers.into_iter().filter(|applied| *applied).count(), 1);
    pay(&tenant, &first, 1).refused(409, "lease_lost");
    assert_eq!(paid(&tenant), json!([1, 2]));
}

#[test]
fn killed_at_any_call_between_the_two_files_the_effect_is_there_once() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let tenant = work(&server);
    let (mut kills, mut found) = (0, 0);
    for nth in 1.. {
        enqueue(&tenant, "q", json!({ "payload": nth }));
        let job = claim(&tenant, "q", 1, 600).remove(0);
        shim.set(&Rule { nth, ..Rule::new(ALL, format!("*/tenant_*_{}.sqlite*", tenant.id), KILL) });
        let path = format!("/v1/jobs/{}/ack", text(&job["id"]));
        let answered = tenant.call("POST", &path).json(&paying(&job, 1)).try_send().is_ok_and(|answer| answer.status == 200);
        let (_, hits) = shim.clear();
        if hits == 0 {
            assert!(answered);
            break;
        }
        kills += 1;
        server.ended();
        server.start_again();
        let again = pay(&tenant, &job, 1).expect(200).json();
        found += i32::from(again["job"]["applied"] == false);
        assert_eq!(paid(&tenant), json!([nth, nth]), "after call {nth}");
        assert_eq!(tenant.get(&format!("/v1/jobs/{}", text(&job["id"]))).expect(200).json()["job"]["state"], "done");
    }
    println!("{kills} kills, the effect was there before the job was done after {found} of them");
    assert!(found > 0 && found < kills, "some before the first commit, some between the two");
    server.stop();
    crate::support::check_files(server.dir());
}

#[test]
fn what_is_remembered_of_jobs_goes_when_they_are_over_and_not_before() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let tenant = work(&server);
    let pay_for_one = |attempts: u32| {
        let id = enqueue(&tenant, "q", json!({ "payload": 1, "max_attempts": attempts }));
        let job = claim(&tenant, "q", 1, 43_200).remove(0);
        assert_eq!(job["id"], id);
        job
    };
    // Applied, but never finished: its worker dies between the two, as far as the queue knows.
    let lost = pay_for_one(1);
    let mut between = paying(&lost, 1);
    shim.set(&Rule { nth: 1, ..Rule::new(WRITE, format!("*/tenant_queue_{}.sqlite-wal", tenant.id), KILL) });
    assert!(tenant.call("POST", &format!("/v1/jobs/{}/ack", text(&lost["id"]))).json(&between).try_send().is_err());
    shim.clear();
    server.ended();
    server.start_again();
    assert_eq!(paid(&tenant), json!([1, 1]), "the database was first");
    pay(&tenant, &pay_for_one(1), 1).expect(200);

    shim.set_clock_ahead(2 * 86_400);
    assert!(claim(&tenant, "q", 1, 60).is_empty(), "the lost one is dead");
    pay(&tenant, &pay_for_one(1), 1).expect(200);
    tenant.post("/v1/queues/q/redrive", json!({})).expect(200);
    let again = claim(&tenant, "q", 1, 60).remove(0);
    assert_eq!(again["id"], lost["id"]);
    between["lease_token"] = again["lease_token"].clone();
    let done = tenant.post(&format!("/v1/jobs/{}/ack", text(&again["id"])), between).expect(200).json();
    assert_eq!(done["job"]["applied"], false, "remembered for as long as it could be brought back");
    assert_eq!(paid(&tenant), json!([3, 3]));
    server.stop();
    let file = rusqlite::Connection::open(server.file(&tenant.id, "database")).unwrap();
    let kept: i64 = file.query_row("SELECT count(*) FROM _tenantry_job_done", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 2, "that of the one done two days ago is gone");
}

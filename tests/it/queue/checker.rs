//! A checker: many workers, some of which die, pause past their leases or give up, and a server that is killed. Every
//! job that was acknowledged ends done exactly once, none before the one that it waits for, and what one claim hands out is
//! in order.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::*;

const PRODUCERS: usize = 3;
const WORKERS: usize = 8;
const JOBS: usize = 60;
const KILLS: usize = 3;

/// What everybody has seen.
#[derive(Default)]
struct Ledger {
    /// Jobs whose addition was answered.
    added: Mutex<HashSet<String>>,
    /// Which of them waits for which.
    waits: Mutex<Vec<(String, String)>>,
    /// How often an `ack` of a job was answered with 200, not counting repetitions by one lease.
    done: Mutex<HashMap<String, HashSet<String>>>,
    refused: AtomicUsize,
    /// Claims that brought something.
    claims: AtomicUsize,
    wrong_order: AtomicUsize,
}

/// A number that looks random and is the same in every run.
fn chance(seed: usize, step: usize) -> usize {
    let mut x = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (step as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ x >> 32) as usize
}

#[test]
fn no_job_is_lost_and_none_is_finished_twice_whoever_dies() {
    let mut server = Server::start();
    let tenant = server.tenant("queue");
    let (ledger, working) = (Ledger::default(), AtomicBool::new(true));
    std::thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let (tenant, ledger) = (&tenant, &ledger);
                scope.spawn(move || {
                    (0..JOBS).fold(None, |before, n| Some(add(tenant, ledger, producer, n, before)));
                })
            })
            .collect();
        for _ in 0..WORKERS {
            let (tenant, ledger, working) = (&tenant, &ledger, &working);
            scope.spawn(move || {
                while working.load(Relaxed) {
                    work(tenant, ledger);
                }
            });
        }
        for kill in 1..=KILLS {
            eventually("some work is done", || (ledger.done.lock().unwrap().len() >= kill * 20).then_some(()));
            server.kill9();
            server.start_again();
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        let settled = || {
            let depth = tenant.get("/v1/queues/q").expect(200).json()["jobs"].clone();
            ["waiting", "ready", "scheduled", "blocked", "leased"].iter().all(|state| depth[state] == 0).then_some(depth)
        };
        let depth = crate::support::within(4 * crate::support::SOON, "all work is done", settled);
        working.store(false, Relaxed);
        assert_eq!(depth["dead"], 0, "{depth}");
    });
    let (added, done) = (ledger.added.into_inner().unwrap(), ledger.done.into_inner().unwrap());
    println!(
        "{} jobs added, {} done, {} acknowledgements refused as lost, {KILLS} kills",
        added.len(),
        done.len(),
        ledger.refused.load(Relaxed)
    );
    let not_done: Vec<_> =
        added.iter().filter(|id| tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()["job"]["state"] != "done").collect();
    assert!(not_done.is_empty(), "lost: {not_done:?}");
    let waits = ledger.waits.into_inner().unwrap();
    let done_at = |id: &String| text(&tenant.get(&format!("/v1/jobs/{id}")).expect(200).json()["job"]["since"]).to_owned();
    let early: Vec<_> = waits.iter().filter(|(job, waits_for)| done_at(job) < done_at(waits_for)).collect();
    assert!(early.is_empty() && waits.len() > JOBS / 2, "done before what they wait for: {early:?}");
    let twice: Vec<_> = done.iter().filter(|(_, tokens)| tokens.len() > 1).collect();
    assert!(twice.is_empty(), "finished by two leases: {twice:?}");
    assert_eq!(ledger.wrong_order.load(Relaxed), 0);
    assert!(added.len() == PRODUCERS * JOBS && ledger.refused.load(Relaxed) > 0, "leases were lost, or this has shown nothing");
}

/// Adds a job, some of them to come after the one `before`, and asks again under the same key until there is an answer.
fn add(tenant: &TenantClient, ledger: &Ledger, producer: usize, n: usize, before: Option<String>) -> String {
    let priority = chance(producer, n) % 3;
    let before = before.filter(|_| !n.is_multiple_of(3));
    let depends_on: Vec<_> = before.iter().collect();
    let job = json!({ "payload": priority, "priority": priority, "max_attempts": 1_000, "depends_on": depends_on });
    let id = eventually("a job is added", || {
        let call = tenant.call("POST", "/v1/queues/q/jobs").idempotency_key(&format!("{producer}-{n}")).json(&job);
        call.try_send().ok().filter(|answer| answer.status == 201).map(|answer| text(&answer.json()["id"]).to_owned())
    });
    ledger.added.lock().unwrap().insert(id.clone());
    ledger.waits.lock().unwrap().extend(before.map(|before| (id.clone(), before)));
    id
}

fn work(tenant: &TenantClient, ledger: &Ledger) {
    let body = json!({ "max": 4, "lease_s": 1, "wait_s": 1 });
    let Ok(answer) = tenant.call("POST", "/v1/queues/q/claim").json(&body).try_send() else { return };
    if answer.status != 200 {
        return;
    }
    let jobs = answer.json()["jobs"].as_array().unwrap().clone();
    let rank = |job: &Value| (std::cmp::Reverse(job["payload"].as_u64()), text(&job["id"]).to_owned());
    if !jobs.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])) {
        ledger.wrong_order.fetch_add(1, Relaxed);
    }
    if jobs.is_empty() {
        return;
    }
    // Each fate has its turn: what all of them make of it does not hang on who came when.
    let fate = ledger.claims.fetch_add(1, Relaxed) % 10;
    for job in jobs {
        match fate {
            // Dies with the job in its hands.
            0 => {}
            // Goes on after its lease is over.
            1 => {
                outlast_a_second();
                finish(tenant, ledger, &job);
            }
            2 => {
                let nack = json!({ "lease_token": job["lease_token"], "delay_s": 0, "error": "gave up" });
                let _ = tenant.call("POST", &format!("/v1/jobs/{}/nack", text(&job["id"]))).json(&nack).try_send();
            }
            _ => finish(tenant, ledger, &job),
        }
    }
}

/// Acknowledges until there is an answer: the lease that finished a job may say so again.
fn finish(tenant: &TenantClient, ledger: &Ledger, job: &Value) {
    let (id, token) = (text(&job["id"]), text(&job["lease_token"]));
    let status = eventually("an acknowledgement is answered", || {
        let call = tenant.call("POST", &format!("/v1/jobs/{id}/ack")).json(&json!({ "lease_token": token }));
        call.try_send().ok().map(|answer| answer.status).filter(|status| [200, 409].contains(status))
    });
    if status == 200 {
        ledger.done.lock().unwrap().entry(id.to_owned()).or_default().insert(token.to_owned());
    } else {
        ledger.refused.fetch_add(1, Relaxed);
    }
}

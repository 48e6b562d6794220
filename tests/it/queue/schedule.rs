//! Schedules: jobs that the calendar adds, once each, also for tenants that nobody has open. The server's clock is the
//! test's (`support/shim.rs`), so a day takes no longer than a second.

use super::*;
use crate::support::Dice;
use crate::support::shim::{ALL, KILL, Rule, Shim};
use tenantry::clock::{now_ms, parse_rfc3339};

const HOUR_S: i64 = 3_600;

/// A server whose clock is the test's.
struct Bed {
    server: Server,
    shim: Shim,
}

impl Bed {
    fn new() -> Bed {
        let shim = Shim::new();
        let server = Server::with(|settings| shim.under(settings));
        Bed { server, shim }
    }

    /// Sets the server's clock to `seconds` after `at`.
    fn go_to(&self, at: &str, seconds: i64) {
        let ms = parse_rfc3339(at).unwrap() - now_ms();
        self.shim.set_clock_ahead(ms.div_euclid(1_000) + seconds + 1);
    }
}

fn path(name: &str) -> String {
    format!("/v1/queues/q/schedules/{name}")
}

#[track_caller]
fn put(tenant: &TenantClient, name: &str, body: Value) -> Value {
    tenant.put(&path(name), body).expect(200).json()
}

/// The runs of the jobs that schedules have added, oldest first.
fn runs(tenant: &TenantClient) -> Vec<String> {
    let jobs = tenant.get("/v1/queues/q/jobs?state=ready&limit=1000").expect(200).json()["jobs"].as_array().unwrap().clone();
    let by = |job: &Value| text(&tenant.get(&format!("/v1/jobs/{}", text(&job["id"]))).expect(200).json()["enqueued_by"]).to_owned();
    jobs.iter().map(by).filter_map(|by| by.strip_prefix("schedule ").map(|rest| rest.split(' ').next_back().unwrap().to_owned())).collect()
}

#[track_caller]
fn fired(tenant: &TenantClient, count: usize) -> Vec<String> {
    eventually("the runs are fired", || Some(runs(tenant)).filter(|runs| runs.len() >= count))
}

/// Works on one job, and what it was.
fn done(tenant: &TenantClient) -> Value {
    let job = next(tenant, "q", 60);
    ack(tenant, &job).expect(200);
    job["payload"].clone()
}

fn next_runs(schedule: &Value) -> Vec<String> {
    schedule["next_runs"].as_array().unwrap().iter().map(|at| text(at).to_owned()).collect()
}

#[test]
fn a_schedule_says_when_it_runs_next_in_its_own_time_zone() {
    let bed = Bed::new();
    let tenant = bed.server.tenant("schedule");
    bed.go_to("2030-03-29T12:00:00Z", 0);
    let made =
        put(&tenant, "nightly", json!({ "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "job": { "payload": 1, "priority": 7 } }));
    // The clock goes from 02:00 to 03:00 on the 31st.
    let expected = ["2030-03-30T01:30:00.000Z", "2030-03-31T01:00:00.000Z", "2030-04-01T00:30:00.000Z"];
    assert_eq!(next_runs(&made)[..3], expected);
    assert_eq!((&made["misfire"], &made["paused"], &made["last_run"]), (&json!("once"), &json!(false), &Value::Null));
    assert_eq!(tenant.get(&path("nightly")).expect(200).json(), made);
    assert_eq!(tenant.get("/v1/queues/q/schedules").expect(200).json(), json!({ "schedules": [made], "next_cursor": null }));
    bed.go_to("2030-03-31T01:00:00Z", 0);
    assert_eq!(fired(&tenant, 1), ["2030-03-31T01:00:00.000Z"], "one for the day that was missed and the one that is due");
    let job = claim(&tenant, "q", 1, 60).remove(0);
    let detail = tenant.get(&format!("/v1/jobs/{}", text(&job["id"]))).expect(200).json();
    assert_eq!((&job["payload"], &detail["job"]["priority"]), (&json!(1), &json!(7)));
    let after = tenant.get(&path("nightly")).expect(200).json();
    assert_eq!((&after["last_run"], &after["last_job"]), (&json!("2030-03-31T01:00:00.000Z"), &job["id"]));
    assert_eq!(next_runs(&after)[0], expected[2]);
    tenant.delete(&path("nightly")).expect(204);
    tenant.get(&path("nightly")).refused(404, "not_found");
    tenant.delete(&path("nightly")).refused(404, "not_found");
}

#[test]
fn what_was_missed_is_skipped_done_once_or_done_in_full() {
    let bed = Bed::new();
    let tenants: Vec<_> = ["skip", "once", "all"].map(|misfire| (misfire, bed.server.tenant("misfire"))).into();
    bed.go_to("2030-01-01T00:30:00Z", 0);
    for (misfire, tenant) in &tenants {
        put(tenant, "hourly", json!({ "cron": "0 * * * *", "misfire": misfire, "job": { "payload": 1 } }));
        bed.server.admin().patch(&format!("/admin/v1/tenants/{}", tenant.id), json!({ "state": "suspended" })).expect(200);
    }
    bed.go_to("2030-01-01T03:30:00Z", 0);
    for (_, tenant) in &tenants {
        bed.server.admin().patch(&format!("/admin/v1/tenants/{}", tenant.id), json!({ "state": "active" })).expect(200);
    }
    let hours = |hours: &[u32]| hours.iter().map(|hour| format!("2030-01-01T{hour:02}:00:00.000Z")).collect::<Vec<_>>();
    assert_eq!(fired(&tenants[1].1, 1), hours(&[3]));
    assert_eq!(fired(&tenants[2].1, 3), hours(&[1, 2, 3]));
    bed.go_to("2030-01-01T04:00:00Z", 0);
    assert_eq!(fired(&tenants[0].1, 1), hours(&[4]), "those before were too late");
    assert_eq!(fired(&tenants[1].1, 2), hours(&[3, 4]));
    assert_eq!(fired(&tenants[2].1, 4), hours(&[1, 2, 3, 4]));
    // A hundred is the most.
    bed.go_to("2030-02-01T00:00:00Z", 0);
    assert_eq!(fired(&tenants[2].1, 104).len(), 104);
    assert_eq!(runs(&tenants[1].1).len(), 3);
}

#[test]
fn an_edited_schedule_goes_by_what_it_says_now() {
    let bed = Bed::new();
    let tenant = bed.server.tenant("schedule");
    bed.go_to("2030-01-01T00:30:00Z", 0);
    put(&tenant, "s", json!({ "cron": "0 12 * * *", "job": { "payload": "old" } }));
    put(&tenant, "later", json!({ "cron": "0 2 * * *", "job": { "payload": "later" } }));
    // Sooner than it was, and sooner than anything that was known before.
    put(&tenant, "s", json!({ "cron": "0 1 * * *", "job": { "payload": "new" } }));
    put(&tenant, "later", json!({ "cron": "0 3 * * *", "job": { "payload": "later" } }));
    bed.go_to("2030-01-01T01:00:00Z", 0);
    assert_eq!(done(&tenant), "new");
    bed.go_to("2030-01-01T02:30:00Z", 0);
    put(&tenant, "s", json!({ "cron": "0 1 * * *", "paused": true, "job": { "payload": "paused" } }));
    bed.go_to("2030-01-01T03:00:00Z", 0);
    assert_eq!(done(&tenant), "later", "at its new time, not at its old one");
    bed.go_to("2030-01-02T01:30:00Z", 0);
    tenant.patch(&path("s"), json!({ "paused": false })).expect(200);
    bed.go_to("2030-01-02T03:00:00Z", 0);
    assert_eq!(done(&tenant), "later", "what came while it was paused is not missed");
    bed.go_to("2030-01-03T01:00:00Z", 0);
    assert_eq!(done(&tenant), "paused");
    assert!(claim(&tenant, "q", 10, 60).is_empty());
}

#[test]
fn a_schedule_can_be_run_by_hand_beside_its_calendar() {
    let server = Server::shared();
    let tenant = server.tenant("schedule");
    let made = put(&tenant, "yearly", json!({ "cron": "0 0 1 1 *", "job": { "payload": { "to": "ada" }, "unique": { "key": "y" } } }));
    let job = tenant.post(&format!("{}/run", path("yearly")), json!({})).expect(201).json();
    assert_eq!(claim(&tenant, "q", 1, 60)[0]["id"], job["id"]);
    tenant.post(&format!("{}/run", path("yearly")), json!({})).refused(409, "conflict");
    assert_eq!(tenant.get(&path("yearly")).expect(200).json()["next_runs"], made["next_runs"]);
}

#[test]
fn what_makes_no_sense_is_refused_and_needs_its_scope() {
    let server = Server::shared();
    let tenant = server.tenant("schedule");
    let job = json!({ "payload": 1 });
    for body in [
        json!({ "cron": "* * * *", "job": job }),
        json!({ "cron": "61 * * * *", "job": job }),
        json!({ "cron": "0 0 30 2 *", "job": job }),
        json!({ "cron": "* * * * *", "time_zone": "Mars/Olympus", "job": job }),
        json!({ "cron": "* * * * *", "misfire": "never", "job": job }),
        json!({ "cron": "* * * * *", "job": { "payload": 1, "run_at": "2030-01-01T00:00:00Z" } }),
        json!({ "cron": "* * * * *", "job": { "payload": 1, "priority": "high" } }),
        json!({ "cron": "* * * * *", "job": {} }),
        json!({ "cron": "* * * * *" }),
    ] {
        tenant.put(&path("s"), body).refused(400, "bad_request");
    }
    tenant.put(&path("a%20b"), json!({ "cron": "* * * * *", "job": job })).refused(400, "bad_request");
    let consumer = server.scoped(&tenant, &["queue:consume"]);
    consumer.put(&path("s"), json!({ "cron": "* * * * *", "job": job })).refused(403, "forbidden");
    put(&tenant, "s", json!({ "cron": "0 0 1 1 *", "job": job }));
    assert_eq!(consumer.get(&path("s")).expect(200).json()["name"], "s");
    server.tenant("schedule").get(&path("s")).refused(404, "not_found");
}

#[test]
fn nobody_is_opened_before_something_is_due() {
    let bed = Bed::new();
    let tenants: Vec<_> = (0..3).map(|_| bed.server.tenant("asleep")).collect();
    bed.go_to("2030-01-01T00:30:00Z", 0);
    for (hour, tenant) in (1..).zip(&tenants) {
        put(tenant, "s", json!({ "cron": format!("0 {hour} * * *"), "job": { "payload": 1 } }));
    }
    let mut bed = bed;
    bed.server.restart();
    bed.go_to("2030-01-01T02:00:00Z", 0);
    assert_eq!((fired(&tenants[0], 1).len(), fired(&tenants[1], 1).len()), (1, 1));
    let path = format!("/admin/v1/tenants/{}", tenants[2].id);
    assert_eq!(bed.server.admin().get(&path).expect(200).json()["tenant"]["open"], false);
}

#[test]
fn each_run_is_fired_once_wherever_the_server_is_killed() {
    let mut bed = Bed::new();
    let tenants: Vec<_> = (0..4).map(|_| bed.server.tenant("killed")).collect();
    bed.go_to("2030-01-01T00:30:00Z", 0);
    for tenant in &tenants {
        put(tenant, "hourly", json!({ "cron": "0 * * * *", "misfire": "all", "job": { "payload": 1 } }));
    }
    let kills: i64 = std::env::var("TENANTRY_KILLS").map_or(8, |kills| kills.parse().expect("TENANTRY_KILLS is a number"));
    let mut dice = Dice::new();
    let (mut calls, mut hits) = (0, 0);
    // In the first hour the calls are counted, and the kills of the others are spread over as many.
    for hour in 1..=1 + kills {
        let nth = 1 + ((hour - 1) as u64 * calls + dice.below(calls.max(1))) / (1 + kills) as u64;
        let error = if hour == 1 { 0 } else { KILL };
        bed.shim.set(&Rule { nth, ..Rule::new(ALL, "*@(app.db|tenant_queue_)*", error) });
        bed.go_to("2030-01-01T00:00:00Z", hour * HOUR_S);
        let all_fired = || {
            tenants.iter().all(|tenant| {
                let page = tenant.call("GET", "/v1/queues/q/jobs?state=ready&limit=1000").try_send();
                page.is_ok_and(|page| page.status == 200 && page.json()["jobs"].as_array().unwrap().len() as i64 >= hour)
            })
        };
        eventually("the server is killed or has fired", || (bed.shim.hits() > 0 || all_fired()).then_some(()));
        let (seen, hit) = bed.shim.clear();
        if hour == 1 {
            calls = seen;
        } else if hit > 0 {
            hits += 1;
            bed.server.ended();
            bed.server.start_again();
        }
    }
    let expected: Vec<_> = (1..=1 + kills)
        .map(|hour| tenantry::clock::rfc3339(parse_rfc3339("2030-01-01T00:00:00Z").unwrap() + hour * HOUR_S * 1_000))
        .collect();
    for tenant in &tenants {
        assert_eq!(fired(tenant, 1 + kills as usize), expected, "dice {}", dice.seed);
    }
    println!("{} tenants, {hits} of {kills} kills over {calls} calls: each run fired once", tenants.len());
    assert!(hits > 0, "it was killed, or this has shown nothing");
}

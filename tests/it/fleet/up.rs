//! Up: without a restart, canaries first, one failure alone, on after a kill.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::support::shim::*;

#[test]
fn new_migrations_reach_everybody_without_a_restart() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(8);
    tenants[0].sql("INSERT INTO notes (body) VALUES ('kept')", json!([])).expect(200);
    fleet.write_tags();
    let run = fleet.done(json!({ "kind": "up" }));
    assert_eq!((&run["state"], counts(&run)), (&json!("done"), (8, 0, 0)), "{run}");
    assert_eq!(fleet.versions(&tenants), [2; 8]);
    assert_eq!(tenants[0].rows("SELECT body, tag FROM notes", json!([])), json!([["kept", null]]));
    assert_eq!(fleet.version(&fleet.server.tenant("new")), 2, "new ones start with it");
    let waves = fleet.visits(&run, "done").iter().filter(|visit| visit["wave"] == 0).count();
    assert_eq!(waves, 3, "three canaries unless asked otherwise");
    let again = fleet.done(json!({ "kind": "up" }));
    assert_eq!(counts(&again), (9, 0, 0));
    assert!(fleet.visits(&again, "done").iter().all(|visit| visit["outcome"]["files"] == json!([])), "nothing was left to do");
    let audit = fleet.server.admin().get("/admin/v1/audit?action=migrations.run").expect(200).json();
    let outcomes: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(json!(outcomes), json!(["ok", "begun", "ok", "begun"]));
}

#[test]
fn waves_end_where_they_were_asked_to() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(20);
    let run = fleet.done(json!({ "kind": "validate", "canaries": 2, "waves": [10, 50] }));
    let visits = fleet.visits(&run, "done");
    let wave_of = |tenant: &TenantClient| visits.iter().find(|visit| visit["tenant_id"] == tenant.id).unwrap()["wave"].clone();
    let waves: Vec<_> = tenants.iter().map(wave_of).collect();
    assert_eq!(json!(waves), json!([0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3]), "canaries are spread");
    assert_eq!(run["wave"], 3);
}

#[test]
fn while_canaries_fail_everybody_else_is_served_as_before() {
    let mut fleet = Fleet::new();
    let tenants = fleet.tenants(6);
    tenants[2].script("CREATE TABLE tags (x)");
    fleet.write("0002_tags.up.sql", "CREATE TABLE tags (name TEXT) STRICT;");
    fleet.write("0002_tags.down.sql", "DROP TABLE tags;");
    let run = fleet.done(json!({ "kind": "up", "canary": [tenants[2].id] }));
    assert_eq!((&run["state"], counts(&run)), (&json!("halted"), (0, 1, 0)), "{run}");
    assert!(run["reason"].as_str().unwrap().contains("wave 0"), "{run}");
    let failed = &fleet.visits(&run, "failed")[0];
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(failed["slug"] == tenants[2].slug && message.contains("0002_tags") && message.contains("already exists"), "{failed}");
    assert_eq!(fleet.visits(&run, "waiting").len(), 5);
    // Not even a restart brings the migration to anybody, the canary included.
    for restarted in [false, true] {
        if restarted {
            fleet.server.restart();
        }
        for tenant in &tenants {
            tenant.rows("SELECT count(*) FROM notes", json!([]));
        }
        assert_eq!(fleet.versions(&tenants), [1; 6]);
        assert_eq!(fleet.version(&fleet.server.tenant("new")), 1);
    }
    // Once the cause is gone, a retry goes on with it and with those that were not reached.
    tenants[2].script("DROP TABLE tags");
    let output = fleet.server.cli(["migrate", "retry"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fleet.versions(&tenants), [2; 6]);
}

#[test]
fn one_tenant_s_failure_is_its_own() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(20);
    tenants[7].script("CREATE TABLE tags (x)");
    fleet.write("0002_more.up.sql", "ALTER TABLE notes ADD COLUMN more TEXT;");
    fleet.write("0002_more.down.sql", "ALTER TABLE notes DROP COLUMN more;");
    fleet.write("0003_tags.up.sql", "CREATE TABLE tags (name TEXT) STRICT;");
    fleet.write("0003_tags.down.sql", "DROP TABLE tags;");
    let run = fleet.done(json!({ "kind": "up", "canaries": 0, "waves": [], "max_failure_rate": 0.05 }));
    assert_eq!((&run["state"], counts(&run)), (&json!("done"), (19, 1, 0)), "{run}");
    assert_eq!(fleet.version(&tenants[7]), 1, "nothing of it, not even the step before");
    assert_eq!(tenants[6].rows("SELECT count(*) FROM tags", json!([])), json!([[0]]));
    tenants[7].sql("SELECT 1", json!([])).refused(503, "tenant_unavailable");
    let output = fleet.server.cli(["migrate", "retry"]);
    assert!(!output.status.success() && said(&output).contains(&tenants[7].slug), "{}", said(&output));

    // Held where it is, it is served, and can be mended.
    let output = fleet.server.cli(["migrate", "down", &tenants[7].slug, "--to", "1", "--yes"]);
    assert!(output.status.success(), "{}", said(&output));
    eventually("it is opened anew", || Some(tenants[7].sql("DROP TABLE tags", json!([]))).filter(|answer| answer.status == 200));
    let retried = fleet.server.admin().post(&format!("{RUNS}/{}/retry", run["id"].as_str().unwrap()), json!({})).expect(202).json();
    let retried = fleet.ended(retried["run"]["id"].as_str().unwrap());
    assert_eq!((retried["tenants"].as_u64(), counts(&retried)), (Some(1), (1, 0, 0)), "{retried}");
    assert_eq!(fleet.version(&tenants[7]), 3);
}

#[test]
fn a_wave_with_too_many_failures_is_the_last() {
    let mut fleet = Fleet::new();
    let tenants = fleet.tenants(20);
    for tenant in &tenants[..3] {
        tenant.script("CREATE TABLE tags (x)");
    }
    fleet.write("0002_tags.up.sql", "CREATE TABLE tags (name TEXT) STRICT;");
    let run = fleet.done(json!({ "kind": "up", "canaries": 0, "waves": [50], "max_failure_rate": 0.2, "parallel": 1 }));
    assert_eq!(run["state"], "halted", "{run}");
    assert_eq!(counts(&run), (0, 3, 0), "the third of ten is one too many");
    for restarted in [false, true] {
        if restarted {
            fleet.server.restart();
        }
        for tenant in &tenants {
            tenant.rows("SELECT count(*) FROM notes", json!([]));
        }
        assert_eq!(fleet.versions(&tenants), [1; 20], "and nobody else is brought up when opened; those that failed are served");
    }
}

const FILLED: &str = "CREATE TABLE filled (n INTEGER) STRICT;
    WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 10000) INSERT INTO filled SELECT n FROM c;";

/// Takes a while on tenants with many notes.
const SLOW_WITH_ROWS: &str = "CREATE TABLE filled (n INTEGER) STRICT; INSERT INTO filled SELECT a.id FROM notes a, notes b, notes c;";

fn fill(tenant: &TenantClient, notes: u32) {
    tenant.script(&format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {notes}) INSERT INTO notes (body) SELECT 'n' FROM c"
    ));
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let shim = Shim::new();
    let mut fleet = Fleet::with(|c| shim.under(c));
    let tenants = fleet.tenants(40);
    fleet.write("0002_filled.up.sql", FILLED);
    let id = fleet.begin(json!({ "kind": "up", "parallel": 2 }));
    for end in 0..5 {
        // Whoever is visited has his file flushed, so after five more flushes not everybody has been: neither before the
        // fifth of a kill, nor with those who are finished at a clean end, two of them or a few more before the signal is heard.
        let kills = end % 2 == 0;
        shim.set(&Rule { nth: 5, ..Rule::new(SYNC, "*/tenant_database_*", if kills { KILL } else { PAUSE }) });
        let mut told = 0;
        if kills {
            let path = format!("{RUNS}/{id}");
            eventually("it is killed", || match fleet.server.admin().call("GET", &path).try_send() {
                Ok(answer) => {
                    told = answer.expect(200).json()["run"]["done"].as_u64().unwrap();
                    None
                }
                Err(_) => Some(()),
            });
            fleet.server.ended();
        } else {
            eventually("it stands still", || (shim.hits() > 0).then_some(()));
            fleet.server.terminate();
            fleet.server.go_on();
            assert!(fleet.server.ended().success());
        }
        assert_eq!(shim.clear().1, 1);
        let reached = fleet.versions(&tenants).iter().filter(|&&version| version == 2).count() as u64;
        assert!((told..40).contains(&reached), "in the middle, and what was said to be done is done: {reached}, {told}");
        fleet.server.start_again();
    }
    let run = fleet.ended(&id);
    assert_eq!((&run["state"], counts(&run)), (&json!("done"), (40, 0, 0)), "{run}");
    assert_eq!(fleet.versions(&tenants), [2; 40]);
    for tenant in &tenants {
        assert_eq!(tenant.rows("SELECT count(*) FROM filled", json!([])), json!([[10_000]]), "once");
    }
}

#[test]
fn a_kill_while_the_canaries_are_tried_brings_nothing_to_the_others() {
    let mut fleet = Fleet::new();
    let tenants = fleet.tenants(4);
    fill(&tenants[0], 300);
    fleet.write("0002_slow.up.sql", SLOW_WITH_ROWS);
    let id = fleet.begin(json!({ "kind": "up", "canary": [tenants[0].id] }));
    fleet.server.kill9();
    // The run is taken up again, and is with its canary for a while.
    fleet.server.start_again();
    for tenant in &tenants[1..] {
        tenant.rows("SELECT count(*) FROM notes", json!([]));
    }
    assert_eq!(fleet.version(&fleet.server.tenant("new")), 1);
    assert_eq!((fleet.versions(&tenants[1..]), &fleet.run(&id)["wave"]), (vec![1; 3], &json!(0)));
    fleet.server.admin().post(&format!("{RUNS}/{id}/stop"), json!({})).expect(200);
}

#[test]
fn a_file_that_takes_too_long_is_stopped_and_left_as_it_was() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(1);
    fill(&tenants[0], 300);
    fleet.write("0002_slow.up.sql", SLOW_WITH_ROWS);
    let run = fleet.done(json!({ "kind": "up", "tenants": [tenants[0].id], "tenant_timeout_s": 1 }));
    let error = &fleet.visits(&run, "failed")[0]["error"];
    assert!(error["code"] == "statement_timeout" && error["hint"].as_str().unwrap().contains("tenant_timeout_s"), "{error}");
    assert_eq!(tenants[0].rows("SELECT count(*) FROM notes", json!([])), json!([[300]]));
    assert_eq!(fleet.version(&tenants[0]), 1);
}

#[test]
fn who_is_at_work_waits_and_is_not_refused() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(4);
    fleet.write_tags();
    let (over, began) = (AtomicBool::new(false), std::time::Instant::now());
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = tenants
            .iter()
            .map(|tenant| {
                let over = &over;
                scope.spawn(move || {
                    let mut written = 0;
                    while !over.load(Ordering::Relaxed) && began.elapsed() < 2 * SOON {
                        tenant.sql("INSERT INTO notes (body) VALUES ('x')", json!([])).expect(200);
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        eventually("all are at work", || {
            tenants.iter().all(|tenant| tenant.rows("SELECT count(*) FROM notes", json!([]))[0][0].as_i64() > Some(3)).then_some(())
        });
        let run = fleet.done(json!({ "kind": "up" }));
        over.store(true, Ordering::Relaxed);
        assert_eq!(counts(&run), (4, 0, 0), "{run}");
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<i64>>()
    });
    for (tenant, written) in tenants.iter().zip(written) {
        assert_eq!(tenant.rows("SELECT count(*), count(tag) FROM notes", json!([])), json!([[written, 0]]));
    }
}

#[test]
fn there_is_one_run_at_a_time_and_it_can_be_stopped() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(40);
    fleet.write(
        "0002_slow.up.sql",
        "CREATE TABLE filled (n INTEGER) STRICT;
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50000) INSERT INTO filled SELECT n FROM c;",
    );
    let id = fleet.begin(json!({ "kind": "up", "parallel": 1 }));
    let refused = fleet.server.admin().post(RUNS, json!({ "kind": "validate" })).refused(409, "conflict");
    assert_eq!(refused["details"]["run_id"], id);
    fleet.server.admin().post(&format!("{RUNS}/{id}/retry"), json!({})).refused(409, "conflict");
    let output = fleet.server.cli(["migrate", "stop"]);
    assert!(output.status.success() && said(&output).contains("stopped"), "{}", said(&output));
    let run = fleet.run(&id);
    assert!(run["state"] == "stopped" && counts(&run).0 < 40, "{run}");
    fleet.server.admin().post(&format!("{RUNS}/{id}/stop"), json!({})).refused(409, "conflict");
    let output = fleet.server.cli(["migrate", "retry", &id]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fleet.versions(&tenants), [2; 40]);
}

#[test]
fn named_tenants_go_ahead_of_the_fleet() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(3);
    fleet.write_tags();
    let output = fleet.server.cli(["migrate", "up", &tenants[1].slug, "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts(&run["run"]), (1, 0, 0));
    for tenant in &tenants {
        tenant.rows("SELECT count(*) FROM notes", json!([]));
    }
    assert_eq!(fleet.versions(&tenants), [1, 2, 1]);
    let status = said(&fleet.server.cli(["migrate", "status"]));
    assert!(status.contains("not in force"), "{status}");
}

#[test]
fn what_cannot_be_is_said_before_anything_begins() {
    let fleet = Fleet::new();
    fleet.tenants(1);
    let admin = fleet.server.admin();
    let refused = |wish: Value, status: u16, says: &str| {
        let error = admin.post(RUNS, wish.clone()).expect(status).json();
        assert!(error.to_string().contains(says), "{wish}: {error}");
    };
    refused(json!({ "kind": "up", "to": 7 }), 400, "newest");
    refused(json!({ "kind": "down" }), 400, "`to`");
    refused(json!({ "kind": "sideways" }), 400, "kind");
    refused(json!({ "kind": "up", "tenants": [uuid::Uuid::nil()] }), 404, "no tenant");
    fleet.write("0002_broken.up.sql", "CREATE TABLE x (; ");
    refused(json!({ "kind": "up" }), 400, "0002_broken fails on an empty database");
    fleet.write("0002_broken.up.sql", "SELECT 1;");
    fleet.write("0001_notes.up.sql", "CREATE TABLE notes (id);");
    refused(json!({ "kind": "up" }), 409, "0001_notes was changed");
    assert_eq!(admin.get(RUNS).expect(200).json()["runs"], json!([]));
    fleet.server.tenant("t").post(RUNS, json!({ "kind": "up" })).refused(403, "forbidden");
    admin.get(&format!("{RUNS}/{}", uuid::Uuid::nil())).refused(404, "not_found");
    admin.get(&format!("{RUNS}/x")).refused(400, "bad_request");
}

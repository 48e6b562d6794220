//! Disks that fail: `EIO` and `ENOSPC` on the Nth write, flush, truncation or open of a tenant's database and its
//! log, a disk that stays broken, one that is full, and memory that runs out. What holds: an acknowledged write is
//! there; one that was refused is not; one answered `unknown` is there or not, and stays so; the file is whole; the
//! tenant is served again once the fault has gone; and the neighbour never notices.

use std::collections::BTreeSet;

use crate::support::shim::*;
use crate::support::*;

/// What a tenant's client knows after some writes to `t`.
#[derive(Default)]
struct Known {
    acknowledged: BTreeSet<i64>,
    refused: BTreeSet<i64>,
    unknown: BTreeSet<i64>,
}

impl Known {
    fn learn(&mut self, x: i64, answer: &Answer, case: &str) {
        let code = if answer.status == 200 { Value::Null } else { answer.json()["code"].clone() };
        match (answer.status, code.as_str()) {
            (200, _) => self.acknowledged.insert(x),
            (500, Some("unknown")) => self.unknown.insert(x),
            (503, Some("tenant_unavailable" | "overloaded")) => self.refused.insert(x),
            _ => panic!("{case}: {} {}", answer.status, answer.text()),
        };
    }

    /// What is wrong with the rows that are there.
    fn contradicted(&self, there: &BTreeSet<i64>) -> Option<String> {
        let lost: Vec<_> = self.acknowledged.difference(there).collect();
        let appeared: Vec<_> = self.refused.intersection(there).collect();
        (!lost.is_empty() || !appeared.is_empty()).then(|| format!("lost {lost:?}, refused and there {appeared:?}"))
    }
}

fn rows(tenant: &TenantClient) -> BTreeSet<i64> {
    let rows = tenant.rows("SELECT x FROM t", json!([]));
    rows.as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect()
}

fn insert(tenant: &TenantClient, x: i64) -> Answer {
    tenant.sql("INSERT INTO t VALUES (?1, randomblob(3000))", json!([x]))
}

/// Whether the row is there, once that can be read.
fn found(tenant: &TenantClient, x: i64) -> Option<bool> {
    let answer = tenant.sql("SELECT count(*) FROM t WHERE x = ?1", json!([x]));
    (answer.status == 200).then(|| answer.json()["results"][0]["rows"] == json!([[1]]))
}

/// Serves again, within a few seconds of the fault's end.
fn heals(tenant: &TenantClient, known: &mut Known) {
    eventually("the tenant is served again", || {
        let x = 100_000 + known.refused.len() as i64;
        let answer = insert(tenant, x);
        known.learn(x, &answer, "after the fault");
        (answer.status == 200).then_some(())
    });
}

/// `TENANTRY_FAULTS=40` goes deeper: up to the fortieth call of each kind.
#[test]
fn a_fault_at_any_call_is_told_and_heals() {
    let deepest: u64 = std::env::var("TENANTRY_FAULTS").map_or(4, |faults| faults.parse().expect("TENANTRY_FAULTS is a number"));
    let shim = Shim::new();
    let mut server = Server::with(|c| {
        // So that checkpoints fall between the writes.
        c.set("sqlite.checkpoint_bytes", 40_000);
        shim.under(c);
    });
    let neighbour = server.tenant("neighbour");
    neighbour.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
    let mut cases = Vec::new();
    let (mut faults, mut idle) = (0, 0);
    for (operations, files) in [(WRITE, "-wal"), (SYNC, "-wal"), (WRITE, ""), (SYNC, ""), (OPEN, "*"), (WRITE | TRUNCATE, "-shm")] {
        for error in [EIO, ENOSPC] {
            for nth in 1..=deepest {
                let tenant = server.tenant("faulty");
                let case = format!("operations {operations} of …sqlite{files}, error {error}, call {nth}");
                tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
                let pattern = format!("*/tenant_database_{}.sqlite{files}", tenant.id);
                let (mut known, mut found_out) = (Known::default(), Vec::new());
                if operations & OPEN != 0 {
                    // Closed, so that the next use opens it.
                    let path = format!("/admin/v1/tenants/{}", tenant.id);
                    server.admin().patch(&path, json!({ "state": "suspended" })).expect(200);
                    server.admin().patch(&path, json!({ "state": "active" })).expect(200);
                }
                shim.set(&Rule { nth, torn: nth % 2 == 0, ..Rule::new(operations, pattern, error) });
                for round in 0..4 {
                    let answers = at_once(3, |i| {
                        let x = round * 10 + i as i64;
                        let answer = insert(&tenant, x);
                        // Who was told `unknown` reads to find out; what he reads is what stays.
                        let found = (answer.status == 500).then(|| eventually("it can be read", || found(&tenant, x)));
                        (x, answer, found)
                    });
                    for (x, answer, found) in answers {
                        known.learn(x, &answer, &case);
                        found_out.extend(found.map(|found| (x, found)));
                    }
                }
                insert(&neighbour, cases.len() as i64).expect(200);
                let (_, hits) = shim.clear();
                faults += hits;
                idle += u64::from(hits == 0);
                heals(&tenant, &mut known);
                let there = rows(&tenant);
                assert_eq!(known.contradicted(&there), None, "{case}");
                for (x, found) in found_out {
                    assert_eq!(there.contains(&x), found, "{case}: {x} was read right after `unknown`, and then it changed");
                }
                cases.push((case, tenant, known, there));
            }
        }
    }
    server.kill9();
    server.start_again();
    for (case, tenant, known, there) in &cases {
        assert_eq!(&rows(tenant), there, "{case}: what was read after the fault is not what is there after kill -9");
        assert_eq!(known.contradicted(there), None, "{case}");
    }
    assert_eq!(rows(&neighbour).len(), cases.len());
    server.stop();
    let checked = check_files(server.dir());
    let count = |of: fn(&Known) -> usize| cases.iter().map(|(_, _, known, _)| of(known)).sum::<usize>();
    println!(
        "{faults} faults in {} cases ({idle} without one): {} writes acknowledged, 0 lost; {} refused, 0 of them there; {} unknown; \
         {checked} files, 0 integrity failures",
        cases.len(),
        count(|known| known.acknowledged.len()),
        count(|known| known.refused.len()),
        count(|known| known.unknown.len()),
    );
}

#[test]
fn an_unknown_outcome_is_settled_by_its_key() {
    let shim = Shim::new();
    let server = Server::with(|c| shim.under(c));
    let admin = server.admin();
    let (mut unknown, mut kept) = (0, 0);
    for (operations, nth) in [(SYNC, 1), (SYNC, 2), (WRITE, 1), (WRITE, 3), (WRITE, 5)] {
        let tenant = server.tenant("keyed");
        tenant.script("CREATE TABLE t (x)");
        let post = || {
            let body = json!({ "statements": [{ "sql": "INSERT INTO t VALUES (1)" }] });
            tenant.call("POST", "/v1/sql").idempotency_key("k").json(&body).send()
        };
        shim.set(&Rule { nth, ..Rule::new(operations, format!("*/tenant_database_{}.sqlite-wal", tenant.id), EIO) });
        let first = post();
        if first.status != 200 {
            unknown += 1;
            first.refused(500, "unknown");
        }
        shim.clear();
        let again = eventually("the file is opened again", || Some(post()).filter(|answer| answer.status != 503)).expect(200);
        kept += u64::from(again.header("idempotent-replayed").is_some());
        assert_eq!(tenant.rows("SELECT count(*) FROM t", json!([])), json!([[1]]), "once");

        // The same of a tenant that is provisioned: the row is in app.db.
        let slug = unique("keyed-born");
        let provision = || {
            let body = json!({ "slug": slug, "name": "Keyed" });
            admin.call("POST", "/admin/v1/tenants").idempotency_key(&slug).json(&body).send()
        };
        shim.set(&Rule { nth, ..Rule::new(operations, "*/system/app.db-wal", EIO) });
        let first = provision();
        assert!([201, 500, 503].contains(&first.status), "{} {}", first.status, first.text());
        shim.clear();
        let made = eventually("provisioned", || Some(provision()).filter(|answer| answer.status == 201));
        server.tenant_of(&made.json()).script("CREATE TABLE t (x)");
        let listed = admin.get(&format!("/admin/v1/tenants?slug={slug}")).expect(200).json();
        assert_eq!(listed["tenants"].as_array().unwrap().len(), 1, "{listed}");
    }
    assert!(unknown > 0, "no fault fell on a commit");
    println!("{unknown} commits ended unknown; of all, {kept} had happened and were answered from their key, none twice");
}

/// A log that was just made has its entry flushed with its first commit: without it a power cut takes the whole log.
#[test]
fn a_commit_whose_logs_folder_cannot_be_flushed_is_not_acknowledged() {
    let shim = Shim::new();
    let mut server = Server::with(|c| shim.under(c));
    let mut tenants = Vec::new();
    for times in [1, 2, u64::MAX] {
        let tenant = server.tenant("folder");
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
        let mut known = Known::default();
        known.learn(1, &insert(&tenant, 1).expect(200), "before");
        for state in ["suspended", "active"] {
            server.admin().patch(&format!("/admin/v1/tenants/{}", tenant.id), json!({ "state": state })).expect(200);
        }
        shim.set(&Rule { times, ..Rule::new(SYNC, format!("*/{}", tenant.id), EIO) });
        let first = insert(&tenant, 2);
        known.learn(2, &first, "the folder fails");
        first.refused(500, "unknown");
        // As long as it fails, nothing more is taken for kept.
        if times == u64::MAX {
            known.learn(3, &insert(&tenant, 3), "it still fails");
            assert_eq!(known.acknowledged.len(), 1, "{:?}", known.acknowledged);
        }
        let (_, hits) = shim.clear();
        assert!((1..=times).contains(&hits), "{hits} of {times}");
        heals(&tenant, &mut known);
        assert_eq!(known.contradicted(&rows(&tenant)), None, "{times} times");
        tenants.push((tenant, known));
    }
    server.kill9();
    server.start_again();
    for (tenant, known) in &tenants {
        assert_eq!(known.contradicted(&rows(tenant)), None);
    }
    server.stop();
    check_files(server.dir());
}

#[test]
fn a_disk_that_stays_broken_is_its_tenants_trouble_alone() {
    let shim = Shim::new();
    let server = Server::with(|c| shim.under(c));
    let (broken, fine) = (server.tenant("broken"), server.tenant("fine"));
    for tenant in [&broken, &fine] {
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB); INSERT INTO t VALUES (1, NULL);");
    }
    let mut known = Known::default();
    shim.set(&Rule { times: u64::MAX, ..Rule::new(SYNC | WRITE, format!("*/tenant_database_{}.sqlite*", broken.id), EIO) });
    let failed = || server.admin().get("/admin/v1/health").expect(200).text().contains(&broken.id);
    let mut x = 10;
    eventually("it shows in health", || {
        x += 1;
        known.learn(x, &insert(&broken, x), "a broken disk");
        insert(&fine, x).expect(200);
        failed().then_some(())
    });
    assert!(known.acknowledged.is_empty(), "{:?}", known.acknowledged);
    broken.sql("SELECT x FROM t", json!([])).refused(503, "tenant_unavailable");
    server.anyone().get("/readyz").expect(200);
    shim.clear();
    heals(&broken, &mut known);
    assert!(!failed(), "served again, and not shown as failed");
    let there = rows(&broken);
    assert!(there.contains(&1), "{there:?}");
    assert_eq!(known.contradicted(&there), None);
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(disk) = Disk::tmpfs(24 << 20) else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    let mut server = Server::with(|c| {
        c.dir(&disk.path().join("data"));
    });
    let tenants = [server.tenant("full"), server.tenant("fuller")];
    let mut known = [Known::default(), Known::default()];
    for tenant in &tenants {
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
    }
    let mut write = |x: i64| {
        let which = x as usize % 2;
        let answer = tenants[which].sql("INSERT INTO t VALUES (?1, randomblob(20000))", json!([x]));
        known[which].learn(x, &answer, "a full disk");
        answer.status
    };
    let full = (0..20_000).find(|&x| write(x) != 200).expect("the disk is full at last");
    for x in full + 1..full + 40 {
        write(x);
    }
    let told = tenants[0].sql("INSERT INTO t VALUES (1000000, randomblob(20000))", json!([]));
    assert!(told.status == 503 && told.header("retry-after").is_some(), "{} {}", told.status, told.text());
    assert!(told.text().contains("disk is full"), "{}", told.text());
    // What is there is read; a tenant that cannot be made is not half made.
    for (tenant, known) in tenants.iter().zip(&known) {
        assert_eq!(known.contradicted(&rows(tenant)), None);
    }
    let refused = (0..50).map(|_| server.admin().post("/admin/v1/tenants", json!({ "slug": unique("late"), "name": "Late" })));
    let refused = refused.into_iter().find(|answer| answer.status != 201).expect("no room for another tenant");
    refused.refused(503, "overloaded");
    // It starts on a full disk too.
    server.kill9();
    server.start_again();
    for (tenant, known) in tenants.iter().zip(&known) {
        assert_eq!(known.contradicted(&rows(tenant)), None, "after kill -9 on a full disk");
    }
    std::fs::remove_file(&ballast).unwrap();
    for (tenant, known) in tenants.iter().zip(&mut known) {
        heals(tenant, known);
        assert_eq!(known.contradicted(&rows(tenant)), None, "with room again");
    }
    server.tenant("after");
    server.stop();
    let checked = check_files(server.dir());
    let count = |of: fn(&Known) -> usize| known.iter().map(of).sum::<usize>();
    println!(
        "a full disk after {full} writes: {} acknowledged, 0 lost; {} refused, 0 of them there; {} unknown; {checked} files, 0 integrity failures",
        count(|known| known.acknowledged.len()),
        count(|known| known.refused.len()),
        count(|known| known.unknown.len()),
    );
}

/// Whatever the allocator's answer does to the process (SQLite reports it, Rust's own structures end the process),
/// nothing that was acknowledged goes with it.
#[test]
fn memory_that_runs_out_loses_nothing() {
    let mut server = Server::with(|c| {
        // Neither a bound of its own nor its time stops who takes all there is.
        c.set("sqlite.statement_memory_bytes", 0).set("plans.default.statement_ms", 3_600_000);
    });
    let (greedy, careful) = (server.tenant("greedy"), server.tenant("careful"));
    careful.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
    let size = memory(&server, "VmSize");
    let pid = rustix::process::Pid::from_raw(server.pid() as i32).unwrap();
    let limit = rustix::process::Rlimit { current: Some(size + (160 << 20)), maximum: None };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::As, limit).unwrap();
    let hoard = "WITH RECURSIVE c(x, b) AS (SELECT 1, randomblob(4000000) UNION SELECT x + 1, randomblob(4000000) FROM c LIMIT 200)
        SELECT count(*) FROM c";
    let mut known = Known::default();
    let (short, gone) = std::thread::scope(|scope| {
        let hoards: Vec<_> = (0..4)
            .map(|_| {
                let call = greedy.call("POST", "/v1/sql").json(&json!({ "statements": [{ "sql": hoard }] }));
                scope.spawn(|| call.try_send().map(|answer| answer.status))
            })
            .collect();
        for x in 0.. {
            let body = json!({ "statements": [{ "sql": "INSERT INTO t VALUES (?1, randomblob(3000))", "params": [x] }] });
            match careful.call("POST", "/v1/sql").json(&body).try_send() {
                Ok(answer) => known.learn(x, &answer, "short of memory"),
                Err(_) => break,
            }
            if hoards.iter().all(|hoard| hoard.is_finished()) {
                break;
            }
        }
        let ends: Vec<_> = hoards.into_iter().map(|hoard| hoard.join().unwrap()).collect();
        (ends.iter().filter(|end| matches!(end, Ok(503))).count(), ends.iter().filter(|end| end.is_err()).count())
    });
    assert!(short + gone > 0, "memory did not run out");
    if gone > 0 {
        server.ended();
    } else {
        server.kill9();
    }
    server.start_again();
    assert_eq!(known.contradicted(&rows(&careful)), None);
    assert_eq!(greedy.rows("SELECT 1", json!([])), json!([[1]]));
    server.stop();
    println!(
        "memory ran out: {short} statements refused, {gone} without an answer; the neighbour's {} acknowledged writes are there; {} files, 0 integrity failures",
        known.acknowledged.len(),
        check_files(server.dir()),
    );
}

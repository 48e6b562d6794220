//! Disks that fail: `EIO` and `ENOSPC` on the Nth write, flush, truncation or open of a tenant's database and its
//! log, a disk that stays broken, one that is full, and memory that runs out. What holds: an acknowledged write is
//! there; one that was refused is not; one answered `unknown` is there or not, and stays so; the file is whole; the
//! tenant is served again once the fault has gone; and the neighbour never notices.

pub mod shim;

use std::collections::BTreeSet;

use crate::support::*;
use shim::*;

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

/// Serves again, within a few seconds of the fault's end.
fn heals(tenant: &TenantClient, known: &mut Known) {
    eventually("the tenant is served again", || {
        let x = 1000 + known.refused.len() as i64;
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
                let mut known = Known::default();
                if operations & OPEN != 0 {
                    // Closed, so that the next use opens it.
                    let path = format!("/admin/v1/tenants/{}", tenant.id);
                    server.admin().patch(&path, json!({ "state": "suspended" })).expect(200);
                    server.admin().patch(&path, json!({ "state": "active" })).expect(200);
                }
                shim.set(&Rule { nth, torn: nth % 2 == 0, ..Rule::new(operations, pattern, error) });
                for round in 0..4 {
                    let answers = at_once(3, |i| insert(&tenant, round * 10 + i as i64));
                    answers.iter().zip(0..).for_each(|(answer, i)| known.learn(round * 10 + i, answer, &case));
                }
                insert(&neighbour, cases.len() as i64).expect(200);
                let (_, hits) = shim.clear();
                faults += hits;
                idle += u64::from(hits == 0);
                heals(&tenant, &mut known);
                let there = rows(&tenant);
                assert_eq!(known.contradicted(&there), None, "{case}");
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

//! `kill -9` at a chosen point: the process dies just before the Nth system call that changes a file of the stage
//! (see `support/shim.rs`). Each stage is run once to count its calls; the points then spread over them.
//! `TENANTRY_KILLS=60` takes as many points of each stage.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};

use super::half_provisioned;
use crate::support::shim::*;
use crate::support::*;

/// What the points of a stage came to.
#[derive(Default)]
struct Figures {
    calls: u64,
    kills: u64,
    acknowledged: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} kills over {} calls, {} acknowledged, 0 lost", self.kills, self.calls, self.acknowledged)
    }
}

struct Stage<'a> {
    shim: &'a Shim,
    dice: Dice,
    points: u64,
    figures: Figures,
}

impl<'a> Stage<'a> {
    fn new(shim: &'a Shim) -> Stage<'a> {
        let points = std::env::var("TENANTRY_KILLS").map_or(6, |kills| kills.parse().expect("TENANTRY_KILLS is a number"));
        Stage { shim, dice: Dice::new(), points, figures: Figures::default() }
    }

    /// The rule for point `at`; the first only counts.
    fn set(&mut self, at: u64, pattern: &str) {
        let count = at == 0;
        let calls = self.figures.calls.max(1);
        let nth = if count { 1 } else { 1 + ((at - 1) * calls + self.dice.below(calls)) / self.points };
        self.shim.set(&Rule { nth, ..Rule::new(ALL, pattern, if count { 0 } else { KILL }) });
    }

    /// After the stage has run: whether the server was killed in it; it runs again.
    fn settle(&mut self, at: u64, server: &mut Server) -> bool {
        let (seen, hits) = self.shim.clear();
        if at == 0 {
            assert!(seen > 0, "no call of this stage was seen");
            self.figures.calls = seen;
        }
        if hits == 0 {
            return false;
        }
        self.figures.kills += 1;
        server.ended();
        server.start_again();
        true
    }
}

fn served(answer: Result<Answer, ureq::Error>) -> Option<Answer> {
    answer.ok().map(Answer::succeeds)
}

fn insert(tenant: &TenantClient, x: i64) -> Option<Answer> {
    let body = json!({ "statements": [{ "sql": "INSERT INTO t VALUES (?1, randomblob(3000))", "params": [x] }] });
    served(tenant.call("POST", "/v1/sql").json(&body).try_send())
}

#[track_caller]
fn holds(tenant: &TenantClient, acknowledged: &BTreeSet<i64>) {
    let rows = tenant.rows("SELECT x FROM t", json!([]));
    let there: BTreeSet<_> = rows.as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect();
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "{}: {lost:?} acknowledged and lost", tenant.slug);
    assert_eq!(tenant.rows("PRAGMA integrity_check", json!([])), json!([["ok"]]), "{}", tenant.slug);
}

#[test]
fn killed_at_any_call_of_a_commit_a_checkpoint_or_a_close() {
    let shim = Shim::new();
    let mut server = Server::with(|c| {
        c.set("sqlite.checkpoint_bytes", 40_000);
        shim.under(c);
    });
    for (stage_name, files) in [("group commit", "-wal"), ("checkpoint and close", "")] {
        let mut stage = Stage::new(&shim);
        for at in 0..=stage.points {
            let tenant = server.tenant("stage");
            tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
            let mut acknowledged = BTreeSet::new();
            stage.set(at, &format!("*/tenant_database_{}.sqlite{files}", tenant.id));
            for round in 0..5 {
                let answers = at_once(4, |i| insert(&tenant, round * 10 + i as i64));
                acknowledged.extend(answers.iter().zip(round * 10..).filter(|(answer, _)| answer.is_some()).map(|(_, x)| x));
            }
            let path = format!("/admin/v1/tenants/{}", tenant.id);
            let set = |state: &str| served(server.admin().call("PATCH", &path).json(&json!({ "state": state })).try_send());
            let closed = set("suspended").is_some();
            let killed = stage.settle(at, &mut server);
            assert!(closed || killed, "{stage_name}: suspended, or dead");
            server.admin().patch(&path, json!({ "state": "active" })).expect(200);
            stage.figures.acknowledged += acknowledged.len() as u64;
            holds(&tenant, &acknowledged);
        }
        println!("killed in {stage_name}: {}", stage.figures);
    }
    server.stop();
    check_files(server.dir());
}

#[test]
fn killed_at_any_call_of_an_eviction() {
    let shim = Shim::new();
    let mut server = Server::with(|c| {
        c.set("sqlite.descriptors", 60);
        shim.under(c);
    });
    let others: Vec<_> = (0..24).map(|_| server.tenant("other")).collect();
    let mut stage = Stage::new(&shim);
    for at in 0..=stage.points {
        let tenant = server.tenant("evicted");
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
        let acknowledged: BTreeSet<_> = (0..5).filter(|&x| insert(&tenant, x).is_some()).collect();
        stage.set(at, &format!("*/tenant_database_{}.sqlite*", tenant.id));
        let read = json!({ "statements": [{ "sql": "SELECT 1" }] });
        for other in &others {
            if other.call("POST", "/v1/sql").json(&read).try_send().is_err() {
                break;
            }
        }
        stage.settle(at, &mut server);
        stage.figures.acknowledged += acknowledged.len() as u64;
        holds(&tenant, &acknowledged);
    }
    println!("killed in eviction: {}", stage.figures);
    server.stop();
    check_files(server.dir());
}

#[test]
fn killed_at_any_call_of_provisioning_deleting_or_purging() {
    let shim = Shim::new();
    let mut server = Server::with(|c| shim.under(c));
    let pattern = "*/@(system/app.db*|[0-9a-f][0-9a-f]/*|[0-9a-f][0-9a-f]|trash*)";
    let mut made = BTreeMap::new();
    let mut stage = Stage::new(&shim);
    for at in 0..=stage.points {
        let slug = unique("born");
        let body = json!({ "slug": slug, "name": "Born" });
        let provision = |server: &Server| server.admin().call("POST", "/admin/v1/tenants").idempotency_key(&slug).json(&body).try_send();
        stage.set(at, pattern);
        let first = served(provision(&server)).map(|answer| server.tenant_of(&answer.json()));
        stage.settle(at, &mut server);
        if let Some(tenant) = &first {
            stage.figures.acknowledged += 1;
            made.insert(tenant.slug.clone(), tenant.id.clone());
        }
        assert_eq!(half_provisioned(&server, &made), [""; 0], "killed before call {at} of provisioning");
        let tenant = server.tenant_of(&provision(&server).unwrap().expect(201).json());
        assert!(first.is_none_or(|first| first.id == tenant.id), "the key's tenant is the one that was acknowledged");
        made.insert(tenant.slug.clone(), tenant.id.clone());
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB); INSERT INTO t VALUES (7, NULL);");
    }
    println!("killed in provisioning: {}", stage.figures);

    let (mut deleting, mut purging) = (Stage::new(&shim), Stage::new(&shim));
    for at in 0..=deleting.points {
        let tenant = server.tenant("gone");
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB); INSERT INTO t VALUES (7, NULL);");
        let path = format!("/admin/v1/tenants/{}", tenant.id);
        let state = |server: &Server| server.admin().get(&path).expect(200).json()["tenant"]["state"].as_str().unwrap().to_owned();

        deleting.set(at, pattern);
        let acknowledged = served(server.admin().call("DELETE", &path).try_send()).is_some();
        deleting.settle(at, &mut server);
        deleting.figures.acknowledged += u64::from(acknowledged);
        match state(&server).as_str() {
            "deleted" => server.admin().post(&format!("{path}/undelete"), json!({})).succeeds(),
            "active" if !acknowledged => server.admin().get(&path),
            other => panic!("{}: {other} after a deletion (acknowledged: {acknowledged})", tenant.slug),
        };
        holds(&tenant, &BTreeSet::from([7]));

        server.admin().delete(&path).succeeds();
        purging.set(at, pattern);
        let purge = || server.admin().call("POST", &format!("{path}/purge")).json(&json!({})).try_send();
        let acknowledged = served(purge()).is_some();
        purging.settle(at, &mut server);
        purging.figures.acknowledged += u64::from(acknowledged);
        let row = server.admin().get(&path);
        if row.status == 200 && row.json()["tenant"]["state"] == "deleted" {
            assert!(!acknowledged, "{}: purged, and in the trash", tenant.slug);
            server.admin().post(&format!("{path}/undelete"), json!({})).succeeds();
            holds(&tenant, &BTreeSet::from([7]));
        } else {
            let left: Vec<_> = server.files().into_iter().filter(|file| file.contains(&tenant.id)).collect();
            assert!(left.is_empty(), "purged, and {left:?} is left");
        }
    }
    println!("killed in deleting: {}", deleting.figures);
    println!("killed in purging: {}", purging.figures);
    server.stop();
    check_files(server.dir());
}

#[test]
fn killed_at_any_call_of_a_migration() {
    let shim = Shim::new();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("0001_notes.up.sql", "CREATE TABLE t (x INTEGER PRIMARY KEY, pad TEXT);");
    write("0001_notes.down.sql", "DROP TABLE t;");
    let mut server = Server::with(|c| {
        c.set("tenants.migrations_dir", folder.path().display());
        shim.under(c);
    });
    let mut stage = Stage::new(&shim);
    let tenants: Vec<_> = (0..=stage.points).map(|_| server.tenant("migrated")).collect();
    for tenant in &tenants {
        tenant.script(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100) INSERT INTO t SELECT x, hex(randomblob(50)) FROM c",
        );
    }
    server.stop();
    write(
        "0002_rebuilt.up.sql",
        "CREATE TABLE r (x INTEGER PRIMARY KEY, pad TEXT NOT NULL, size INTEGER) STRICT; INSERT INTO r SELECT x, pad, length(pad) FROM t; DROP TABLE t; ALTER TABLE r RENAME TO t;",
    );
    write("0002_rebuilt.down.sql", "ALTER TABLE t DROP COLUMN size;");
    write("0003_index.up.sql", "CREATE INDEX by_size ON t (size);");
    write("0003_index.down.sql", "DROP INDEX by_size;");
    server.start_again();
    for (at, tenant) in (0..).zip(&tenants) {
        stage.set(at, &format!("*/tenant_database_{}.sqlite*", tenant.id));
        let body = json!({ "statements": [{ "sql": "SELECT count(*) FROM t" }] });
        let answered = served(tenant.call("POST", "/v1/sql").json(&body).try_send()).is_some();
        stage.settle(at, &mut server);
        stage.figures.acknowledged += u64::from(answered);
        let whole = "SELECT count(*), min(size), (SELECT count(*) FROM sqlite_schema WHERE name = 'by_size') FROM t";
        assert_eq!(tenant.rows(whole, json!([])), json!([[100, 100, 1]]), "{}", tenant.slug);
        holds(tenant, &(1..=100).collect());
    }
    println!("killed in a migration: {}", stage.figures);
    server.stop();
    check_files(server.dir());
}

/// Killed again while it recovers from having been killed.
#[test]
fn killed_at_any_call_of_a_start() {
    let shim = Shim::new();
    let mut server = Server::with(|c| shim.under(c));
    let tenant = server.tenant("restarted");
    tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
    let mut acknowledged = BTreeSet::new();
    let mut stage = Stage::new(&shim);
    let pattern = format!("{}/*", server.dir().display());
    for at in 0..=stage.points {
        let x = at as i64;
        insert(&tenant, x).expect("it runs");
        acknowledged.insert(x);
        let going = server.tenant("going");
        server.admin().delete(&format!("/admin/v1/tenants/{}", going.id)).succeeds();
        server.kill9();
        stage.set(at, &pattern);
        // Until it listens, or is killed.
        let mut child = server.command().spawn().unwrap();
        let first = BufReader::new(child.stdout.take().unwrap()).lines().next();
        let (seen, hits) = shim.clear();
        stage.figures.calls = if at == 0 { seen } else { stage.figures.calls };
        stage.figures.kills += hits;
        assert!(first.is_some() || hits > 0, "neither listening nor killed");
        child.kill().unwrap();
        child.wait().unwrap();
        server.start_again();
        holds(&tenant, &acknowledged);
    }
    stage.figures.acknowledged = acknowledged.len() as u64;
    println!("killed in a start: {}", stage.figures);
    server.stop();
    check_files(server.dir());
}

//! `kill -9` at any moment, under writes to several tenants and while tenants are provisioned. After each
//! restart: every acknowledged write is there, a write that was repeated under its idempotency key is there
//! once, and a provisioned tenant is there whole or not at all. `TENANTRY_KILLS=200` kills more often.

mod points;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tenantry::queue::JobId;

use crate::support::shim::*;
use crate::support::*;

const WRITERS: usize = 6;
const TENANTS: usize = 5;

/// What the clients know, and the server must too.
#[derive(Default)]
struct Ledger {
    /// Rows of `t` by tenant, acknowledged.
    rows: BTreeMap<String, BTreeSet<i64>>,
    /// The ids of jobs acknowledged, by tenant.
    jobs: BTreeMap<String, BTreeSet<String>>,
    /// Writes under an idempotency key that got no answer: (tenant's index, key, x).
    open: Vec<(usize, String, i64)>,
    /// Rows of `once`: written under keys, each exactly once.
    once: BTreeMap<String, BTreeSet<i64>>,
    /// Provisioned: slug → id.
    made: BTreeMap<String, String>,
    /// Slugs asked for, answered or not.
    asked: BTreeSet<String>,
    unanswered: u64,
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let kills: u32 = std::env::var("TENANTRY_KILLS").map_or(10, |kills| kills.parse().expect("TENANTRY_KILLS is a number"));
    let begun = Instant::now();
    let mut server = Server::start();
    let tenants: Vec<_> = (0..TENANTS).map(|_| server.tenant("crash")).collect();
    for tenant in &tenants {
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB); CREATE TABLE once (x INTEGER);");
    }
    let ledger = Mutex::new(Ledger::default());
    let next = AtomicI64::new(1);
    let mut dice = Dice::new();
    let mut slowest_start = Duration::ZERO;
    for kill in 1..=kills {
        let moment = Duration::from_millis(dice.below(400));
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (tenants, ledger, next) = (&tenants, &ledger, &next);
                scope.spawn(move || write(writer, tenants, ledger, next));
            }
            for _ in 0..2 {
                let (server, ledger) = (server.admin(), &ledger);
                scope.spawn(move || provision(&server, ledger));
            }
            std::thread::sleep(moment);
            server.kill9();
        });
        let starting = Instant::now();
        server.start_again();
        slowest_start = slowest_start.max(starting.elapsed());
        let mut ledger = ledger.lock().unwrap();
        repeat(&tenants, &mut ledger);
        let problems = [lost(&tenants, &ledger), half_provisioned(&server, &ledger.made)].concat();
        assert!(problems.is_empty(), "after kill {kill} (dice {}):\n{}", dice.seed, problems.join("\n"));
    }
    server.stop();
    let ledger = ledger.into_inner().unwrap();
    let checked = check_files(server.dir());
    let rows: usize = ledger.rows.values().map(BTreeSet::len).sum();
    let once: usize = ledger.once.values().map(BTreeSet::len).sum();
    let jobs: usize = ledger.jobs.values().map(BTreeSet::len).sum();
    assert_eq!(lost_jobs(&server, &ledger), 0, "acknowledged jobs are not in their queues");
    println!(
        "kill -9 × {kills} in {:.0} s: {rows} rows, {jobs} jobs and {once} keyed writes acknowledged, 0 lost, 0 twice ({} unanswered); \
         {} of {} tenants acknowledged, 0 half provisioned; {checked} files, 0 integrity failures; slowest start {slowest_start:?}",
        begun.elapsed().as_secs_f64(),
        ledger.unanswered,
        ledger.made.len(),
        ledger.asked.len(),
    );
}

#[test]
fn a_batch_cut_short_by_kill_9_goes_on_under_its_key() {
    let shim = Shim::new();
    let mut server = Server::with(|c| shim.under(c));
    let items: Vec<_> = (0..200).map(|_| json!({ "slug": unique("cut"), "name": "Cut" })).collect();
    let body = json!({ "tenants": items });
    let post = |admin: Client| admin.call("POST", "/admin/v1/tenants:batch").idempotency_key("k").json(&body).try_send();
    // Somewhere in the middle: each tenant has a folder made.
    shim.set(&Rule { nth: 60, ..Rule::new(MKDIR, "*", KILL) });
    assert!(post(server.admin()).is_err(), "killed before it was answered");
    server.ended();
    assert_eq!(shim.clear().1, 1);
    server.start_again();
    let answer = post(server.admin()).unwrap().expect(200).json();
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["status"], 201, "{result}");
    }
    server.stop();
}

/// Writes until the server is gone. Each kind of write in turn.
fn write(writer: usize, tenants: &[TenantClient], ledger: &Mutex<Ledger>, next: &AtomicI64) {
    loop {
        let x = next.fetch_add(1, Ordering::Relaxed);
        let which = x as usize % tenants.len();
        let tenant = &tenants[which];
        let answer = match writer % 3 {
            0 => {
                let body = json!({ "statements": [{ "sql": "INSERT INTO t VALUES (?1, randomblob(?1 % 3000))", "params": [x] }] });
                tenant.call("POST", "/v1/sql").json(&body).try_send()
            }
            1 => send_once(tenant, &format!("key-{x}"), x),
            _ => tenant.call("POST", "/v1/queues/q/jobs").json(&json!({ "payload": { "x": x } })).try_send(),
        };
        let mut ledger = ledger.lock().unwrap();
        match answer {
            Ok(answer) if answer.status == 200 || answer.status == 201 => match writer % 3 {
                0 => _ = ledger.rows.entry(tenant.id.clone()).or_default().insert(x),
                1 => _ = ledger.once.entry(tenant.id.clone()).or_default().insert(x),
                _ => {
                    let id = answer.json()["id"].as_str().unwrap().to_owned();
                    ledger.jobs.entry(tenant.id.clone()).or_default().insert(id);
                }
            },
            Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
            Err(_) => {
                ledger.unanswered += 1;
                if writer % 3 == 1 {
                    ledger.open.push((which, format!("key-{x}"), x));
                }
                return;
            }
        }
    }
}

fn send_once(tenant: &TenantClient, key: &str, x: i64) -> Result<Answer, ureq::Error> {
    let body = json!({ "statements": [{ "sql": "INSERT INTO once VALUES (?1)", "params": [x] }] });
    tenant.call("POST", "/v1/sql").idempotency_key(key).json(&body).try_send()
}

fn provision(admin: &Client, ledger: &Mutex<Ledger>) {
    loop {
        let slug = unique("born");
        ledger.lock().unwrap().asked.insert(slug.clone());
        match admin.call("POST", "/admin/v1/tenants").json(&json!({ "slug": slug, "name": "Born" })).try_send() {
            Ok(answer) => {
                let id = answer.expect(201).json()["tenant"]["id"].as_str().unwrap().to_owned();
                ledger.lock().unwrap().made.insert(slug, id);
            }
            Err(_) => return,
        }
    }
}

/// What a client does that never heard back: the same write under the same key.
fn repeat(tenants: &[TenantClient], ledger: &mut Ledger) {
    for (which, key, x) in std::mem::take(&mut ledger.open) {
        send_once(&tenants[which], &key, x).unwrap().expect(200);
        ledger.once.entry(tenants[which].id.clone()).or_default().insert(x);
    }
}

fn lost(tenants: &[TenantClient], ledger: &Ledger) -> Vec<String> {
    let mut problems = Vec::new();
    let xs = |rows: Value| rows.as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect::<Vec<_>>();
    for tenant in tenants {
        let there: BTreeSet<_> = xs(tenant.rows("SELECT x FROM t", json!([]))).into_iter().collect();
        let lost = ledger.rows.get(&tenant.id).map_or(0, |rows| rows.difference(&there).count());
        let mut once = xs(tenant.rows("SELECT x FROM once ORDER BY x", json!([])));
        let total = once.len();
        once.dedup();
        let keyed: BTreeSet<_> = once.iter().copied().collect();
        let missing = ledger.once.get(&tenant.id).map_or(0, |rows| rows.difference(&keyed).count());
        if lost + missing + (total - once.len()) > 0 {
            problems.push(format!("{}: {lost} rows and {missing} keyed rows lost, {} twice", tenant.slug, total - once.len()));
        }
    }
    problems
}

/// Acknowledged jobs that their queue's file does not hold. The server is stopped.
fn lost_jobs(server: &Server, ledger: &Ledger) -> usize {
    let lost = |(tenant, acknowledged): (&String, &BTreeSet<String>)| {
        let file = rusqlite::Connection::open(server.file(tenant, "queue")).unwrap();
        let mut ids = file.prepare("SELECT created_at, seq, salt FROM jobs").unwrap();
        let id = |row: &rusqlite::Row<'_>| Ok(JobId::of(row.get(0)?, row.get(1)?, row.get(2)?).to_string());
        let there: BTreeSet<String> = ids.query_map([], id).unwrap().map(Result::unwrap).collect();
        acknowledged.difference(&there).count()
    };
    ledger.jobs.iter().map(lost).sum()
}

/// Rows without files, files without rows, acknowledged tenants (slug → id) that are not there.
pub fn half_provisioned(server: &Server, made: &BTreeMap<String, String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut listed = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = server.admin().get(&format!("/admin/v1/tenants?limit=100{cursor}")).expect(200).json();
        for tenant in page["tenants"].as_array().unwrap() {
            let text = |key: &str| tenant[key].as_str().unwrap().to_owned();
            listed.insert(text("id"), (text("slug"), text("state")));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => break,
        }
    }
    for (id, (slug, state)) in &listed {
        if state != "active" || ["database", "cache", "queue"].iter().any(|role| !server.file(id, role).is_file()) {
            problems.push(format!("{slug} is {state}, its files: {:?}", std::fs::read_dir(server.folder(id)).map(Iterator::count)));
        }
    }
    for (slug, id) in made {
        if listed.get(id).is_none_or(|(known, _)| known != slug) {
            problems.push(format!("{slug} was acknowledged and is not there"));
        }
    }
    for entry in server.files() {
        let parts: Vec<_> = entry.split('/').collect();
        // `<xx>/<id>` and anything beside it, such as a folder that was being filled.
        if parts.len() == 2 && parts[0].len() == 2 && !listed.contains_key(parts[1]) {
            problems.push(format!("{entry} has no tenant"));
        }
    }
    problems
}

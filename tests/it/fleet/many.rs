//! A large fleet: `TENANTRY_FLEET=10000 cargo test --test it fleet::many -- --nocapture` prints how long a run takes,
//! what memory and descriptors the server takes meanwhile, what becomes of one poisoned tenant, and of a kill -9 in the
//! middle. By itself it has 200 tenants.

use std::collections::HashSet;
use std::time::Instant;

use super::*;

/// Tenants in one call.
const BATCH: usize = 500;

/// Tenants visited at once.
const PARALLEL: usize = 4;

/// (resident memory at its peak in MB, descriptors open now)
fn taken(server: &Server) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    (kilobytes / 1_024, std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count())
}

/// The tenant's, of one of his files.
fn folder_of(file: &str) -> Option<String> {
    let (folder, name) = file.rsplit_once('/')?;
    name.starts_with("tenant_").then(|| folder.to_owned())
}

#[test]
fn a_large_fleet_goes_up_past_a_poisoned_tenant_and_a_kill() {
    let size: usize = std::env::var("TENANTRY_FLEET").ok().map_or(200, |size| size.parse().unwrap());
    let mut fleet = Fleet::with(|c| {
        c.set("telemetry.log", "warn");
    });
    let began = Instant::now();
    let mut made = Vec::new();
    while made.len() < size {
        let some = BATCH.min(size - made.len());
        let wishes: Vec<_> = (0..some).map(|_| json!({ "slug": unique("many"), "name": "Many" })).collect();
        let answer = fleet.server.admin().post("/admin/v1/tenants:batch", json!({ "tenants": wishes })).expect(200).json();
        made.extend(answer["results"].as_array().unwrap().iter().map(|one| fleet.server.tenant_of(one)));
    }
    println!("{size} tenants made in {:.1?}", began.elapsed());
    let poisoned = &made[size / 2 + 1];
    poisoned.script("CREATE TABLE links (x)");
    fleet.server.restart();
    let idle = taken(&fleet.server);
    fleet.write_tags();
    fleet.write(
        "0003_links.up.sql",
        "CREATE TABLE links (note INTEGER REFERENCES notes (id), url TEXT) STRICT; CREATE INDEX links_note ON links (note);",
    );

    let began = Instant::now();
    let id = fleet.begin(json!({ "kind": "up", "parallel": PARALLEL }));
    let mut most = 0;
    let mut look = |fleet: &Fleet| {
        let run = fleet.run(&id);
        most = most.max(taken(&fleet.server).1);
        run
    };
    within(20 * SOON, "a third is done", || Some(look(&fleet)).filter(|run| run["done"].as_u64() >= Some(size as u64 / 3)));
    let (before_kill, peak) = (began.elapsed(), taken(&fleet.server).0);
    fleet.server.kill9();
    let began = Instant::now();
    fleet.server.start_again();
    let started = began.elapsed();
    let resumed = look(&fleet);
    let run = within(20 * SOON, "the run ends", || Some(look(&fleet)).filter(|run| run["state"] != "running"));
    let elapsed = before_kill + began.elapsed();
    println!(
        "up: {} tenants in {elapsed:.1?} ({:.0}/s), killed at {} visited, up again in {started:.1?}",
        size,
        size as f64 / elapsed.as_secs_f64(),
        resumed["done"]
    );
    println!(
        "memory at its peak {} MB before the kill, {} MB after; idle {} MB; descriptors at most {most}, idle {}",
        peak,
        taken(&fleet.server).0,
        idle.0,
        idle.1
    );
    assert_eq!((&run["state"], counts(&run)), (&json!("done"), (size as u64 - 1, 1, 0)), "{run}");
    let failed = fleet.visits(&run, "failed");
    println!("poisoned: {} {}", failed[0]["slug"], failed[0]["error"]["message"]);
    assert_eq!(failed[0]["tenant_id"], poisoned.id);
    assert!(most < idle.1 + 200, "descriptors do not grow with the fleet: {most}, idle {}", idle.1);
    for tenant in made.iter().filter(|tenant| tenant.id != poisoned.id) {
        assert_eq!(fleet.version(tenant), 3, "{}", tenant.id);
    }
    assert_eq!(fleet.version(poisoned), 1);

    let began = Instant::now();
    let checked = fleet.done(json!({ "kind": "validate" }));
    println!("validate: {size} tenants in {:.1?}; {} differ", began.elapsed(), checked["failed"]);
    assert_eq!(counts(&checked), (size as u64 - 1, 1, 0));
    let strays: HashSet<_> = fleet.server.files().iter().filter(|file| file.ends_with("-wal")).filter_map(|file| folder_of(file)).collect();
    assert!(strays.len() <= PARALLEL, "visits leave no logs behind, but those that were under way at the kill: {strays:?}");
}

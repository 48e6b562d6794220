//! A plan shows what an up would do, and does it to copies only.

use super::*;

#[test]
fn a_plan_says_what_would_happen_and_changes_nothing() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(4);
    tenants[0].sql("INSERT INTO notes (body) VALUES ('x')", json!([])).expect(200);
    tenants[3].script("CREATE TABLE links (x)");
    fleet.write("0002_drop.up.sql", "ALTER TABLE notes DROP COLUMN body;");
    fleet.write("0003_links.up.sql", "CREATE TABLE links (url TEXT) STRICT;");
    let run = fleet.done(json!({ "kind": "plan", "sample": 100 }));
    assert_eq!((&run["state"], counts(&run)), (&json!("done"), (3, 1, 0)), "{run}");
    let file = &fleet.visits(&run, "done")[0]["outcome"]["files"][0];
    assert_eq!(file["moves"], json!([{ "set": "application", "from": 1, "to": 3 }]));
    assert_eq!(file["destructive"], json!(["application/0002_drop.up"]));
    assert!(file["size_bytes"].as_u64() > Some(4096), "{file}");
    let failed = &fleet.visits(&run, "failed")[0];
    assert!(failed["slug"] == tenants[3].slug && failed["error"]["message"].as_str().unwrap().contains("0003_links"), "{failed}");
    assert_eq!(fleet.versions(&tenants), [1; 4]);
    assert_eq!(tenants[0].rows("SELECT body FROM notes", json!([])), json!([["x"]]));
    let left: Vec<_> = fleet.server.files().into_iter().filter(|file| file.starts_with("backups/") && file.contains("tenant_")).collect();
    assert!(left.is_empty(), "{left:?}");

    let output = fleet.server.cli(["migrate", "plan", &tenants[1].slug]);
    let text = said(&output);
    assert!(output.status.success() && text.contains("application 1→3") && text.contains("application/0002_drop.up"), "{text}");
    let output = fleet.server.cli(["migrate", "plan", &tenants[3].slug]);
    assert!(!output.status.success() && said(&output).contains("already exists"), "{}", said(&output));
}

#[test]
fn a_sample_is_spread_over_the_fleet() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(10);
    let run = fleet.done(json!({ "kind": "plan", "sample": 2 }));
    let mut visited: Vec<_> = fleet.visits(&run, "done").iter().map(|visit| visit["tenant_id"].as_str().unwrap().to_owned()).collect();
    visited.sort();
    assert_eq!(visited, [tenants[0].id.clone(), tenants[5].id.clone()]);
}

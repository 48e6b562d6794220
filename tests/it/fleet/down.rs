//! Down, what is kept before something is destroyed, and back to that.

use super::*;

#[test]
fn a_fleet_taken_down_stays_down_until_it_is_brought_up() {
    let mut fleet = Fleet::new();
    fleet.write_tags();
    fleet.write("0003_links.up.sql", "CREATE TABLE links (url TEXT) STRICT;");
    fleet.write("0003_links.down.sql", "DROP TABLE links;");
    assert_eq!(fleet.done(json!({ "kind": "up" }))["state"], "done");
    let mut tenants = fleet.tenants(5);
    assert_eq!(fleet.versions(&tenants), [3; 5]);
    tenants[0].sql("INSERT INTO notes (body, tag) VALUES ('b', 't')", json!([])).expect(200);
    let output = fleet.server.cli(["migrate", "down", "--to", "1", "--yes"]);
    assert!(output.status.success(), "{}", said(&output));
    for restarted in [false, true] {
        if restarted {
            fleet.server.restart();
        }
        tenants.push(fleet.server.tenant("new"));
        for tenant in &tenants {
            tenant.rows("SELECT id, body FROM notes", json!([]));
            tenant.sql("SELECT tag FROM notes", json!([])).refused(400, "sql_error");
        }
        assert!(fleet.versions(&tenants).iter().all(|&version| version == 1));
    }
    assert_eq!(fleet.done(json!({ "kind": "up" }))["state"], "done");
    fleet.server.restart();
    assert!(fleet.versions(&tenants).iter().all(|&version| version == 3));
    assert_eq!(tenants[0].rows("SELECT body, tag FROM notes", json!([])), json!([["b", null]]));
}

#[test]
fn who_was_taken_down_by_name_stays_there_until_it_is_named() {
    let fleet = Fleet::new();
    fleet.write_tags();
    fleet.done(json!({ "kind": "up" }));
    let tenants = fleet.tenants(3);
    fleet.done(json!({ "kind": "down", "to": 1, "tenants": [tenants[0].id] }));
    let held = |run: &Value| {
        let skipped = fleet.visits(run, "skipped");
        assert_eq!((counts(run), skipped.len()), ((2, 0, 1), 1), "{run}");
        let file = &skipped[0]["outcome"]["files"][0];
        assert_eq!((&skipped[0]["tenant_id"], &file["held"]), (&json!(tenants[0].id), &json!([{ "set": "application", "version": 1 }])));
    };
    held(&fleet.done(json!({ "kind": "up" })));
    assert_eq!(fleet.versions(&tenants), [1, 2, 2]);
    fleet.write("0003_links.up.sql", "CREATE TABLE links (url TEXT) STRICT;");
    fleet.write("0003_links.down.sql", "DROP TABLE links;");
    let planned = fleet.done(json!({ "kind": "plan", "sample": 3 }));
    assert_eq!(counts(&planned), (2, 0, 1), "{planned}");
    held(&fleet.done(json!({ "kind": "up" })));
    assert_eq!(fleet.versions(&tenants), [1, 3, 3]);
    // Down and up with everybody, it is still where it was put.
    fleet.done(json!({ "kind": "down", "to": 0 }));
    assert_eq!(fleet.versions(&tenants), [0, 0, 0]);
    let up = fleet.done(json!({ "kind": "up" }));
    assert_eq!((counts(&up), fleet.versions(&tenants)), ((3, 0, 0), vec![1, 3, 3]));
    fleet.done(json!({ "kind": "up", "tenants": [tenants[0].id] }));
    assert_eq!(counts(&fleet.done(json!({ "kind": "up" }))), (3, 0, 0));
    assert_eq!(fleet.versions(&tenants), [3, 3, 3]);
}

#[test]
fn a_down_file_that_was_changed_or_is_missing_takes_nobody_down() {
    let fleet = Fleet::new();
    fleet.write_tags();
    fleet.done(json!({ "kind": "up" }));
    let tenants = fleet.tenants(2);
    let old = "f".repeat(64);
    fleet.write("0002_tags.down.sql", "ALTER TABLE notes DROP COLUMN tag; ");
    let run = fleet.done(json!({ "kind": "down", "to": 1, "tenants": [tenants[0].id] }));
    let failed = &fleet.visits(&run, "failed")[0];
    let message = failed["error"]["message"].as_str().unwrap();
    let checksums = message.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == old.len()).count();
    assert!(message.contains("down file of migration application/0002_tags was changed") && checksums == 2, "both are named: {message}");
    std::fs::remove_file(fleet.folder.path().join("0002_tags.down.sql")).unwrap();
    fleet.server.admin().post(RUNS, json!({ "kind": "down", "to": 1 })).refused(400, "bad_request");
    assert_eq!(fleet.versions(&tenants), [2, 2]);
}

#[test]
fn what_a_migration_destroys_comes_back_with_a_rollback() {
    let mut fleet = Fleet::new();
    let tenants = fleet.tenants(3);
    for tenant in &tenants {
        tenant.sql("INSERT INTO notes (body) VALUES ('precious')", json!([])).expect(200);
    }
    fleet.write("0002_clean.up.sql", "DELETE FROM notes;");
    fleet.write("0002_clean.down.sql", "SELECT 1;");
    let run = fleet.done(json!({ "kind": "up" }));
    for visit in fleet.visits(&run, "done") {
        let file = &visit["outcome"]["files"][0];
        assert_eq!((&file["kept"], &file["destructive"]), (&json!(true), &json!(["application/0002_clean.up"])), "{visit}");
    }
    assert_eq!(tenants[0].rows("SELECT count(*) FROM notes", json!([])), json!([[0]]));
    tenants[0].sql("INSERT INTO notes (body) VALUES ('late')", json!([])).expect(200);
    let output = fleet.server.cli(["migrate", "rollback", &tenants[0].slug, "--yes"]);
    assert!(output.status.success(), "{}", said(&output));
    for restarted in [false, true] {
        if restarted {
            fleet.server.restart();
        }
        assert_eq!(tenants[0].rows("SELECT body FROM notes", json!([])), json!([["precious"]]), "and it is not applied again");
        assert_eq!(fleet.versions(&tenants), [1, 2, 2]);
    }
    let again = fleet.done(json!({ "kind": "rollback", "tenants": [tenants[0].id] }));
    assert_eq!(counts(&again), (1, 0, 0), "a second time changes nothing");
    assert_eq!(fleet.visits(&again, "done")[0]["outcome"]["files"], json!([]));
    let stranger = fleet.server.tenant("stranger");
    let none = fleet.done(json!({ "kind": "rollback", "tenants": [stranger.id] }));
    assert!(fleet.visits(&none, "failed")[0]["error"]["message"].as_str().unwrap().contains("no copy"), "{none}");
    // Purging takes the copy too.
    let admin = fleet.server.admin();
    let path = format!("/admin/v1/tenants/{}", tenants[0].id);
    admin.delete(&path).expect(200);
    admin.post(&format!("{path}/purge"), json!({})).expect(200);
    assert!(!fleet.server.files().iter().any(|file| file.contains(&tenants[0].id)));
}

#[test]
fn a_tenant_that_is_opened_before_the_run_reaches_it_is_kept_as_well() {
    let mut fleet = Fleet::new();
    let tenant = fleet.server.tenant("opened");
    tenant.sql("INSERT INTO notes (body) VALUES ('precious')", json!([])).expect(200);
    fleet.server.stop();
    fleet.write("0002_drop.up.sql", "ALTER TABLE notes ADD COLUMN n INTEGER; UPDATE notes SET body = ''");
    fleet.server.start_again();
    assert_eq!(tenant.rows("SELECT body FROM notes", json!([])), json!([[""]]));
    fleet.done(json!({ "kind": "rollback", "tenants": [tenant.id] }));
    assert_eq!(tenant.rows("SELECT body FROM notes", json!([])), json!([["precious"]]));
}

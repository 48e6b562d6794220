//! Validate finds what other hands did to files, and to the folder.

use super::*;

#[test]
fn whatever_is_not_as_the_migrations_say_is_found_and_named() {
    let mut fleet = Fleet::new();
    fleet.write_tags();
    assert_eq!(fleet.done(json!({ "kind": "up" }))["state"], "done");
    let tenants = fleet.tenants(7);
    tenants[0].script("ALTER TABLE notes ADD COLUMN mine TEXT; CREATE INDEX by_body ON notes (body);");
    fleet.server.stop();
    let tampered = |tenant: &TenantClient, sql: &str| {
        let file = rusqlite::Connection::open(fleet.server.file(&tenant.id, "database")).unwrap();
        file.execute_batch(sql).unwrap();
    };
    tampered(&tenants[1], "UPDATE _tenantry_migrations SET checksum = 'abc' WHERE \"set\" = 'application' AND version = 1");
    tampered(&tenants[2], "UPDATE _tenantry_migrations SET down_checksum = 'def' WHERE \"set\" = 'application' AND version = 2");
    tampered(&tenants[3], "DELETE FROM _tenantry_migrations WHERE \"set\" = 'application' AND version = 1");
    tampered(&tenants[4], "UPDATE _tenantry_migrations SET version = 9 WHERE \"set\" = 'application' AND version = 2");
    tampered(&tenants[5], "DROP TABLE notes");
    fleet.server.start_again();
    let run = fleet.done(json!({ "kind": "validate" }));
    assert_eq!((&run["state"], counts(&run)), (&json!("done"), (1, 6, 0)), "{run}");
    let visits = fleet.visits(&run, "failed");
    let findings = |tenant: &TenantClient| {
        let visit = visits.iter().find(|visit| visit["tenant_id"] == tenant.id).unwrap();
        visit["outcome"]["findings"].as_array().unwrap().clone()
    };
    let kinds = |tenant: &TenantClient| findings(tenant).iter().map(|one| one["problem"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let drift = &findings(&tenants[0])[0];
    assert_eq!((&drift["different"], &drift["extra"]), (&json!(["table notes"]), &json!(["index by_body"])), "{drift}");
    let changed = &findings(&tenants[1])[0];
    assert_eq!((&changed["problem"], &changed["recorded"]), (&json!("changed"), &json!("abc")));
    assert_eq!(changed["here"].as_str().map(str::len), Some(64), "both checksums are named");
    assert_eq!(kinds(&tenants[2]), ["down_changed"]);
    assert_eq!(kinds(&tenants[3]), ["missing"]);
    assert_eq!(kinds(&tenants[4]), ["missing", "unknown"]);
    assert_eq!(findings(&tenants[5])[0]["missing"], json!(["table notes"]));

    let output = fleet.server.cli(["migrate", "validate", &tenants[6].slug]);
    assert!(output.status.success(), "{}", said(&output));
    let output = fleet.server.cli(["migrate", "validate"]);
    let text = said(&output);
    assert!(!output.status.success() && tenants[..6].iter().all(|tenant| text.contains(&tenant.slug)), "{text}");
    // Only the one with an unknown, a missing or a changed up migration is refused; drift is reported.
    for (tenant, status) in tenants.iter().zip([200, 503, 200, 503, 503, 200, 200]) {
        tenant.sql("SELECT 1", json!([])).expect(status);
    }
}

#[test]
fn tenants_that_are_behind_or_held_are_valid() {
    let fleet = Fleet::new();
    let tenants = fleet.tenants(2);
    fleet.write_tags();
    fleet.done(json!({ "kind": "up", "tenants": [tenants[0].id] }));
    fleet.done(json!({ "kind": "down", "to": 1, "tenants": [tenants[0].id] }));
    let run = fleet.done(json!({ "kind": "validate" }));
    assert_eq!(counts(&run), (2, 0, 0), "{run}");
    let visits = fleet.visits(&run, "done");
    let database = |at: usize| visits[at]["outcome"]["files"][0].clone();
    assert_eq!((&database(0)["held"], &database(0)["behind"]), (&json!({ "application": 1 }), &json!(true)));
    assert_eq!((&database(1)["held"], &database(1)["at"]["application"]), (&json!({}), &json!(1)));
    assert_eq!(database(0)["schema"], database(1)["schema"]);
    assert!(!fleet.server.files().iter().any(|file| file.contains("/tenant_") && file.ends_with("-wal") && file.contains(&tenants[1].id)));
}

#[test]
fn a_folder_older_than_a_tenant_refuses_that_tenant_and_says_why() {
    let mut fleet = Fleet::new();
    let tenants = fleet.tenants(2);
    fleet.write_tags();
    fleet.done(json!({ "kind": "up", "tenants": [tenants[0].id] }));
    fleet.server.stop();
    for name in ["0002_tags.up.sql", "0002_tags.down.sql"] {
        std::fs::remove_file(fleet.folder.path().join(name)).unwrap();
    }
    fleet.server.start_again();
    tenants[0].sql("SELECT 1", json!([])).refused(503, "tenant_unavailable");
    tenants[1].sql("SELECT 1", json!([])).expect(200);
    let refused = fleet.server.admin().post(&format!("/admin/v1/tenants/{}/migrate", tenants[0].id), json!({}));
    let refused = refused.refused(503, "tenant_unavailable").to_string();
    assert!(refused.contains("application/0002") && refused.contains("not known here") && refused.contains("newer"), "{refused}");
    // Nor does a fleet run begin on texts that others of the fleet have otherwise.
    fleet.write("0002_tags.up.sql", "ALTER TABLE notes ADD COLUMN other TEXT;");
    let error = fleet.server.admin().post(RUNS, json!({ "kind": "up" })).refused(409, "conflict");
    assert!(error["message"].as_str().unwrap().contains("otherwise now"), "{error}");
}

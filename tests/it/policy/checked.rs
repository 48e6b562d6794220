//! `tenantry policy check`: policies, grants and functions are held against the tables that the migrations make.

use tempfile::TempDir;

use super::{MIGRATION, POLICIES, server_with};
use crate::support::{Value, binary};

const WRONG: &str = "CREATE POLICY a ON notes FOR SELECT TO ghost USING (owner = auth.uid()\n  AND nothing = 1);\n\
    CREATE POLICY b ON nowhere USING (true);\n\
    GRANT SELECT (id, nope) ON slots TO ghost;\n\
    CREATE FUNCTION unused(a integer) RETURNS boolean AS $$\n  SELECT EXISTS (SELECT 1 FROM gone WHERE x = a) $$;\n\
    CREATE FUNCTION lost() RETURNS SETOF integer AS $$ SELECT lost FROM notes $$;\n\
    CREATE POLICY c ON notes FOR INSERT WITH CHECK (id IN (SELECT project_id FROM members AS m WHERE m.missing = 1));\n\
    CREATE POLICY d ON drafts FOR DELETE USING (id IN (SELECT lost()));\n";

fn folder(policies: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0001_app.up.sql"), MIGRATION).unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/app.sql"), policies).unwrap();
    folder
}

/// What the command says of a folder, and whether it was content.
fn said(folder: &TempDir, inside: &str, flags: &[&str]) -> (bool, String, String) {
    let output = binary().args(["policy", "check"]).arg(folder.path().join(inside)).args(flags).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn whatever_names_what_is_not_there_is_told_with_its_place() {
    let folder = folder(WRONG);
    for inside in ["", "policies"] {
        let (content, told, error) = said(&folder, inside, &[]);
        assert!(!content && error.contains("6 of the policies, grants and functions do not hold"), "{told}{error}");
        for line in [
            "policies/app.sql:2:7: policy \"a\" on notes: there is no column nothing",
            "policies/app.sql:3:20: there is no table nowhere",
            "policies/app.sql:4:19: GRANT on slots: there is no column nope",
            "policies/app.sql:6:32: function unused(): there is no table gone",
            "policies/app.sql:7:59: function lost(): there is no column lost",
            "policies/app.sql:8:98: policy \"c\" on notes: there is no column m.missing",
        ] {
            assert!(told.lines().any(|told| told == line), "{line}\n{told}");
        }
    }
    let told: Value = serde_json::from_str(&said(&folder, "", &["--json"]).1).unwrap();
    assert_eq!((&told["policies"], told["problems"].as_array().map(Vec::len)), (&4.into(), Some(6)), "{told}");
}

#[test]
fn what_is_unknown_to_policies_at_all_is_told_where_it_stands() {
    for (policies, why) in [
        ("CREATE POLICY a ON notes\nUSING (unknown(id));", "policies/app.sql:2:8: the function unknown() is not allowed in a policy"),
        ("CREATE POLICY a ON notes USING (id::strange = 1);", "policies/app.sql:1:37: there is no type \"strange\" here"),
        ("CREATE FUNCTION f(a strange) RETURNS integer AS $$ SELECT 1 $$;", "policies/app.sql:1:21: type \"strange\" does not exist"),
        ("CREATE FUNCTION f() RETURNS SETOF strange AS $$ SELECT 1 $$;", "policies/app.sql:1:35: type \"strange\" does not exist"),
    ] {
        let (content, _, error) = said(&folder(policies), "", &[]);
        assert!(!content && error.contains(why), "{policies}: {error}");
    }
    let folder = folder(POLICIES);
    std::fs::create_dir(folder.path().join("functions")).unwrap();
    let function = "CREATE FUNCTION f() RETURNS SETOF notes STABLE AS $$\n SELECT * FROM noted $$;";
    std::fs::write(folder.path().join("functions/f.sql"), function).unwrap();
    let (content, _, error) = said(&folder, "", &[]);
    assert!(!content && error.contains("functions/f.sql:2:2: no such table: noted"), "{error}");
}

#[test]
fn a_server_starts_and_says_what_does_not_hold() {
    let (server, _folder) = server_with(WRONG);
    server.tenant("wrong").get("/rest/v1/notes").expect(200);
    let log = server.log();
    assert!(log.contains("policies/app.sql:2:7") && log.contains("there is no column nothing"), "{log}");
    let (server, _folder) = server_with(POLICIES);
    assert!(!server.log().contains("policies/app.sql"), "{}", server.log());
}

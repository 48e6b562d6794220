//! What policies make of a caller, asked by operators; and whether what is remembered of one caller reaches another.

use super::*;

/// The tenant's id, a user's token and what an operator asks about it.
fn ask(tenant: &TenantClient, body: Value) -> crate::support::Answer {
    shared().admin().post(&format!("/admin/v1/tenants/{}/policies/test", tenant.id), body)
}

#[test]
fn an_operator_is_told_what_a_caller_may_do_and_by_which_policy() {
    let tenant = tenant();
    let ann = ann(&tenant);
    let claims = json!({ "sub": "ann", "role": "authenticated" });
    let by_claims = ask(&tenant, json!({ "table": "notes", "claims": claims })).expect(200).json();
    assert_eq!((&by_claims["rows"], &by_claims["role"]), (&json!(3), &json!("authenticated")), "{by_claims}");
    let select = &by_claims["commands"]["select"];
    assert_eq!(
        (&select["allowed"], &select["rows"], &select["policies"]),
        (&json!(true), &json!(2), &json!(["all_of_own"])),
        "{by_claims}"
    );
    // It is what the caller then sees.
    assert_eq!(got(&ann, "notes?select=id&order=id"), json!([{ "id": 1 }, { "id": 2 }]));
    assert_eq!(ask(&tenant, json!({ "table": "notes", "token": ann.token })).expect(200).json(), by_claims);

    let hidden = ask(&tenant, json!({ "table": "vault", "claims": claims })).expect(200).json();
    assert_eq!(hidden["commands"]["select"]["allowed"], false, "{hidden}");
    let people = ask(&tenant, json!({ "table": "people", "claims": claims })).expect(200).json();
    assert_eq!(people["commands"]["update"]["columns"], json!(["name"]), "{people}");
    assert_eq!(people["commands"]["update"]["rows"], 1, "{people}");
    assert_eq!(people["commands"]["delete"]["allowed"], false, "{people}");
}

#[test]
fn who_calls_is_said_once_and_is_of_this_tenant() {
    let (tenant, other) = (tenant(), tenant());
    ask(&tenant, json!({ "table": "notes" })).refused(400, "bad_request");
    ask(&tenant, json!({ "table": "notes", "token": ann(&other).token })).refused(400, "bad_request");
    let both = json!({ "table": "notes", "token": ann(&tenant).token, "claims": {} });
    ask(&tenant, both).refused(400, "bad_request");
    let path = format!("/admin/v1/tenants/{}/policies/test", tenant.id);
    tenant.post(&path, json!({ "table": "notes", "claims": {} })).refused(403, "forbidden");
    assert_eq!(ask(&tenant, json!({ "table": "nothing", "claims": {} })).status, 404);
}

#[test]
fn the_command_line_reads_a_folder_and_asks_about_a_caller() {
    let (server, folder) = server_with(POLICIES);
    let tenant = server.tenant("asked");
    tenant.script(include_str!("rows.sql"));
    let said = |args: &[&str], good: bool| {
        let output = server.cli(args);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.success(), good, "{args:?}: {text}");
        text
    };
    let path = folder.path().to_str().unwrap();
    assert!(said(&["policy", "check", path], true).contains("well formed"));
    let told = said(&["policy", "test", &tenant.id, "notes", "--role", "authenticated", "--sub", "ann"], true);
    let select = told.lines().find(|line| line.starts_with("select")).unwrap_or_else(|| panic!("{told}"));
    assert!(select.contains("yes") && select.contains("all_of_own") && told.contains("of 3 rows"), "{told}");
    let told = said(&["policy", "test", &tenant.id, "notes", "--claims", r#"{"sub":"eve","role":"auditor"}"#, "--json"], true);
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["commands"]["select"]["rows"], 3, "{told}");

    std::fs::write(folder.path().join("policies/wrong.sql"), "\nCREATE POLICY p ON notes USING (owner = );").unwrap();
    let wrong = said(&["policy", "check", path], false);
    assert!(wrong.contains("wrong.sql:2:"), "{wrong}");
}

#[test]
fn what_is_remembered_of_one_users_request_answers_another_with_the_others_rows() {
    let tenant = tenant();
    let (ann, bob) = (ann(&tenant), user(shared(), &tenant, "authenticated", "bob"));
    let auditor = user(shared(), &tenant, "auditor", "ann");
    for _ in 0..3 {
        assert_eq!(got(&ann, "notes?select=id&id=gt.0&order=id"), json!([{ "id": 1 }, { "id": 2 }]));
        assert_eq!(got(&bob, "notes?select=id&id=gt.0&order=id"), json!([{ "id": 3 }]));
        assert_eq!(got(&auditor, "notes?select=id&id=gt.0&order=id"), json!([{ "id": 1 }, { "id": 2 }, { "id": 3 }]));
        assert_eq!(got(&tenant, "notes?select=id&id=gt.1&order=id"), json!([{ "id": 2 }, { "id": 3 }]));
    }
}

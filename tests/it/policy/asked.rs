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
    assert!(said(&["policy", "check", path], true).contains("hold on the tables that the migrations make"));
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

#[test]
fn no_door_to_sql_is_open_to_a_role_that_policies_hold_back() {
    let tenant = tenant();
    let scopes = ["sql:read", "sql:write", "sql:schema", "cache", "queue:produce", "queue:consume"];
    let body = json!({ "role": "authenticated", "sub": "ann", "scopes": scopes, "expires_in_s": 600 });
    let token = shared().admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
    let ann = tenant.with_token(token["token"].as_str().unwrap());

    // What a service token had remembered is not handed on either.
    let asked = json!({ "sql": "SELECT text FROM notes" });
    tenant.post("/v1/cache/all/remember", asked.clone()).expect(200);
    ann.post("/v1/cache/all/remember", asked).refused(403, "forbidden");

    ann.post("/v1/queues/q/jobs", json!({ "payload": {} })).expect(201);
    let claimed = ann.post("/v1/queues/q/claim", json!({ "max": 1, "lease_s": 60 })).expect(200).json();
    let (id, lease) = (claimed["jobs"][0]["id"].as_str().unwrap(), &claimed["jobs"][0]["lease_token"]);
    let ack = |statements: Value| json!({ "lease_token": lease, "statements": statements });
    let path = format!("/v1/jobs/{id}/ack");
    ann.post(&path, ack(json!([{ "sql": "UPDATE notes SET owner = 'ann'" }]))).refused(403, "forbidden");
    assert_eq!(got(&ann, "notes?select=id&order=id"), json!([{ "id": 1 }, { "id": 2 }]));
    ann.post(&path, json!({ "lease_token": lease })).expect(200);

    let pipeline = json!({ "requests": [{ "type": "execute", "stmt": { "sql": "SELECT 1" } }] });
    ann.post("/v3/pipeline", pipeline).refused(403, "forbidden");
    let statements = json!([{ "sql": "UPDATE notes SET owner = 'ann'" }]);
    ann.post("/v1/sql", json!({ "statements": statements })).refused(403, "forbidden");
    ann.put("/v1/cache/k/through", json!({ "statements": statements, "entry": { "text": "x" } })).refused(403, "forbidden");
    ann.put("/v1/cache/k/behind", json!({ "statements": statements, "entry": { "text": "x" } })).refused(403, "forbidden");
    ann.put("/v1/cache/k/remember", json!({ "statements": statements, "sql": "SELECT 1" })).refused(403, "forbidden");
    assert_eq!(got(&ann, "notes?select=id&order=id"), json!([{ "id": 1 }, { "id": 2 }]));
}

#[test]
fn a_statement_made_for_a_short_pattern_is_not_used_for_one_that_may_raise() {
    let tenant = tenant();
    let bob = user(shared(), &tenant, "authenticated", "bob");
    let long = "a".repeat(200);
    for pattern in ["a", &long, "a", &long] {
        // Note 1 and 2 are hidden from bob, and of 1 the first filter is true.
        let rows = got(&bob, &format!("notes?select=id&owner=gte.ann&id=eq.1&text=like.{pattern}"));
        assert_eq!(rows, json!([]), "{}", pattern.len());
    }
}

#[test]
fn a_batch_tells_a_role_no_more_of_an_error_than_a_request_does() {
    let tenant = tenant();
    tenant.script("CREATE TRIGGER keeps AFTER INSERT ON notes BEGIN INSERT INTO vault VALUES (1, 1, 'twice'); END");
    let row = json!({ "owner": "ann" });
    let alone = ann(&tenant).post("/rest/v1/notes", row.clone());
    let batch = json!({ "operations": [{ "method": "POST", "path": "notes", "body": row }] });
    let together = ann(&tenant).post("/rest/v1/", batch);
    for answer in [alone, together] {
        assert_eq!((answer.status, answer.text().contains("vault")), (409, false), "{}", answer.text());
    }
}

#[test]
fn a_merge_onto_a_hidden_row_is_refused_also_where_the_policy_asks_nothing_of_the_caller() {
    let (server, _folder) = server_with("CREATE POLICY kept ON drafts USING (owner IS NOT NULL) WITH CHECK (true);");
    let tenant = server.tenant("merge");
    tenant.script("INSERT INTO drafts VALUES (1, NULL)");
    let ann = user(&server, &tenant, "authenticated", "ann");
    let merge = ann.call("POST", "/rest/v1/drafts").header("Prefer", "resolution=merge-duplicates");
    merge.json(&json!({ "id": 1, "owner": "ann" })).send().refused(403, "42501");
    assert_eq!(tenant.rows("SELECT owner FROM drafts", json!([])), json!([[null]]));
}

#[test]
fn a_callers_filter_does_not_run_on_rows_that_a_function_leaves_out() {
    let (folder, long) = (tempfile::tempdir().unwrap(), "a".repeat(200));
    std::fs::write(folder.path().join("0001_app.up.sql"), MIGRATION).unwrap();
    std::fs::create_dir(folder.path().join("functions")).unwrap();
    let function = "CREATE FUNCTION mine() RETURNS SETOF notes LANGUAGE sql STABLE AS $$
        SELECT * FROM notes WHERE EXISTS (SELECT 1 FROM people WHERE people.login = notes.owner AND people.login = auth.uid()) $$;
        GRANT EXECUTE ON FUNCTION mine TO authenticated;";
    std::fs::write(folder.path().join("functions/mine.sql"), function).unwrap();
    let server = Server::with(|c| {
        c.set("tenants.migrations_dir", folder.path().display()).set("rest.unindexed_embeds", "index");
    });
    let tenant = server.tenant("function");
    tenant.script(include_str!("rows.sql"));
    let ann = user(&server, &tenant, "authenticated", "ann");
    assert_eq!(got(&ann, "rpc/mine?select=id&order=id"), json!([{ "id": 1 }, { "id": 2 }]));
    // Note 3 is another's.
    assert_eq!(got(&ann, &format!("rpc/mine?select=id&id=eq.3&text=like.{long}")), json!([]));
}

#[test]
fn policies_that_cannot_be_read_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0001_app.up.sql"), MIGRATION).unwrap();
    std::fs::write(folder.path().join("policies"), "CREATE POLICY p ON notes USING (true);").unwrap();
    let mut command = crate::support::binary();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
    let output = command.arg("--set").arg(format!("tenants.migrations_dir={}", folder.path().display())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("policies"), "{said}");
}

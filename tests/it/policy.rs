//! Policies, seen from outside: who sees and writes which rows of an application whose policies are a folder of SQL.

mod asked;
mod behind;
mod checked;
mod issuers;
mod leak;
mod reload;
mod views;
mod world;

use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::{Server, TenantClient, Value, json};

const MIGRATION: &str = include_str!("policy/0001_app.up.sql");
const POLICIES: &str = include_str!("policy/app.sql");

/// A server whose application has these policies.
fn server_with(policies: &str) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0001_app.up.sql"), MIGRATION).unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(folder.path().join("policies/app.sql"), policies).unwrap();
    let server = Server::with(|c| {
        c.set("tenants.migrations_dir", folder.path().display()).set("rest.unindexed_embeds", "index");
    });
    (server, folder)
}

fn shared() -> &'static Server {
    static SERVER: OnceLock<(Server, TempDir)> = OnceLock::new();
    &SERVER.get_or_init(|| server_with(POLICIES)).0
}

/// Two users' worth of rows.
fn tenant() -> TenantClient {
    let tenant = shared().tenant("policy");
    tenant.script(include_str!("policy/rows.sql"));
    tenant
}

fn user(server: &Server, tenant: &TenantClient, role: &str, sub: &str) -> TenantClient {
    let body = json!({ "role": role, "sub": sub, "scopes": ["sql:read", "sql:write"], "expires_in_s": 600 });
    let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
    tenant.with_token(token["token"].as_str().unwrap())
}

fn ann(tenant: &TenantClient) -> TenantClient {
    user(shared(), tenant, "authenticated", "ann")
}

#[track_caller]
fn got(user: &TenantClient, path: &str) -> Value {
    user.get(&format!("/rest/v1/{path}")).succeeds().json()
}

#[test]
fn hidden_rows_are_absent_at_every_reference() {
    let tenant = tenant();
    let ann = ann(&tenant);
    assert_eq!(got(&ann, "projects?select=id,name"), json!([{ "id": 1, "name": "Engine" }, { "id": 3, "name": "Open" }]));
    assert_eq!(got(&ann, "projects?select=id,tasks(name)&id=eq.1"), json!([{ "id": 1, "tasks": [{ "name": "Draw" }, { "name": "Cut" }] }]));
    // The root, an embed of one, an inner embed, an order by what is related, a count, an aggregate, through a junction.
    assert_eq!(
        got(&ann, "tasks?select=name,projects(name)&order=id"),
        json!([
            { "name": "Draw", "projects": { "name": "Engine" } },
            { "name": "Cut", "projects": { "name": "Engine" } },
            { "name": "Greet", "projects": { "name": "Open" } },
        ])
    );
    assert_eq!(got(&ann, "notes?select=id,projects!inner(id)&order=id"), json!([{ "id": 1, "projects": { "id": 1 } }]));
    assert_eq!(got(&ann, "notes?select=id&projects.name=eq.Secret&projects=not.is.null&select=id,projects()"), json!([]));
    assert_eq!(
        got(&ann, "notes?select=id,projects(name)&order=projects(name).desc.nullslast,id"),
        json!([
            { "id": 1, "projects": { "name": "Engine" } },
            { "id": 2, "projects": null },
        ])
    );
    assert_eq!(got(&ann, "projects?select=count(),id.max()"), json!([{ "count": 2, "max": 3 }]));
    assert_eq!(
        got(&ann, "projects?select=id,people(name)&id=eq.1"),
        json!([{ "id": 1, "people": [{ "name": "Ann" }, { "name": "Bob" }] }])
    );
    let counted = ann.call("GET", "/rest/v1/projects?limit=1").header("Prefer", "count=exact").send();
    assert_eq!(counted.header("content-range"), Some("0-0/2"));
    assert_eq!(got(&tenant, "projects?select=count()"), json!([{ "count": 3 }]));
}

#[test]
fn a_row_is_written_where_its_policies_let_it() {
    let tenant = tenant();
    let ann = ann(&tenant);
    let refused = |answer: crate::support::Answer, words: &str| {
        let error = answer.refused(403, "42501");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    };
    let row_level = "new row violates row-level security policy";
    ann.post("/rest/v1/notes", json!({ "project_id": 1, "owner": "ann", "text": "mine" })).expect(201);
    refused(ann.post("/rest/v1/notes", json!({ "project_id": 1, "owner": "bob", "text": "not mine" })), row_level);
    refused(ann.post("/rest/v1/notes", json!([{ "owner": "ann" }, { "owner": "bob" }])), row_level);
    // A trigger makes it bob's.
    refused(ann.post("/rest/v1/notes", json!({ "owner": "ann", "text": "give away" })), row_level);
    refused(ann.patch("/rest/v1/notes?id=eq.1", json!({ "owner": "bob" })), row_level);
    assert_eq!(tenant.rows("SELECT count(*) FROM notes WHERE text IN ('mine', 'give away') OR owner IS NULL", json!([])), json!([[1]]));
    // What is hidden is not there to be changed or deleted.
    let touched = |method: &str, path: &str| {
        let call = ann.call(method, path).header("Prefer", "return=representation");
        let call = if method == "PATCH" { call.json(&json!({ "text": "x" })) } else { call };
        call.send().expect(200).json()
    };
    assert_eq!(touched("PATCH", "/rest/v1/notes?id=eq.3"), json!([]));
    assert_eq!(touched("DELETE", "/rest/v1/notes?id=eq.3"), json!([]));
    assert_eq!(touched("PATCH", "/rest/v1/notes?id=eq.1")[0]["text"], "x");
    assert_eq!(touched("DELETE", "/rest/v1/notes?id=eq.1")[0]["id"], 1);
    assert_eq!(tenant.rows("SELECT id, text FROM notes WHERE id IN (1, 3)", json!([])), json!([[3, "bob's own canary"]]));
    refused(ann.delete("/rest/v1/people?id=eq.1"), "permission denied for table people");
    ann.delete("/rest/v1/nowhere?id=eq.1").refused(403, "42501");
}

#[test]
fn a_merge_never_changes_a_hidden_row() {
    let tenant = tenant();
    let ann = ann(&tenant);
    let merge = |path: &str, body: Value, how: &str| {
        ann.call("POST", path).header("Prefer", &format!("resolution={how}-duplicates")).json(&body).send()
    };
    merge("/rest/v1/notes", json!({ "id": 3, "owner": "ann", "text": "taken" }), "merge").refused(403, "42501");
    merge("/rest/v1/notes", json!({ "id": 1, "owner": "ann", "text": "kept" }), "merge").expect(200);
    merge("/rest/v1/notes", json!({ "id": 1, "owner": "bob", "text": "kept" }), "merge").refused(403, "42501");
    merge("/rest/v1/notes", json!([{ "id": 90, "owner": "ann" }, { "id": 91, "owner": "bob" }]), "merge").refused(403, "42501");
    merge("/rest/v1/notes", json!({ "id": 3, "owner": "ann" }), "ignore").expect(201);
    // Whoever may insert anything may change only what is its own.
    let put = |body: Value| ann.call("PUT", "/rest/v1/drafts?id=eq.1").json(&body).send();
    put(json!({ "id": 1, "owner": "bob" })).refused(403, "42501");
    put(json!({ "id": 1, "owner": "ann" })).succeeds();
    ann.call("PUT", "/rest/v1/notes?id=eq.3").json(&json!({ "id": 3, "owner": "ann" })).send().refused(403, "42501");
    // Its primary key is bytes, and it has no rowids.
    merge("/rest/v1/seals", json!({ "id": "AP8=", "owner": "ann" }), "merge").succeeds();
    merge("/rest/v1/seals", json!({ "id": "AAA=", "owner": "bob" }), "merge").refused(403, "42501");
    ann.post("/rest/v1/seals", json!({ "id": "AAE=", "owner": "bob" })).refused(403, "42501");
    let seal = ann.call("POST", "/rest/v1/seals").header("Prefer", "return=representation").json(&json!({ "id": "AAI=", "owner": "ann" }));
    assert_eq!(seal.send().expect(201).json(), json!([{ "id": "AAI=", "owner": "ann" }]));
    assert_eq!(
        tenant.rows("SELECT hex(id), owner FROM seals ORDER BY id", json!([])),
        json!([["0002", "ann"], ["00FF", "ann"], ["01", "bob"]])
    );
    // ON CONFLICT REPLACE in the table's own constraint.
    ann.post("/rest/v1/slots", json!({ "id": 1, "owner": "ann" })).refused(409, "23505");
    assert_eq!(tenant.rows("SELECT owner FROM slots", json!([])), json!([["bob"]]));
    assert_eq!(
        tenant.rows("SELECT text, owner FROM notes WHERE id IN (1, 3) ORDER BY id", json!([])),
        json!([["kept", "ann"], ["bob's own canary", "bob"]])
    );
}

#[test]
fn a_column_that_is_not_granted_is_as_one_that_is_not_there() {
    let tenant = tenant();
    let ann = ann(&tenant);
    assert_eq!(got(&ann, "people?id=eq.1"), json!([{ "id": 1, "name": "Ann" }]));
    assert_eq!(
        got(&ann, "projects?select=id,people(*)&id=eq.1"),
        json!([{ "id": 1, "people": [{ "id": 1, "name": "Ann" }, { "id": 2, "name": "Bob" }] }])
    );
    for query in [
        "select=COLUMN",
        "COLUMN=eq.1",
        "order=COLUMN",
        "select=COLUMN.max()",
        "or=(COLUMN.is.null)",
        "select=x:COLUMN::text",
        "select=COLUMN-%3Ea",
    ] {
        let said = |column: &str| {
            let answer = ann.get(&format!("/rest/v1/people?{}", query.replace("COLUMN", column)));
            (answer.status, answer.text().replace(column, "?"))
        };
        assert_eq!(said("salary"), said("salarx"), "{query}");
        assert_eq!(said("salary").0, 400, "{query}");
    }
    ann.patch("/rest/v1/people?id=eq.1", json!({ "salary": 1 })).refused(400, "PGRST204");
    ann.patch("/rest/v1/people?id=eq.1", json!({ "id": 9 })).refused(400, "PGRST204");
    let changed = ann.call("PATCH", "/rest/v1/people?id=eq.1").header("Prefer", "return=representation").json(&json!({ "name": "Anna" }));
    assert_eq!(changed.send().expect(200).json(), json!([{ "id": 1, "name": "Anna" }]));
    let document = got(&ann, "");
    assert_eq!(document["definitions"]["people"]["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "name"]);
    assert!(document["definitions"]["vault"].is_null() && document["paths"]["/vault"].is_null());
}

#[test]
fn a_table_without_a_policy_is_as_one_that_is_not_there() {
    let tenant = tenant();
    let (ann, anon) = (ann(&tenant), user(shared(), &tenant, "anon", "key"));
    for (user, status) in [(&ann, 403), (&anon, 401)] {
        for method in ["GET", "OPTIONS", "DELETE", "HEAD"] {
            let said = |table: &str| {
                let answer = user.call(method, &format!("/rest/v1/{table}")).send();
                (answer.status, answer.text().replace(table, "?"))
            };
            assert_eq!(said("vault"), said("vaulx"), "{method}");
            assert_eq!(said("vault").0, status, "{method}");
        }
    }
    let said =
        |table: &str| ann.get(&format!("/rest/v1/projects?select=id,{table}(*)")).refused(400, "PGRST200").to_string().replace(table, "?");
    assert_eq!(said("vault"), said("vaulx"));
    assert_eq!(got(&tenant, "projects?select=id,vault(id)&id=eq.1"), json!([{ "id": 1, "vault": [{ "id": 1 }] }]));
}

#[test]
fn who_did_not_sign_in_may_do_what_is_for_anybody() {
    let tenant = tenant();
    let anon = user(shared(), &tenant, "anon", "key");
    assert_eq!(got(&anon, "projects?select=name"), json!([{ "name": "Open" }]));
    anon.post("/rest/v1/messages", json!({ "text": "hello" })).expect(201);
    anon.get("/rest/v1/messages").refused(401, "42501");
    let back = anon.call("POST", "/rest/v1/messages").header("Prefer", "return=representation").json(&json!({ "text": "hello" }));
    back.send().refused(401, "42501");
    anon.post("/rest/v1/messages", json!({ "text": "" })).refused(401, "42501");
    // auth.uid() is nobody's.
    assert_eq!(got(&anon, "tasks?select=name"), json!([{ "name": "Greet" }]));
}

#[test]
fn roles_of_the_application_have_policies_of_their_own() {
    let tenant = tenant();
    let auditor = user(shared(), &tenant, "auditor", "eve");
    assert_eq!(got(&auditor, "notes?select=id&order=id"), json!([{ "id": 1 }, { "id": 2 }, { "id": 3 }]));
    auditor.patch("/rest/v1/notes?id=eq.1", json!({ "text": "x" })).refused(403, "42501");
    assert_eq!(got(&auditor, "people?id=eq.1&select=salary"), json!([{ "salary": 10 }]));
    let stranger = user(shared(), &tenant, "nobody-named-it", "eve");
    assert_eq!(got(&stranger, "projects?select=name"), json!([{ "name": "Open" }]));
    stranger.get("/rest/v1/notes").refused(403, "42501");
}

#[test]
fn an_error_tells_nothing_of_hidden_rows() {
    let tenant = tenant();
    let ann = ann(&tenant);
    // SQLite does not look at the rows that are there when a column is added.
    tenant.script(
        "UPDATE notes SET doc = 'no json canary' WHERE id = 3; UPDATE notes SET doc = '{\"a\":1}' WHERE id = 1; \
         ALTER TABLE notes ADD COLUMN broken INTEGER GENERATED ALWAYS AS (json_extract(doc, '$.a')) VIRTUAL;",
    );
    for query in ["broken=eq.1&id=eq.3", "broken=not.is.null&owner=eq.bob", "or=(broken.eq.1,id.eq.3)&owner=eq.bob"] {
        assert_eq!(got(&ann, &format!("notes?select=id&{query}")), json!([]), "{query}");
    }
    tenant.get("/rest/v1/notes?select=id&broken=eq.1&id=eq.3").refused(400, "XX000");
    assert_eq!(got(&ann, "tasks?select=id,notes!inner(id)&notes.broken=eq.5"), json!([]));
    for query in ["owner=eq.ann&broken=eq.1&id=eq.3", "broken=eq.1&owner=eq.ann&id=gte.3"] {
        assert_eq!(got(&ann, &format!("notes?select=id&{query}")), json!([]), "{query}");
    }
    ann.post("/rest/v1/notes", json!({ "id": 3, "owner": "ann" })).refused(409, "23505");
    let taken = ann.post("/rest/v1/people", json!({ "name": "Cid", "salary": 1 })).refused(403, "42501");
    assert!(!taken.to_string().contains("Cid"));
}

#[test]
fn sql_is_for_those_whom_no_policy_holds_back() {
    let tenant = tenant();
    let ann = ann(&tenant);
    ann.sql("SELECT 1", json!([])).refused(403, "forbidden");
    let pipeline = json!({ "requests": [{ "type": "execute", "stmt": { "sql": "SELECT * FROM vault" } }] });
    for path in ["/v2/pipeline", "/v3/pipeline"] {
        ann.post(path, pipeline.clone()).refused(403, "forbidden");
        tenant.post(path, pipeline.clone()).expect(200);
    }
    ann.post("/v3/cursor", json!({ "batch": { "steps": [] } })).refused(403, "forbidden");
}

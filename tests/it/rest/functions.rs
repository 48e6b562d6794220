//! Functions of the application's: called by name, with typed arguments, by whom they are granted to.

use std::path::Path;

use tempfile::TempDir;

use super::FIXTURE;
use super::cases::hold;
use crate::support::{Server, TenantClient, json};

/// The fixture as a migration, and beside it the functions of `tests/it/rest/functions`.
fn application() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0001_fixture.up.sql"), FIXTURE).unwrap();
    let functions = folder.path().join("functions");
    std::fs::create_dir(&functions).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rest/functions");
    for file in std::fs::read_dir(own).unwrap().flatten() {
        std::fs::write(functions.join(file.file_name()), std::fs::read(file.path()).unwrap()).unwrap();
    }
    folder
}

fn serving(folder: &TempDir) -> Server {
    Server::with(|with| {
        with.set("tenants.migrations_dir", folder.path().display()).set("rest.unindexed_embeds", "index");
    })
}

fn with_role(server: &Server, tenant: &TenantClient, role: &str) -> TenantClient {
    let body = json!({ "role": role, "sub": "u1", "scopes": ["sql:read", "sql:write"], "expires_in_s": 60 });
    let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
    tenant.with_token(token["token"].as_str().unwrap())
}

#[test]
fn every_call_of_a_function_holds() {
    let folder = application();
    let server = serving(&folder);
    let held = hold(&[("functions.txt", include_str!("functions.txt"))], || server.tenant("functions"));
    assert!(held > 30);
}

#[test]
fn a_call_that_is_known_serves_other_arguments_callers_and_pages() {
    let folder = application();
    let server = serving(&folder);
    let tenant = server.tenant("known");
    // A table of the function's name is none of its business.
    tenant.script("CREATE TABLE numbers (i INTEGER); INSERT INTO numbers VALUES (77)");
    let user = with_role(&server, &tenant, "authenticated");
    let rows = |client: &TenantClient, path: &str| client.get(&format!("/rest/v1/{path}")).expect(200).json();
    for _ in 0..2 {
        assert_eq!(rows(&tenant, "rpc/numbers?most=2"), json!([1, 2]));
        assert_eq!(rows(&tenant, "rpc/numbers?most=3"), json!([1, 2, 3]));
        assert_eq!(rows(&tenant, "rpc/numbers?most=9&limit=2&offset=4"), json!([5, 6]));
        assert_eq!(rows(&tenant, "numbers"), json!([{ "i": 77 }]));
        assert_eq!(
            rows(&tenant, "rpc/tasks_of?project=1&select=id,projects(name)&id=gt.1"),
            json!([{ "id": 2, "projects": { "name": "Engine" } }])
        );
        assert_eq!(
            rows(&tenant, "rpc/tasks_of?project=2&select=id,projects(name)&id=gt.2"),
            json!([{ "id": 3, "projects": { "name": "Notes" } }])
        );
        assert_eq!(rows(&tenant, "rpc/tasks_of?project=1&least=4&select=id"), json!([{ "id": 2 }]));
        assert_eq!(rows(&tenant, "rpc/me?select=role"), json!([{ "role": "service" }]));
        assert_eq!(rows(&user, "rpc/me?select=role"), json!([{ "role": "authenticated" }]));
        let counted = tenant.call("GET", "/rest/v1/rpc/numbers?most=5&limit=1").header("Prefer", "count=exact").send();
        assert_eq!(counted.header("content-range"), Some("0-0/5"));
    }
    tenant.script("ALTER TABLE tasks RENAME COLUMN hours TO effort");
    tenant.get("/rest/v1/rpc/tasks_of?project=1&select=id").refused(400, "XX000");
}

#[test]
fn a_function_is_there_for_those_it_is_granted_to() {
    let folder = application();
    let server = serving(&folder);
    let tenant = server.tenant("granted");
    let user = with_role(&server, &tenant, "authenticated");
    let who = json!([{ "uid": "u1", "role": "authenticated", "note": "u1" }]);
    assert_eq!(user.get("/rest/v1/rpc/me").expect(200).json(), who);
    assert_eq!(user.get("/rest/v1/rpc/say?name=x").expect(200).json(), json!("Hello, x"));
    // With its definer's rights: the table is not the caller's, its rows are what the function returns.
    user.get("/rest/v1/clients").refused(403, "42501");
    assert_eq!(user.get("/rest/v1/rpc/anything?select=id").expect(200).json(), json!([{ "id": 1 }, { "id": 2 }]));
    user.get("/rest/v1/rpc/anything?select=id,projects(id)").refused(400, "PGRST200");
    let (granted_to_others, unknown) =
        (user.get("/rest/v1/rpc/task?number=1").refused(404, "PGRST202"), user.get("/rest/v1/rpc/tusk?number=1").refused(404, "PGRST202"));
    assert_eq!(granted_to_others.to_string().replace("task", "tusk"), unknown.to_string());

    let near = tenant.get("/rest/v1/rpc/add_then?a=1").refused(404, "PGRST202");
    assert_eq!(near["hint"], "Perhaps you meant to call the function public.add_them(a, b)");
    let allowed = |name: &str| tenant.call("OPTIONS", &format!("/rest/v1/rpc/{name}")).send();
    assert_eq!(allowed("hire").expect(200).header("allow"), Some("OPTIONS,POST"));
    assert_eq!(allowed("task").expect(200).header("allow"), Some("OPTIONS,GET,HEAD,POST"));
    allowed("tusk").expect(404);
    let paths = |client: &TenantClient| client.get("/rest/v1/").expect(200).json()["paths"].clone();
    assert!(paths(&tenant)["/rpc/hire"]["get"].is_null() && paths(&tenant)["/rpc/hire"]["post"].is_object());
    assert!(paths(&user)["/rpc/me"]["get"].is_object() && paths(&user)["/rpc/hire"].is_null());
}

#[test]
fn what_a_function_writes_is_one_transaction() {
    let folder = application();
    let server = serving(&folder);
    let tenant = server.tenant("whole");
    tenant.post("/rest/v1/rpc/hire", json!({ "name": "Eve", "code": "too long" })).refused(400, "23514");
    assert_eq!(tenant.rows("SELECT count(*) FROM people WHERE name = 'Eve'", json!([])), json!([[0]]));
    tenant.post("/rest/v1/rpc/hire?select=nothing", json!({ "name": "Eve", "code": "EEE" })).refused(400, "42703");
    assert_eq!(tenant.rows("SELECT count(*) FROM people WHERE name = 'Eve'", json!([])), json!([[0]]));
    let reader = json!({ "role": "service", "sub": "reader", "scopes": ["sql:read"], "expires_in_s": 60 });
    let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), reader).expect(201).json();
    let reader = tenant.with_token(token["token"].as_str().unwrap());
    reader.post("/rest/v1/rpc/hire", json!({ "name": "Eve", "code": "EEE" })).refused(403, "forbidden");
    reader.post("/rest/v1/rpc/task", json!({ "number": 1 })).expect(200);
}

#[test]
fn a_server_says_where_a_function_is_wrong_and_does_not_start() {
    for (name, text, said) in [
        ("f", "CREATE FUNCTION f() RETURNS int STABLE AS $$\n  SELECT 1 +\n$$;", "f.sql:2:3: incomplete input"),
        ("f", "CREATE FUNCTION f() RETURNS int STABLE AS $$\n  SELECT absent FROM tasks\n$$;", "f.sql:2:10: no such column: absent"),
        ("f", "CREATE FUNCTION f() RETURNS int STABLE AS $$ SELECT 1, 2 $$;", "f.sql:1:46: the last statement has 2 columns"),
        ("f", "CREATE FUNCTION f() RETURNS SETOF nowhere STABLE AS $$ SELECT 1 $$;", "RETURNS nowhere: no such table: nowhere"),
        (
            "f",
            "CREATE FUNCTION f() RETURNS void STABLE AS $$ DELETE FROM tasks $$;",
            "f.sql:1:47: this writes, and the function is not VOLATILE",
        ),
        ("f", "CREATE FUNCTION f() RETURNS void AS $$ DROP TABLE tasks $$;", "f.sql:1:40: a function does not change the schema"),
        ("f", "CREATE FUNCTION f() RETURNS int STABLE AS $$ SELECT count(*) FROM _tenantry_migrations $$;", "is not allowed here"),
        ("g", "CREATE FUNCTION f() RETURNS int STABLE AS $$ SELECT 1 $$;", "g.sql:1:17: the function f belongs into f.sql"),
    ] {
        let folder = application();
        std::fs::write(folder.path().join("functions").join(format!("{name}.sql")), text).unwrap();
        let server = Server::stopped(|with| {
            with.set("tenants.migrations_dir", folder.path().display());
        });
        let output = server.command().output().unwrap();
        let refused = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && refused.contains(said), "{text}: {refused}");
    }
}

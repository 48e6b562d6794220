//! Several requests of the dialect in one transaction.

use super::tenant;
use crate::support::{Server, TenantClient, Value, json};

fn batch(tenant: &TenantClient, operations: Value) -> crate::support::Answer {
    tenant.post("/rest/v1/", json!({ "operations": operations }))
}

#[test]
fn a_batch_over_several_tables_is_one_transaction() {
    let tenant = tenant();
    let answer = batch(
        &tenant,
        json!([
            { "method": "POST", "path": "projects?select=id", "prefer": "return=representation", "body": { "id": 70, "name": "Batch" } },
            { "method": "POST", "path": "tasks", "body": [{ "id": 70, "name": "a", "project_id": 70 }, { "id": 71, "name": "b", "project_id": 70 }] },
            { "method": "PATCH", "path": "tasks?id=eq.71", "prefer": "count=exact", "body": { "hours": 4 } },
            { "method": "GET", "path": "projects?select=name,tasks(id,hours)&id=eq.70", "accept": "application/vnd.pgrst.object+json" },
            { "method": "DELETE", "path": "tasks?id=eq.70" },
        ]),
    );
    let none = json!(null);
    assert_eq!(
        answer.expect(200).json()["results"],
        json!([
            { "status": 201, "content_range": "*/*", "location": none, "preference_applied": "return=representation", "body": [{ "id": 70 }] },
            { "status": 201, "content_range": "*/*", "location": none, "preference_applied": none, "body": none },
            { "status": 204, "content_range": "0-0/1", "location": none, "preference_applied": "count=exact", "body": none },
            { "status": 200, "content_range": "0-0/*", "location": none, "preference_applied": none,
              "body": { "name": "Batch", "tasks": [{ "id": 70, "hours": null }, { "id": 71, "hours": 4 }] } },
            { "status": 204, "content_range": "*/*", "location": none, "preference_applied": none, "body": none },
        ])
    );
    assert_eq!(tenant.rows("SELECT id FROM tasks WHERE id >= 70", json!([])), json!([[71]]));
}

#[test]
fn the_first_that_fails_undoes_all() {
    let tenant = tenant();
    let insert = json!({ "method": "POST", "path": "clients", "body": { "id": 80, "name": "new" } });
    for (second, status, code) in [
        (json!({ "method": "POST", "path": "clients", "body": { "id": 1, "name": "taken" } }), 409, "23505"),
        (json!({ "method": "POST", "path": "tasks", "body": { "name": "x", "project_id": 999 } }), 409, "23503"),
        (json!({ "method": "GET", "path": "clients?id=eq.99", "accept": "application/vnd.pgrst.object+json" }), 406, "PGRST116"),
        (json!({ "method": "GET", "path": "clients?offset=99", "prefer": "count=exact" }), 416, "PGRST103"),
        (json!({ "method": "DELETE", "path": "clientx" }), 404, "PGRST205"),
        (json!({ "method": "PATCH", "path": "open_tasks", "body": { "name": "x" } }), 405, "55000"),
        (json!({ "method": "GET", "path": "clients?nope=eq.1" }), 400, "42703"),
        (json!({ "method": "GET", "path": "clients?id=1" }), 400, "PGRST100"),
        (json!({ "method": "GET", "path": "clients", "accept": "text/csv" }), 406, "PGRST107"),
        (json!({ "method": "HEAD", "path": "clients" }), 400, "PGRST102"),
        (json!({ "method": "DELETE", "path": "rpc/f" }), 405, "PGRST101"),
        (json!({ "method": "POST", "path": "rpc/f" }), 404, "PGRST202"),
    ] {
        let error = batch(&tenant, json!([insert, second])).refused(status, code);
        assert!(error["message"].as_str().unwrap().starts_with("operations[1]: "), "{error}");
        assert_eq!(tenant.rows("SELECT count(*) FROM clients", json!([])), json!([[2]]), "{second}");
    }
    let many = vec![json!({ "method": "GET", "path": "clients" }); 101];
    batch(&tenant, json!(many)).refused(400, "PGRST100");
    tenant.post("/rest/v1/", json!({ "operation": [] })).refused(400, "PGRST102");
}

#[test]
fn a_batch_is_held_to_scopes_roles_and_the_plans_bounds() {
    let server = Server::with(|with| {
        with.set("plans.default.result_bytes", 400);
    });
    let tenant = server.tenant("batch");
    tenant.script(super::FIXTURE);
    let (read, write) = (json!({ "method": "GET", "path": "clients" }), json!({ "method": "DELETE", "path": "tasks?id=eq.1" }));
    let scoped = |role: &str, scopes: &[&str]| {
        let body = json!({ "role": role, "sub": "u", "scopes": scopes, "expires_in_s": 60 });
        let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
        tenant.with_token(token["token"].as_str().unwrap())
    };
    let reader = scoped("service", &["sql:read"]);
    batch(&reader, json!([read, read])).expect(200);
    batch(&reader, json!([read, write])).refused(403, "forbidden");
    batch(&scoped("authenticated", &["sql:read", "sql:write"]), json!([write])).refused(403, "42501");
    batch(&tenant, json!([write, read, read, read, read])).refused(422, "result_too_large");
    assert_eq!(tenant.rows("SELECT count(*) FROM tasks", json!([])), json!([[4]]));
}

#[test]
fn a_key_has_a_batch_happen_once() {
    let tenant = tenant();
    let body = json!({ "operations": [{ "method": "POST", "path": "people?select=id", "prefer": "return=representation", "body": { "name": "K" } }] });
    let send = |body: &Value| tenant.call("POST", "/rest/v1/").idempotency_key("k1").json(body).send();
    let (first, second) = (send(&body).expect(200), send(&body).expect(200));
    assert_eq!((first.text(), first.header("idempotent-replayed")), (second.text(), None));
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(tenant.rows("SELECT count(*) FROM people WHERE name = 'K'", json!([])), json!([[1]]));
    send(&json!({ "operations": [] })).refused(409, "conflict");
}

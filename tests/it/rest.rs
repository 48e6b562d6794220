//! Rows over HTTP, seen from outside: the dialect's cases on one fixture ([`cases`]), and what a case cannot say.

mod batch;
mod cases;
mod functions;
mod indexes;

use crate::support::{Server, TenantClient, Value, json};

const FIXTURE: &str = include_str!("rest/fixture.sql");

/// A tenant with the fixture's tables.
fn tenant() -> TenantClient {
    let tenant = Server::shared().tenant("rest");
    tenant.script(FIXTURE);
    tenant
}

#[test]
fn integers_blobs_and_documents_survive_both_ways() {
    let tenant = tenant();
    let body = r#"{"id":7,"big":9007199254740993,"flag":true,"doc":{"n":1.10,"a":[1,null]},"bytes":"AP8=","price":12.5}"#;
    let made = tenant.call("POST", "/rest/v1/kinds").header("Prefer", "return=representation").bytes("application/json", body).send();
    let made = made.expect(201).text();
    assert!(made.contains("\"big\":9007199254740993"), "{made}");
    assert!(made.contains("\"doc\":{\"n\":1.10,\"a\":[1,null]}"), "{made}");
    assert!(made.contains("\"flag\":true") && made.contains("\"bytes\":\"AP8=\""), "{made}");
    let stored = tenant.rows("SELECT typeof(big), typeof(bytes), flag, typeof(doc) FROM kinds WHERE id = 7", json!([]));
    assert_eq!(stored, json!([["integer", "blob", 1, "text"]]));
}

#[test]
fn a_value_that_is_not_of_the_columns_type_does_not_break_the_answer() {
    let tenant = tenant();
    tenant.script("INSERT INTO kinds(id, flag, doc) VALUES (8, 'perhaps', 'no json'), (9, x'00', x'ff')");
    let rows = tenant.get("/rest/v1/kinds?select=flag,doc&id=in.(8,9)").expect(200).json();
    assert_eq!(rows, json!([{ "flag": "perhaps", "doc": "no json" }, { "flag": "AA==", "doc": "/w==" }]));
    assert_eq!(tenant.get("/rest/v1/kinds?select=id&doc-%3E%3Ea=eq.1").expect(200).json(), json!([]));
}

#[test]
fn a_write_that_fails_halfway_leaves_nothing() {
    let tenant = tenant();
    let body = json!([{ "id": 50, "name": "new" }, { "id": 1, "name": "taken" }]);
    tenant.post("/rest/v1/clients", body).refused(409, "23505");
    let many = tenant.call("DELETE", "/rest/v1/tasks?id=gt.0").header("Prefer", "handling=strict, max-affected=2").send();
    many.refused(400, "PGRST124");
    let single = tenant.call("PATCH", "/rest/v1/tasks").header("Accept", "application/vnd.pgrst.object+json").json(&json!({ "name": "x" }));
    single.send().refused(406, "PGRST116");
    assert_eq!(
        tenant.rows("SELECT (SELECT count(*) FROM clients), (SELECT count(*) FROM tasks WHERE name <> 'x')", json!([])),
        json!([[2, 4]])
    );
}

#[test]
fn a_changed_schema_shows_at_once() {
    let tenant = tenant();
    tenant.get("/rest/v1/later").refused(404, "PGRST205");
    tenant.script("CREATE TABLE later (id INTEGER PRIMARY KEY, a)");
    assert_eq!(tenant.get("/rest/v1/later").expect(200).json(), json!([]));
    tenant.get("/rest/v1/later?select=b").refused(400, "42703");
    tenant.script("ALTER TABLE later ADD COLUMN b; INSERT INTO later(a, b) VALUES (1, 2)");
    assert_eq!(tenant.get("/rest/v1/later?select=b").expect(200).json(), json!([{ "b": 2 }]));
}

#[test]
fn only_a_service_token_has_access_while_there_are_no_policies() {
    let server = Server::shared();
    let tenant = tenant();
    for (role, status) in [("authenticated", 403), ("anon", 401)] {
        let body = json!({ "role": role, "sub": "u1", "scopes": ["sql:read", "sql:write"], "expires_in_s": 60 });
        let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
        let user = tenant.with_token(token["token"].as_str().unwrap());
        user.get("/rest/v1/clients").refused(status, "42501");
        user.get("/rest/v1/clients?limit=0").refused(status, "42501");
        user.post("/rest/v1/clients", json!({ "name": "x" })).refused(status, "42501");
        user.patch("/rest/v1/clients?id=eq.1", json!({ "name": "x" })).refused(status, "42501");
        user.delete("/rest/v1/clients?id=eq.1").refused(status, "42501");
        assert_eq!(user.get("/rest/v1/").expect(200).json()["definitions"], json!({}));
    }
}

#[test]
fn a_token_needs_the_scopes_of_what_it_does() {
    let server = Server::shared();
    let tenant = tenant();
    let body = json!({ "role": "service", "sub": "reader", "scopes": ["sql:read"], "expires_in_s": 60 });
    let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
    let reader = tenant.with_token(token["token"].as_str().unwrap());
    reader.get("/rest/v1/clients").expect(200);
    reader.delete("/rest/v1/clients?id=eq.2").refused(403, "forbidden");
}

#[test]
fn tables_of_tenantrys_own_and_of_sqlites_are_not_there() {
    let tenant = tenant();
    for table in ["sqlite_schema", "sqlite_sequence", "_tenantry_idempotency", "json_each"] {
        tenant.get(&format!("/rest/v1/{table}")).refused(404, "PGRST205");
    }
}

#[test]
fn an_answer_is_within_the_plans_bounds() {
    let server = Server::with(|with| {
        with.set("plans.default.result_rows", 3);
    });
    let tenant = server.tenant("bounded");
    tenant.script(FIXTURE);
    tenant.get("/rest/v1/tasks").refused(422, "result_too_large");
    assert_eq!(tenant.get("/rest/v1/tasks?limit=3").expect(200).json().as_array().map(Vec::len), Some(3));
}

#[test]
fn how_sqlite_finds_rows_is_told_to_the_service() {
    let (server, tenant) = (Server::shared(), tenant());
    let explain = |client: &crate::support::Client, path: &str, form: &str| {
        client
            .call("GET", path)
            .header("Accept", &format!("application/vnd.pgrst.plan{form}; for=\"application/json\"; options=verbose;"))
            .send()
    };
    tenant.get("/rest/v1/projects?select=id,tasks(id)&id=eq.1").expect(200);
    let text = explain(&tenant, "/rest/v1/projects?select=id,tasks(id)&id=eq.1", "+text").expect(200).text();
    assert!(
        text.contains("SEARCH t0 USING INTEGER PRIMARY KEY")
            && text.contains("\n    SEARCH t2 USING COVERING INDEX _tenantry_fk_tasks_project_id"),
        "{text}"
    );
    let json = explain(&tenant, "/rest/v1/clients?name=eq.x", "+json").expect(200).json();
    assert!(json[0]["Plan"][0]["detail"].as_str().unwrap().contains("USING INDEX sqlite_autoindex_clients_1"), "{json}");
    assert!(json[0]["SQL"].as_str().unwrap().contains("WHERE (t0.\"name\"=?"), "{json}");
    let change = tenant.call("PATCH", "/rest/v1/clients").header("Accept", "application/vnd.pgrst.plan").json(&json!({ "name": "x" }));
    change.send().refused(400, "PGRST127");
    let body = json!({ "role": "authenticated", "sub": "u", "scopes": ["sql:read"], "expires_in_s": 60 });
    let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), body).expect(201).json();
    explain(&tenant.with_token(token["token"].as_str().unwrap()), "/rest/v1/clients", "").refused(403, "42501");
}

#[test]
fn a_path_or_method_that_is_not_there_is_said_in_the_dialect() {
    let tenant = tenant();
    tenant.get("/rest/v1/clients/1").refused(404, "PGRST125");
    let put = tenant.call("PUT", "/rest/v1/").json(&json!({})).send();
    assert_eq!(put.header("allow"), Some("GET, POST"));
    put.refused(405, "PGRST117");
    tenant.get("/v1/nothing").refused(404, "not_found");
}

#[test]
fn a_statement_that_is_known_serves_other_literals_and_pages() {
    let tenant = tenant();
    let ids = |query: &str| {
        let rows = tenant.get(&format!("/rest/v1/tasks?select=id&{query}")).expect(200).json();
        rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let doc = |query: &str| tenant.get(&format!("/rest/v1/kinds?select=id&{query}")).expect(200).json();
    for _ in 0..2 {
        assert_eq!((ids("id=eq.1"), ids("id=eq.3"), ids("id=eq.99")), (vec![1], vec![3], vec![]));
        assert_eq!((ids("id=in.(1,2)"), ids("id=in.(3)"), ids("id=in.()")), (vec![1, 2], vec![3], vec![]));
        assert_eq!((ids("name=like.D*"), ids("name=like.*u_")), (vec![1], vec![2]));
        assert_eq!(
            (ids("limit=1"), ids("limit=2"), ids("limit=1&offset=1"), ids("limit=2&offset=2")),
            (vec![1], vec![1, 2], vec![2], vec![3, 4])
        );
        assert_eq!((ids("or=(id.eq.1,id.eq.2)"), ids("or=(id.eq.3,id.eq.4)")), (vec![1, 2], vec![3, 4]));
        assert_eq!((ids("id=gt(all).{2,3}"), ids("id=gt(all).{1,2}")), (vec![4], vec![3, 4]));
        assert_eq!((doc("doc-%3En=gt.9"), doc("doc-%3En=gt.%229%22")), (json!([{ "id": 2 }]), json!([])));
        tenant.get("/rest/v1/tasks?select=id&id=eq.x").refused(400, "22P02");
        tenant.get("/rest/v1/tasks?select=id&id=in.(1").refused(400, "PGRST100");
    }
    tenant.script("ALTER TABLE tasks RENAME COLUMN hours TO effort");
    assert_eq!(tenant.get("/rest/v1/tasks?id=eq.1").expect(200).json()[0]["effort"], 3);
    tenant.script("ALTER TABLE tasks RENAME COLUMN effort TO pain");
    assert_eq!(tenant.get("/rest/v1/tasks?id=eq.1").expect(200).json()[0]["pain"], 3);
}

#[test]
fn the_tables_are_described() {
    let tenant = tenant();
    let document = tenant.get("/rest/v1/").expect(200).json();
    let task = &document["definitions"]["tasks"];
    assert_eq!(task["required"], json!(["name"]));
    assert_eq!(task["properties"]["id"]["description"], "Note:\nThis is a Primary Key.<pk/>");
    assert!(task["properties"]["project_id"]["description"].as_str().unwrap().contains("table='projects' column='id'"));
    assert!(document["paths"]["/open_tasks"]["post"].is_null() && document["paths"]["/tasks"]["post"].is_object());
    let allowed = |table: &str| tenant.call("OPTIONS", &format!("/rest/v1/{table}")).send().expect(200);
    assert_eq!(allowed("tasks").header("allow"), Some("OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE"));
    assert_eq!(allowed("open_tasks").header("allow"), Some("OPTIONS,GET,HEAD"));
}

#[test]
fn nothing_a_request_says_is_taken_for_sql() {
    let tenant = tenant();
    // An index may be made for what is embedded.
    let schema = || tenant.rows("SELECT group_concat(sql) FROM sqlite_schema WHERE type <> 'index'", json!([]));
    let before = schema();
    for text in ["'; DROP TABLE tasks; --", "\"", "') OR 1=1 --", "\\", "\0", "{\"a\":1}", "$.a'"] {
        let text = crate::support::segment(text);
        for path in [
            format!("/rest/v1/{text}"),
            format!("/rest/v1/tasks?{text}=eq.1"),
            format!("/rest/v1/tasks?name=eq.{text}"),
            format!("/rest/v1/tasks?select=%22{text}%22:id"),
            format!("/rest/v1/tasks?select=id,%22{text}%22"),
            format!("/rest/v1/kinds?select=doc-%3E%22{text}%22"),
            format!("/rest/v1/tasks?order=%22{text}%22"),
            format!("/rest/v1/projects?select=id,%22{text}%22:tasks(id)"),
        ] {
            let answer = tenant.get(&path);
            assert!([200, 400, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
            if answer.status == 200 {
                let rows: Value = answer.json();
                assert!(path.contains("select") || rows == json!([]), "{path}: {rows}");
            }
        }
    }
    assert_eq!(schema(), before);
}

#[test]
fn a_path_into_json_may_come_as_it_is_written() {
    let tenant = tenant();
    let path = "/rest/v1/kinds?select=id&doc->a->>b=eq.y";
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n", tenant.token);
    let answer = Server::shared().raw(request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"[{"id":2}]"#), "{answer}");
}

#[test]
fn who_has_no_access_learns_no_name() {
    let (server, tenant) = (Server::shared(), tenant());
    let token = json!({ "sub": "somebody", "role": "authenticated", "scopes": ["sql:read", "sql:write"], "expires_in_s": 60 });
    let token = server.admin().post(&format!("/admin/v1/tenants/{}/tokens", tenant.id), token).expect(201).json()["token"].clone();
    let stranger = tenant.with_token(token.as_str().unwrap());
    let said = |method: &str, path: &str| {
        let answer = stranger.call(method, path).send();
        (answer.status, answer.text().replace("/rest/v1/", ""))
    };
    for method in ["GET", "OPTIONS", "DELETE"] {
        let (there, not) = (said(method, "/rest/v1/clients"), said(method, "/rest/v1/clientx"));
        assert_eq!((there.0, there.1.replace("clients", "clientx")), not, "{method}");
    }
    for query in ["?select=nothing", "?select=tasks(*)", "?name=eq.x"] {
        assert_eq!(said("GET", &format!("/rest/v1/clients{query}")), said("GET", "/rest/v1/clients"), "{query}");
    }
}

#[test]
fn what_a_request_has_written_of_it_is_bounded() {
    let tenant = tenant();
    let stars = vec!["*"; 3_000].join(",");
    tenant.get(&format!("/rest/v1/clients?select={stars}")).refused(400, "PGRST100");
    let leaves = vec!["tasks.is.null"; 150].join(",");
    let query = format!("select=id,projects(id,tasks(id))&or=({})&projects.or=({leaves})", vec!["projects.is.null"; 150].join(","));
    tenant.get(&format!("/rest/v1/clients?{query}")).refused(400, "PGRST100");
}

//! `POST /admin/v1/tenants` and `:batch`: one row, three files, a token; all or nothing, once for a key.

use crate::support::*;

const TENANTS: &str = "/admin/v1/tenants";

#[test]
fn a_tenant_is_made_and_its_token_works_at_once() {
    let server = Server::shared();
    let slug = unique("acme");
    let answer = server.admin().post(TENANTS, json!({ "slug": slug, "name": "Acme, Inc." })).expect(201).json();

    let tenant = &answer["tenant"];
    assert_eq!((&tenant["slug"], &tenant["name"]), (&json!(slug), &json!("Acme, Inc.")));
    assert_eq!((&tenant["state"], &tenant["plan"]), (&json!("active"), &json!("default")));
    let id = uuid::Uuid::parse_str(tenant["id"].as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 7, "ids are UUIDv7");
    let made = tenant["created_at"].as_str().unwrap();
    assert!(tenantry::clock::parse_rfc3339(made).is_some() && made.ends_with('Z'), "{made}");

    let tenant = server.tenant_of(&answer);
    assert_eq!(tenant.rows("SELECT 1", json!([])), json!([[1]]));
    tenant.call("PUT", "/v1/cache/k").bytes("text/plain", "v").send();
    assert_eq!(tenant.get("/v1/cache/k").expect(200).text(), "v");
    tenant.post("/v1/queues/mail/jobs", json!({ "payload": { "to": "a@b.c" } })).expect(201);
}

#[test]
fn a_tenant_is_three_plain_sqlite_files_copied_from_one_template() {
    let mut server = Server::start();
    let (a, b) = (server.tenant("a"), server.tenant("b"));
    server.stop();
    let applied = |id: &str, role: &str| -> Vec<(String, i64, Vec<u8>, i64)> {
        let file = rusqlite::Connection::open(server.file(id, role)).unwrap();
        let mode: String = file.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        let checksum = "CASE typeof(checksum) WHEN 'text' THEN unhex(checksum) ELSE checksum END";
        let mut rows =
            file.prepare(&format!("SELECT \"set\", version, {checksum}, applied_at FROM _tenantry_migrations ORDER BY 1, 2")).unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    for role in ["database", "cache", "queue"] {
        let rows = applied(&a.id, role);
        assert!(!rows.is_empty() && rows.iter().all(|row| row.2.len() == 32), "{role}: SHA-256 checksums: {rows:?}");
        assert_eq!(rows, applied(&b.id, role), "the same instants: migrated once, in the template");
    }
}

#[test]
fn a_hundred_calls_with_one_slug_make_one_tenant() {
    let server = Server::shared();
    let slug = unique("race");
    let mut answers = at_once(100, |_| server.admin().post(TENANTS, json!({ "slug": slug, "name": "Race" })));
    answers.sort_by_key(|answer| answer.status);
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [vec![201], vec![409; 99]].concat());
    answers.pop().unwrap().refused(409, "conflict");
    let listed = server.admin().get(&format!("{TENANTS}?q={slug}")).expect(200).json();
    assert_eq!(listed["tenants"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn an_idempotency_key_answers_the_same_body_the_same_and_refuses_another() {
    let server = Server::shared();
    let slug = unique("once");
    let key = unique("key");
    let post = |body: Value| server.admin().call("POST", TENANTS).idempotency_key(&key).json(&body).send();
    let first = post(json!({ "slug": slug, "name": "Once" })).expect(201);
    let again = post(json!({ "slug": slug, "name": "Once" })).expect(201);
    assert_eq!(first.text(), again.text(), "the token too");
    post(json!({ "slug": slug, "name": "Twice" })).refused(409, "conflict");
    // Without the key it is a new call, and the slug is taken.
    server.admin().post(TENANTS, json!({ "slug": slug, "name": "Once" })).refused(409, "conflict");
}

#[test]
fn concurrent_calls_with_one_idempotency_key_make_one_tenant() {
    let server = Server::shared();
    let (slug, key) = (unique("storm"), unique("key"));
    let answers = at_once(20, |_| {
        let body = json!({ "slug": slug, "name": "Storm" });
        server.admin().call("POST", TENANTS).idempotency_key(&key).json(&body).send()
    });
    let made: std::collections::HashSet<_> = answers.iter().filter(|answer| answer.status == 201).map(Answer::text).collect();
    assert_eq!(made.len(), 1, "one answer for all who got one");
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.refused(409, "conflict");
    }
    let listed = server.admin().get(&format!("{TENANTS}?q={slug}")).expect(200).json();
    assert_eq!(listed["tenants"].as_array().unwrap().len(), 1);
}

#[test]
fn an_answer_to_an_idempotency_key_survives_a_restart() {
    let mut server = Server::start();
    let post = |server: &Server| {
        let body = json!({ "slug": "kept", "name": "Kept" });
        server.admin().call("POST", TENANTS).idempotency_key("k-1").json(&body).send().expect(201).text()
    };
    let first = post(&server);
    server.restart();
    assert_eq!(post(&server), first);
}

#[test]
fn a_batch_answers_for_each_item() {
    let server = Server::shared();
    let (one, two) = (unique("batch"), unique("batch"));
    let items = json!([
        { "slug": one, "name": "One" },
        { "slug": two, "name": "Two" },
        { "slug": one, "name": "Again" },
        { "slug": "Not A Slug", "name": "Bad" },
        { "slug": unique("batch"), "name": "No such plan", "plan": "nope" },
    ]);
    let answer = server.admin().post("/admin/v1/tenants:batch", json!({ "tenants": items })).expect(200).json();
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap_or_else(|| panic!("{result}"))).collect();
    assert_eq!(statuses, [201, 201, 409, 400, 400], "{answer}");
    assert_eq!(results[2]["error"]["code"], "conflict");
    assert_eq!(results[3]["error"]["code"], "bad_request");
    assert_eq!(server.tenant_of(&results[0]).rows("SELECT 1", json!([])), json!([[1]]));
    assert_eq!(server.tenant_of(&results[1]).slug, two);
}

#[test]
fn a_hundred_tenants_in_one_batch_all_work() {
    let server = Server::shared();
    let items: Vec<_> = (0..100).map(|_| json!({ "slug": unique("many"), "name": "Many" })).collect();
    let answer = server.admin().post("/admin/v1/tenants:batch", json!({ "tenants": items })).expect(200).json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 100);
    for (item, result) in items.iter().zip(results) {
        assert_eq!(result["status"], 201, "{result}");
        assert_eq!(result["tenant"]["slug"], item["slug"], "results are in the order of the items");
        assert_eq!(server.tenant_of(result).rows("SELECT 1", json!([])), json!([[1]]));
    }
}

#[test]
fn a_body_that_makes_no_sense_says_which_field() {
    let server = Server::shared();
    let refused = |body: Value, names: &str| {
        let error = server.admin().post(TENANTS, body.clone()).refused(400, "bad_request");
        let said = format!("{} {} {}", error["message"], error["hint"], error["details"]);
        assert!(said.contains(names), "{body}: {said}");
    };
    for slug in ["", "Upper", "-dash", "a b", "a/b", "../up", "ünder", "a\u{0}b", &"x".repeat(64)] {
        refused(json!({ "slug": slug, "name": "N" }), "slug");
    }
    refused(json!({ "slug": unique("s"), "name": "" }), "name");
    refused(json!({ "slug": unique("s"), "name": "x".repeat(201) }), "name");
    refused(json!({ "slug": unique("s"), "name": "line\nbreak" }), "name");
    refused(json!({ "slug": unique("s"), "name": "N", "plan": "gold" }), "plan");
    refused(json!({ "slug": unique("s"), "name": "N", "pain": "default" }), "pain");
    refused(json!({ "slug": 7, "name": "N" }), "slug");
    refused(json!({ "name": "N" }), "slug");
}

#[test]
fn only_an_operator_may_provision() {
    let server = Server::shared();
    let body = json!({ "slug": unique("nobody"), "name": "N" });
    server.anyone().post(TENANTS, body.clone()).refused(401, "unauthenticated");
    server.anyone().bearer("an-operator-key-for-tests-onlY").post(TENANTS, body.clone()).refused(401, "unauthenticated");
    let tenant = server.tenant("curious");
    tenant.post(TENANTS, body).refused(403, "forbidden");
    tenant.get(&format!("{TENANTS}/{}", tenant.id)).refused(403, "forbidden");
}

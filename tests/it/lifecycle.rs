//! A tenant's life after it was made: listed, looked at, changed, suspended, deleted, brought back, purged;
//! and its tokens'.

use crate::support::*;

const TENANTS: &str = "/admin/v1/tenants";

fn path(tenant: &TenantClient) -> String {
    format!("{TENANTS}/{}", tenant.id)
}

#[test]
fn the_list_is_walked_page_by_page_without_gap_or_repeat() {
    let server = Server::shared();
    let stem = unique("paged");
    let made: Vec<_> =
        (0..5).map(|i| server.provision(json!({ "slug": format!("{stem}-{i}"), "name": format!("Paged {i}") })).id).collect();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = server.admin().get(&format!("{TENANTS}?q={stem}-&limit=2{cursor}")).expect(200).json();
        let tenants = page["tenants"].as_array().unwrap();
        assert!(tenants.len() <= 2);
        seen.extend(tenants.iter().map(|tenant| tenant["id"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => break,
        }
        assert!(pages < 10, "the list ends");
    }
    seen.sort();
    let mut made = made;
    made.sort();
    assert_eq!(seen, made);
    server.admin().get(&format!("{TENANTS}?cursor=nonsense")).refused(400, "bad_request");
    server.admin().get(&format!("{TENANTS}?limit=0")).refused(400, "bad_request");
    server.admin().get(&format!("{TENANTS}?state=sleeping")).refused(400, "bad_request");
    server.admin().get(&format!("{TENANTS}?colour=red")).refused(400, "bad_request");
}

#[test]
fn the_list_filters_by_state() {
    let server = Server::shared();
    let stem = unique("state");
    let on = server.provision(json!({ "slug": format!("{stem}-on"), "name": "On" }));
    let off = server.provision(json!({ "slug": format!("{stem}-off"), "name": "Off" }));
    server.admin().patch(&path(&off), json!({ "state": "suspended" })).expect(200);
    let slugs = |state: &str| {
        let page = server.admin().get(&format!("{TENANTS}?q={stem}-&state={state}")).expect(200).json();
        page["tenants"].as_array().unwrap().iter().map(|tenant| tenant["slug"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(slugs("active"), [on.slug.as_str()]);
    assert_eq!(slugs("suspended"), [off.slug.as_str()]);
    assert_eq!(slugs("deleted"), Vec::<String>::new());
}

#[test]
fn one_tenant_shows_its_files_and_whether_they_are_open() {
    let server = Server::shared();
    let tenant = server.tenant("shown");
    let show = || server.admin().get(&path(&tenant)).expect(200).json()["tenant"].clone();
    assert_eq!(show()["open"], false, "opened on first use only: {}", show());
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(100000));");
    let shown = show();
    assert_eq!(shown["open"], true);
    let used = shown["last_used_at"].as_str().and_then(tenantry::clock::parse_rfc3339);
    assert!(used.is_some_and(|at| (tenantry::clock::now_ms() - at).abs() < 60_000), "{shown}");
    for role in ["database", "cache", "queue"] {
        let file = &shown["files"][role];
        assert!(file["size_bytes"].as_u64().is_some_and(|size| size > 0), "{role}: {shown}");
        assert!(!file["schema_version"].is_null() || !file["schema_versions"].is_null(), "{role}: {shown}");
    }
}

#[test]
fn name_and_plan_are_changed_and_nonsense_is_refused() {
    let server = Server::with(|c| {
        c.set("plans.small.result_rows", 2);
    });
    let tenant = server.tenant("changed");
    let patch = |body: Value| server.admin().patch(&path(&tenant), body);
    let after = patch(json!({ "name": "Renamed", "plan": "small" })).expect(200).json()["tenant"].clone();
    assert_eq!((&after["name"], &after["plan"]), (&json!("Renamed"), &json!("small")));
    // The plan acts on the next request.
    tenant.sql("VALUES (1), (2), (3)", json!([])).refused(422, "result_too_large");
    patch(json!({ "plan": "default" })).expect(200);
    tenant.sql("VALUES (1), (2), (3)", json!([])).expect(200);
    patch(json!({ "plan": "huge" })).refused(400, "bad_request");
    patch(json!({ "state": "deleted" })).refused(400, "bad_request");
    patch(json!({ "slug": "other" })).refused(400, "bad_request");
    patch(json!({})).refused(400, "bad_request");
    let unknown = format!("{TENANTS}/0195f000-0000-7000-8000-000000000000");
    server.admin().patch(&unknown, json!({ "name": "N" })).refused(404, "not_found");
    server.admin().get(&unknown).refused(404, "not_found");
    server.admin().delete(&unknown).refused(404, "not_found");
}

#[test]
fn a_suspended_tenant_is_told_so_and_resumes_with_its_data() {
    let server = Server::shared();
    let tenant = server.tenant("paused");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (7);");
    let patched = server.admin().patch(&path(&tenant), json!({ "state": "suspended" })).expect(200).json();
    assert_eq!(patched["tenant"]["state"], "suspended");
    tenant.sql("SELECT 1", json!([])).refused(403, "tenant_suspended");
    tenant.get("/v1/cache/k").refused(403, "tenant_suspended");
    tenant.post("/v1/queues/q/jobs", json!({ "payload": 1 })).refused(403, "tenant_suspended");
    server.admin().patch(&path(&tenant), json!({ "state": "active" })).expect(200);
    assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([[7]]));
}

#[test]
fn a_deleted_tenant_goes_to_the_trash_and_comes_back_whole() {
    let server = Server::start();
    let tenant = server.tenant("binned");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES ('kept');");
    tenant.call("PUT", "/v1/cache/k").bytes("text/plain", "kept").send();
    tenant.post("/v1/queues/q/jobs", json!({ "payload": "kept" })).expect(201);

    server.admin().delete(&path(&tenant)).expect(200);
    tenant.sql("SELECT 1", json!([])).refused(401, "unauthenticated");
    assert!(!server.folder(&tenant.id).exists(), "the files are gone from their place");
    assert!(server.dir().join("trash").join(&tenant.id).exists(), "{:?}", server.files());

    server.admin().post(&format!("{}/undelete", path(&tenant)), json!({})).expect(200);
    assert_eq!(tenant.rows("SELECT x FROM t", json!([])), json!([["kept"]]));
    assert_eq!(tenant.get("/v1/cache/k").expect(200).text(), "kept");
    let claimed = tenant.post("/v1/queues/q/claim", json!({ "max": 1, "lease_s": 30 })).expect(200).json();
    assert_eq!(claimed["jobs"][0]["payload"], "kept");
}

#[test]
fn a_purged_tenant_leaves_nothing_behind() {
    let server = Server::start();
    let tenant = server.tenant("purged");
    tenant.script("CREATE TABLE t (x)");
    let purge = format!("{}/purge", path(&tenant));
    server.admin().post(&purge, json!({})).refused(409, "conflict");
    server.admin().delete(&path(&tenant)).expect(200);
    server.admin().post(&purge, json!({})).succeeds();
    let left: Vec<_> = server.files().into_iter().filter(|file| file.contains(&tenant.id)).collect();
    assert!(left.is_empty(), "{left:?}");
    server.admin().get(&path(&tenant)).refused(404, "not_found");
    server.admin().post(&format!("{}/undelete", path(&tenant)), json!({})).refused(404, "not_found");
    tenant.sql("SELECT 1", json!([])).refused(401, "unauthenticated");
}

#[test]
fn a_slug_is_free_after_a_delete_and_the_old_token_opens_nothing() {
    let server = Server::shared();
    let old = server.tenant("reborn");
    old.script("CREATE TABLE secret (x)");
    server.admin().delete(&path(&old)).expect(200);
    let new = server.provision(json!({ "slug": old.slug, "name": "Reborn" }));
    assert_ne!(new.id, old.id);
    old.sql("SELECT 1", json!([])).refused(401, "unauthenticated");
    new.sql("SELECT * FROM secret", json!([])).refused(400, "sql_error");
    // The slug is taken now: the old one cannot come back under it.
    server.admin().post(&format!("{}/undelete", path(&old)), json!({})).refused(409, "conflict");
}

#[test]
fn deleting_under_load_loses_nothing_that_was_acknowledged() {
    let server = Server::start();
    let tenant = server.tenant("busy");
    tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY)");
    let acknowledged = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let tenant = &tenant;
                scope.spawn(move || {
                    let mut done = Vec::new();
                    for i in 0..100_000 {
                        let x = writer * 100_000 + i;
                        let answer = tenant.sql("INSERT INTO t VALUES (?1)", json!([x]));
                        match answer.status {
                            200 => done.push(x),
                            401 => break,
                            503 => continue,
                            other => panic!("{other}: {}", answer.text()),
                        }
                    }
                    done
                })
            })
            .collect();
        eventually("some writes", || {
            let rows = tenant.sql("SELECT count(*) FROM t", json!([])).expect(200).json()["results"][0]["rows"][0][0].as_i64();
            rows.filter(|&rows| rows > 50)
        });
        server.admin().delete(&path(&tenant)).expect(200);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    server.admin().post(&format!("{}/undelete", path(&tenant)), json!({})).expect(200);
    let there: std::collections::HashSet<i64> =
        tenant.rows("SELECT x FROM t", json!([])).as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|x| !there.contains(x)).collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), acknowledged.len());
    println!("deleting under load: {} acknowledged, 0 lost", acknowledged.len());
}

#[test]
fn state_and_tokens_survive_a_restart() {
    let mut server = Server::start();
    let (on, off, gone) = (server.tenant("on"), server.tenant("off"), server.tenant("gone"));
    server.admin().patch(&path(&off), json!({ "state": "suspended" })).expect(200);
    server.admin().delete(&path(&gone)).expect(200);
    server.restart();
    assert_eq!(on.rows("SELECT 1", json!([])), json!([[1]]));
    off.sql("SELECT 1", json!([])).refused(403, "tenant_suspended");
    gone.sql("SELECT 1", json!([])).refused(401, "unauthenticated");
}

#[test]
fn a_token_is_made_listed_and_revoked_at_once_everywhere() {
    let server = Server::start();
    let tenant = server.tenant("keys");
    let tokens = format!("{}/tokens", path(&tenant));
    let body = json!({ "role": "reporter", "sub": "user-1", "scopes": ["sql:read"], "expires_in_s": 600 });
    let made = server.admin().post(&tokens, body).expect(201).json();
    let jti = made["jti"].as_str().unwrap();
    let expires = tenantry::clock::parse_rfc3339(made["expires_at"].as_str().unwrap()).unwrap();
    assert!((expires - tenantry::clock::now_ms() - 600_000).abs() < 60_000, "{made}");

    let listed = server.admin().get(&tokens).expect(200).json();
    let listed = listed["tokens"].as_array().unwrap().iter().find(|token| token["jti"] == jti).expect("it is listed").clone();
    assert_eq!((&listed["sub"], &listed["role"], &listed["scopes"]), (&json!("user-1"), &json!("reporter"), &json!(["sql:read"])));
    assert!(listed.get("token").is_none(), "a token is shown once");

    // Remembered by every worker first.
    let reporter = tenant.with_token(made["token"].as_str().unwrap());
    at_once(16, |_| reporter.sql("SELECT 1", json!([])).expect(200));
    server.admin().delete(&format!("{tokens}/{jti}")).succeeds();
    at_once(16, |_| reporter.sql("SELECT 1", json!([])).refused(401, "unauthenticated"));
    assert_eq!(tenant.rows("SELECT 1", json!([])), json!([[1]]), "the tenant's other token goes on");
}

#[test]
fn a_revoked_token_stays_revoked_over_a_restart() {
    let mut server = Server::start();
    let tenant = server.tenant("keys");
    let tokens = format!("{}/tokens", path(&tenant));
    let made =
        server.admin().post(&tokens, json!({ "sub": "u", "role": "r", "scopes": ["sql:read"], "expires_in_s": 600 })).expect(201).json();
    server.admin().delete(&format!("{tokens}/{}", made["jti"].as_str().unwrap())).succeeds();
    server.restart();
    tenant.with_token(made["token"].as_str().unwrap()).sql("SELECT 1", json!([])).refused(401, "unauthenticated");
}

#[test]
fn a_token_asked_for_with_nonsense_is_refused() {
    let server = Server::shared();
    let tenant = server.tenant("keys");
    let ask = |change: Value| {
        let mut body = json!({ "role": "r", "sub": "s", "scopes": ["sql:read"], "expires_in_s": 60 });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        server.admin().post(&format!("{}/tokens", path(&tenant)), body)
    };
    ask(json!({})).expect(201);
    let error = ask(json!({ "scopes": ["sql:raed"] })).refused(400, "bad_request");
    assert!(format!("{} {}", error["message"], error["hint"]).contains("sql:read"), "names the nearest: {error}");
    for bad in [
        json!({ "expires_in_s": 0 }),
        json!({ "expires_in_s": -5 }),
        json!({ "expires_in_s": "60" }),
        json!({ "expires_in_s": u64::MAX }),
        json!({ "sub": "" }),
        json!({ "sub": "x".repeat(10_000) }),
        json!({ "tenant": "other" }),
    ] {
        ask(bad).refused(400, "bad_request");
    }
    let tokens = format!("{}/tokens", path(&tenant));
    server.admin().delete(&format!("{tokens}/0195f000-0000-7000-8000-000000000000")).refused(404, "not_found");
    server.admin().delete(&format!("{tokens}/nonsense")).refused(400, "bad_request");
}

#[test]
fn a_client_that_drips_its_body_cannot_hold_off_a_suspension() {
    use std::io::Write;
    let server = Server::shared();
    let tenant = server.tenant("dripping");
    tenant.script("CREATE TABLE t (x)");
    let dripping: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = server.connect();
            let head = format!(
                "POST /v1/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
                tenant.token
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    // They are inside before the operator comes.
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.admin().patch(&path(&tenant), json!({ "state": "suspended" })).expect(200);
    tenant.sql("SELECT 1", json!([])).refused(403, "tenant_suspended");
    server.admin().delete(&path(&tenant)).expect(200);
    drop(dripping);
}

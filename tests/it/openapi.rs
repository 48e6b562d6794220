//! `GET /openapi.json` and the route table say the same.

use std::collections::BTreeSet;

use crate::support::*;

#[test]
fn every_route_is_described_and_nothing_else() {
    let server = Server::shared();
    let document = server.anyone().get("/openapi.json").expect(200).json();
    assert_eq!(document["openapi"].as_str().map(|version| &version[..4]), Some("3.1."));
    let described: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| ["get", "put", "post", "patch", "delete", "head", "options"].contains(&key.as_str()));
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let routed: BTreeSet<_> = tenantry::http::ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    let missing: Vec<_> = routed.difference(&described).collect();
    let invented: Vec<_> = described.difference(&routed).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not described: {missing:#?}\nnot routed: {invented:#?}");
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let server = Server::shared();
    let document = server.anyone().get("/openapi.json").expect(200).json();
    let mut stack = vec![&document];
    let mut seen = 0;
    while let Some(value) = stack.pop() {
        if let Some(target) = value["$ref"].as_str() {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            seen += 1;
        }
        match value {
            Value::Object(fields) => stack.extend(fields.values()),
            Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    assert!(seen > 10, "{seen} references");
}

#[test]
fn every_error_code_is_in_the_document() {
    let server = Server::shared();
    let text = server.anyone().get("/openapi.json").expect(200).text();
    for code in tenantry::error::Code::ALL {
        assert!(text.contains(&format!("\"{}\"", code.as_str())), "{}", code.as_str());
    }
}

#[test]
fn answers_have_the_form_that_the_document_promises() {
    let server = Server::start();
    let admin = server.admin();
    let document = server.anyone().get("/openapi.json").expect(200).json();
    let mut wrong = Vec::new();
    let mut check = |method: &str, path: &str, answer: &Answer| {
        let said = &document["paths"][path][method.to_lowercase()]["responses"][answer.status.to_string()];
        let said = said["$ref"].as_str().map_or(said, |target| document.pointer(&target[1..]).unwrap());
        let schema = &said["content"]["application/json"]["schema"];
        if said.is_null() {
            wrong.push(format!("{method} {path}: {} is not described", answer.status));
        } else if !schema.is_null() {
            misfits(&document, schema, &answer.json(), &format!("{method} {path} {}", answer.status), &mut wrong);
        } else if !answer.body.is_empty() && said["content"].is_null() {
            wrong.push(format!("{method} {path} {}: a body that is not described: {}", answer.status, answer.text()));
        }
    };

    const TENANTS: &str = "/admin/v1/tenants";
    const TENANT: &str = "/admin/v1/tenants/{id}";
    let made = admin.post(TENANTS, json!({ "slug": "formed", "name": "Formed" }));
    check("POST", TENANTS, &made);
    let tenant = server.tenant_of(&made.json());
    let path = format!("{TENANTS}/{}", tenant.id);
    check("POST", TENANTS, &admin.post(TENANTS, json!({ "slug": "formed", "name": "Formed" })));
    check("POST", TENANTS, &admin.post(TENANTS, json!({ "slug": "Formed", "name": "Formed" })));
    let items = json!({ "tenants": [{ "slug": "one-of-two", "name": "One" }, { "slug": "formed", "name": "Two" }] });
    check("POST", "/admin/v1/tenants:batch", &admin.post("/admin/v1/tenants:batch", items));
    check("GET", TENANTS, &admin.get(&format!("{TENANTS}?limit=1")));
    check("GET", TENANT, &admin.get(&path));
    check("PATCH", TENANT, &admin.patch(&path, json!({ "name": "Reformed" })));
    let tokens = "/admin/v1/tenants/{id}/tokens";
    let body = json!({ "role": "r", "sub": "s", "scopes": ["cache"], "expires_in_s": 60 });
    let token = admin.post(&format!("{path}/tokens"), body);
    check("POST", tokens, &token);
    check("GET", tokens, &admin.get(&format!("{path}/tokens")));
    let jti = token.json()["jti"].as_str().unwrap().to_owned();
    check("DELETE", "/admin/v1/tenants/{id}/tokens/{jti}", &admin.delete(&format!("{path}/tokens/{jti}")));
    check("POST", "/admin/v1/tenants/{id}/migrate", &admin.post(&format!("{path}/migrate"), json!({})));
    for path in ["plans", "health", "system", "migrations", "audit", "audit/verify"].map(|path| format!("/admin/v1/{path}")) {
        check("GET", &path, &admin.get(&path));
    }
    const RUNS: &str = "/admin/v1/migrations/runs";
    let begun = admin.post(RUNS, json!({ "kind": "validate" }));
    check("POST", RUNS, &begun);
    let run = format!("{RUNS}/{}", begun.json()["run"]["id"].as_str().unwrap());
    let ended = eventually("the run ends", || Some(admin.get(&run)).filter(|answer| answer.json()["run"]["state"] != "running"));
    check("GET", "/admin/v1/migrations/runs/{run}", &ended);
    check("GET", RUNS, &admin.get(RUNS));
    check("GET", "/admin/v1/migrations/runs/{run}/tenants", &admin.get(&format!("{run}/tenants")));
    check("POST", "/admin/v1/migrations/runs/{run}/stop", &admin.post(&format!("{run}/stop"), json!({})));
    check("POST", "/admin/v1/migrations/runs/{run}/retry", &admin.post(&format!("{run}/retry"), json!({})));
    check("POST", "/admin/v1/keys:rotate", &admin.post("/admin/v1/keys:rotate", json!({})));

    check("POST", "/v1/sql", &tenant.sql("SELECT 1, 'a', NULL, x'00', 1.5", json!([])));
    check("POST", "/v1/sql", &tenant.post("/v1/sql", json!({ "script": "CREATE TABLE t (x)" })));
    check("POST", "/v1/sql", &tenant.sql("nonsense", json!([])));
    check("POST", "/v1/sql", &server.anyone().post("/v1/sql", json!({ "script": "SELECT 1" })));
    check("PUT", "/v1/cache/{key}", &tenant.call("PUT", "/v1/cache/k").bytes("text/plain", "v").send());
    check("GET", "/v1/cache/{key}", &tenant.get("/v1/cache/none"));
    check("DELETE", "/v1/cache/{key}", &tenant.delete("/v1/cache/k"));
    cache_answers(&tenant, &mut check);
    check("POST", "/v1/queues/{queue}/jobs", &tenant.post("/v1/queues/q/jobs", json!({ "payload": { "a": 1 } })));
    let claimed = tenant.post("/v1/queues/q/claim", json!({ "max": 1, "lease_s": 30 }));
    check("POST", "/v1/queues/{queue}/claim", &claimed);
    let job = claimed.json()["jobs"][0].clone();
    let ack = || tenant.post(&format!("/v1/jobs/{}/ack", job["id"].as_str().unwrap()), json!({ "lease_token": job["lease_token"] }));
    check("POST", "/v1/jobs/{id}/ack", &ack());
    check("POST", "/v1/jobs/{id}/ack", &ack());
    queue_answers(&tenant, &mut check);

    check("DELETE", TENANT, &admin.delete(&path));
    check("POST", "/admin/v1/tenants/{id}/undelete", &admin.post(&format!("{path}/undelete"), json!({})));
    check("POST", "/admin/v1/tenants/{id}/purge", &admin.post(&format!("{path}/purge"), json!({})));
    admin.delete(&path).succeeds();
    check("POST", "/admin/v1/tenants/{id}/purge", &admin.post(&format!("{path}/purge"), json!({})));
    for path in ["/healthz", "/readyz", "/openapi.json", "/.well-known/jwks.json"] {
        check("GET", path, &server.anyone().get(path));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything else that a cache answers.
fn cache_answers(tenant: &TenantClient, check: &mut impl FnMut(&str, &str, &Answer)) {
    const KEY: &str = "/v1/cache/{key}";
    check("PUT", KEY, &tenant.call("PUT", "/v1/cache/absent?absent=true").send().expect(204));
    check("GET", KEY, &tenant.get("/v1/cache/absent").expect(204));
    check("HEAD", KEY, &tenant.call("HEAD", "/v1/cache/absent").send().expect(204));
    check("PUT", KEY, &tenant.call("PUT", "/v1/cache/none").header("If-Match", "*").send().expect(412));
    let fill = tenant.get("/v1/cache/filled?fill=60").expect(404);
    check("GET", KEY, &fill);
    let give_up = || tenant.call("DELETE", "/v1/cache/filled/fill").header("Fill-Token", fill.header("fill-token").unwrap()).send();
    check("DELETE", "/v1/cache/{key}/fill", &give_up().expect(204));
    check("DELETE", "/v1/cache/{key}/fill", &give_up().expect(409));
    check("POST", "/v1/cache/{key}/increment", &tenant.post("/v1/cache/number/increment", json!({})).expect(200));
    check("POST", "/v1/cache/{key}/increment", &tenant.post("/v1/cache/number/increment", json!({ "by": i64::MAX })).expect(409));
    let operations = json!([
        { "op": "set", "key": "a", "text": "v", "ttl": 60, "if_none_match": "*" }, { "op": "set", "key": "a", "text": "v", "if_none_match": "*" },
        { "op": "get", "key": "a" }, { "op": "get", "key": "none" }, { "op": "get", "key": "absent" },
        { "op": "increment", "key": "number" }, { "op": "set", "key": "b", "base64": "AP8=" }, { "op": "get", "key": "b" },
        { "op": "delete", "key": "a" },
    ]);
    check("POST", "/v1/cache", &tenant.post("/v1/cache", json!({ "operations": operations })).expect(200));
    check("GET", "/v1/cache", &tenant.get("/v1/cache").expect(200));
    let written = |entry: Value| json!({ "statements": [{ "sql": "INSERT INTO t VALUES (1)" }], "entry": entry });
    for (way, status) in [("through", 200), ("behind", 202)] {
        let path = format!("/v1/cache/{{key}}/{way}");
        check("PUT", &path, &tenant.put(&format!("/v1/cache/{way}/{way}"), written(json!({ "text": "v" }))).expect(status));
        check("PUT", &path, &tenant.put(&format!("/v1/cache/{way}/{way}"), written(json!({}))).expect(400));
    }
    let mut later = written(json!({ "text": "v" }));
    later["delay_s"] = json!(3_600);
    tenant.put("/v1/cache/later/behind", later.clone()).expect(202);
    check("PUT", "/v1/cache/{key}/through", &tenant.put("/v1/cache/later/through", written(json!({ "text": "v" }))).expect(409));
    tenant.delete("/v1/cache/later").expect(204);
    let get_later = json!({ "operations": [{ "op": "get", "key": "later" }] });
    check("POST", "/v1/cache", &tenant.post("/v1/cache", get_later).expect(200));
    let remember = json!({ "statements": [{ "sql": "INSERT INTO t VALUES (2)" }], "sql": "SELECT count(*) FROM t" });
    check("PUT", "/v1/cache/{key}/remember", &tenant.put("/v1/cache/q/remember", remember).expect(200));
    check("DELETE", "/v1/cache", &tenant.delete("/v1/cache?tag=t").expect(204));
    check("DELETE", "/v1/cache", &tenant.delete("/v1/cache").expect(400));
    const LOCK: &str = "/v1/locks/{name}";
    let lock = tenant.post("/v1/locks/l", json!({ "ttl_s": 60 })).expect(200);
    check("POST", LOCK, &lock);
    check("POST", LOCK, &tenant.post("/v1/locks/l", json!({ "ttl_s": 60 })).expect(409));
    check("GET", LOCK, &tenant.get("/v1/locks/l").expect(200));
    let token = lock.json()["token"].clone();
    check("POST", "/v1/locks/{name}/extend", &tenant.post("/v1/locks/l/extend", json!({ "token": token, "ttl_s": 60 })).expect(200));
    check("POST", "/v1/locks/{name}/release", &tenant.post("/v1/locks/l/release", json!({ "token": token })).expect(204));
    check("POST", "/v1/locks/{name}/release", &tenant.post("/v1/locks/l/release", json!({ "token": token })).expect(409));
    check("GET", LOCK, &tenant.get("/v1/locks/l").expect(404));
}

/// Everything else that a queue answers.
fn queue_answers(tenant: &TenantClient, check: &mut impl FnMut(&str, &str, &Answer)) {
    const JOBS: &str = "/v1/queues/{queue}/jobs";
    let whole = json!({
        "payload": { "base64": "AP8=" }, "payload_type": "x/y", "priority": 1, "delay_s": 0, "ttl_s": 60, "max_attempts": 2,
        "backoff": { "kind": "fixed", "base_s": 60, "max_s": 60 }, "timeout_s": 60, "group": "g", "limit": { "key": "k", "max": 1 }, "rate": { "key": "r", "per_s": 5 },
        "unique": { "key": "u", "for_s": 60, "states": ["ready"], "on_conflict": "existing" },
    });
    check("POST", JOBS, &tenant.post("/v1/queues/q/jobs", whole.clone()).expect(201));
    check("POST", JOBS, &tenant.post("/v1/queues/q/jobs", whole.clone()).expect(200));
    let refused = json!({ "payload": 1, "priority": 9_000_000 });
    check("POST", JOBS, &tenant.post("/v1/queues/q/jobs", json!({ "jobs": [{ "payload": 1 }, whole, refused] })).expect(200));
    let claimed = tenant.post("/v1/claim", json!({ "queues": ["q"], "max": 2, "lease_s": 30 })).expect(200);
    check("POST", "/v1/claim", &claimed);
    let jobs = claimed.json()["jobs"].clone();
    let mut step = |job: usize, verb: &str, mut body: Value| {
        body["lease_token"] = jobs[job]["lease_token"].clone();
        let answer = tenant.post(&format!("/v1/jobs/{}/{verb}", jobs[job]["id"].as_str().unwrap()), body);
        check("POST", &format!("/v1/jobs/{{id}}/{verb}"), &answer);
    };
    step(0, "extend", json!({ "lease_s": 20 }));
    step(0, "progress", json!({ "progress": { "a": 1 } }));
    step(0, "nack", json!({ "error": "no" }));
    step(0, "nack", json!({}));
    step(1, "snooze", json!({ "delay_s": 60 }));
    for (verb, body) in [("extend", json!({ "lease_s": 1 })), ("progress", json!({ "progress": 1 })), ("snooze", json!({ "delay_s": 1 }))] {
        step(1, verb, body);
    }
    for job in [0, 1] {
        check("GET", "/v1/jobs/{id}", &tenant.get(&format!("/v1/jobs/{}", jobs[job]["id"].as_str().unwrap())).expect(200));
    }
    let path = format!("/v1/jobs/{}/cancel", jobs[0]["id"].as_str().unwrap());
    check("POST", "/v1/jobs/{id}/cancel", &tenant.post(&path, json!({})).expect(200));
    for state in ["scheduled", "ready", "cancelled", "running"] {
        check("GET", JOBS, &tenant.get(&format!("/v1/queues/q/jobs?state={state}")));
    }
    check("GET", "/v1/queues", &tenant.get("/v1/queues?limit=1").expect(200));
    check("GET", "/v1/queues/{queue}", &tenant.get("/v1/queues/q").expect(200));
    check("GET", "/v1/queues/{queue}", &tenant.get("/v1/queues/none").expect(404));
    check("PATCH", "/v1/queues/{queue}", &tenant.patch("/v1/queues/q", json!({ "paused": true })).expect(200));
    check("POST", "/v1/queues/{queue}/redrive", &tenant.post("/v1/queues/q/redrive", json!({})).expect(200));
    check("POST", "/v1/queues/{queue}/purge", &tenant.post("/v1/queues/q/purge", json!({ "state": "done" })).expect(200));

    const SCHEDULE: &str = "/v1/queues/{queue}/schedules/{name}";
    let (path, schedule) = ("/v1/queues/q/schedules/s", json!({ "cron": "0 0 1 1 *", "job": { "payload": 1 } }));
    check("PUT", SCHEDULE, &tenant.put(path, schedule).expect(200));
    check("PUT", SCHEDULE, &tenant.put(path, json!({ "cron": "never" })).expect(400));
    check("GET", SCHEDULE, &tenant.get(path).expect(200));
    check("GET", SCHEDULE, &tenant.get("/v1/queues/q/schedules/none").expect(404));
    check("PATCH", SCHEDULE, &tenant.patch(path, json!({ "paused": true })).expect(200));
    check("POST", "/v1/queues/{queue}/schedules/{name}/run", &tenant.post(&format!("{path}/run"), json!({})).expect(201));
    check("GET", "/v1/queues/{queue}/schedules", &tenant.get("/v1/queues/q/schedules").expect(200));
    check("DELETE", SCHEDULE, &tenant.delete(path).expect(204));
    const WEBHOOK: &str = "/v1/queues/{queue}/webhook";
    let path = "/v1/queues/pushed/webhook";
    check("PUT", WEBHOOK, &tenant.put(path, json!({ "url": "https://example.com/" })).expect(200));
    check("PUT", WEBHOOK, &tenant.put(path, json!({ "url": "http://127.0.0.1/" })).expect(400));
    check("GET", WEBHOOK, &tenant.get(path).expect(200));
    check("GET", WEBHOOK, &tenant.get("/v1/queues/none/webhook").expect(404));
    check("POST", "/v1/queues/{queue}/webhook/rotate", &tenant.post(&format!("{path}/rotate"), json!({})).expect(200));
    check("DELETE", WEBHOOK, &tenant.delete(path).expect(204));
}

/// Where `value` is not what `schema` says; of JSON Schema, the words that our document uses for answers. A
/// member that the schema does not name is a misfit too: an answer is described whole.
fn misfits(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return misfits(document, document.pointer(&target[1..]).unwrap_or(&Value::Null), value, at, found);
    }
    if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let fits = |choice: &Value| {
            let mut found = Vec::new();
            misfits(document, choice, value, at, &mut found);
            found.is_empty()
        };
        if !choices.iter().any(fits) {
            found.push(format!("{at}: fits none of the choices: {value}"));
        }
        return;
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut properties = serde_json::Map::new();
        let mut required = Vec::new();
        for part in parts {
            let part = part["$ref"].as_str().map_or(part, |target| document.pointer(&target[1..]).unwrap_or(&Value::Null));
            properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
            required.extend(part["required"].as_array().cloned().unwrap_or_default());
        }
        return misfits(document, &json!({ "type": "object", "properties": properties, "required": required }), value, at, found);
    }
    let kinds: Vec<_> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        found.push(format!("{at}: {value} is no {}", kinds.join(" or ")));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) || (!schema["const"].is_null() && schema["const"] != *value)
    {
        found.push(format!("{at}: {value} is none of the values"));
    }
    for item in value.as_array().into_iter().flatten() {
        misfits(document, &schema["items"], item, &format!("{at}[]"), found);
    }
    let Some(members) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    let open = schema["properties"].is_null();
    for (name, member) in members {
        let known = &schema["properties"][name];
        match (known.is_null(), &schema["additionalProperties"]) {
            (false, _) => misfits(document, known, member, &format!("{at}.{name}"), found),
            (true, more @ Value::Object(_)) => misfits(document, more, member, &format!("{at}.{name}"), found),
            (true, _) if !open => found.push(format!("{at}: {name} is not described")),
            _ => {}
        }
    }
}

//! Several operations in one request.

use super::{has, path, put, put_with};
use crate::support::{Server, TenantClient, Value, json};

#[track_caller]
fn batch(tenant: &TenantClient, operations: Value) -> Vec<Value> {
    tenant.post("/v1/cache", json!({ "operations": operations })).expect(200).json()["results"].as_array().unwrap().clone()
}

#[test]
fn operations_are_done_in_their_order_each_with_a_result() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let results = batch(
        &tenant,
        json!([
            { "op": "get", "key": "a" },
            { "op": "set", "key": "a", "text": "käse", "content_type": "text/plain", "ttl": 60, "tags": ["t"] },
            { "op": "get", "key": "a" },
            { "op": "set", "key": "b", "base64": "AP8=" },
            { "op": "get", "key": "b" },
            { "op": "set", "key": "c", "absent": true },
            { "op": "get", "key": "c" },
            { "op": "increment", "key": "n", "by": 4 },
            { "op": "increment", "key": "n", "by": 4 },
            { "op": "delete", "key": "b" },
            { "op": "get", "key": "b" },
            { "op": "set", "key": "a", "namespace": "other", "text": "" },
            { "op": "get", "key": "a", "namespace": "other" },
        ]),
    );
    assert_eq!(results[0], json!({ "hit": false }));
    assert_eq!((&results[2]["text"], &results[2]["content_type"]), (&json!("käse"), &json!("text/plain")));
    assert_eq!(results[2]["etag"], results[1]["etag"]);
    assert!(results[2]["expires_at"].is_string() && results[4]["expires_at"].is_null());
    assert_eq!((&results[4]["base64"], &results[4]["content_type"]), (&json!("AP8="), &Value::Null));
    assert_eq!(results[6]["absent"], true);
    assert_eq!((&results[7]["value"], &results[8]["value"]), (&json!(4), &json!(8)));
    assert_eq!((&results[9], &results[10]), (&json!({ "deleted": true }), &json!({ "hit": false })));
    assert_eq!(results[12]["text"], "");
    assert_eq!(tenant.get(&path("a")).expect(200).text(), "käse");
    assert!(!has(&tenant, "b"));
    tenant.delete("/v1/cache?tag=t").expect(204);
    assert!(!has(&tenant, "a"));
}

#[test]
fn what_is_refused_is_refused_alone() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "k", b"text");
    let results = batch(
        &tenant,
        json!([
            { "op": "set", "key": "k", "text": "new", "if_none_match": "*" },
            { "op": "increment", "key": "k" },
            { "op": "delete", "key": "k", "if_match": "\"1-1\"" },
            { "op": "set", "key": "after", "text": "v" },
        ]),
    );
    let codes: Vec<_> = results.iter().map(|result| result["error"]["code"].clone()).collect();
    assert_eq!(codes, [json!("precondition_failed"), json!("conflict"), json!("precondition_failed"), Value::Null]);
    assert!(has(&tenant, "after"));
    assert_eq!(tenant.get(&path("k")).text(), "text");
}

#[test]
fn many_gets_are_answered_from_the_tiers() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    (0..100).for_each(|n| drop(put_with(&tenant, &n.to_string(), "")));
    let gets: Vec<_> = (0..100).map(|n| json!({ "op": "get", "key": n.to_string() })).collect();
    for _ in 0..2 {
        let results = batch(&tenant, json!(gets));
        assert!((0..100).all(|n| results[n]["text"] == n.to_string().as_str()));
    }
    assert_eq!(tenant.get("/v1/cache").expect(200).json()["memory_hits"], 100);
}

#[test]
fn a_batch_that_is_malformed_does_nothing() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let set = json!({ "op": "set", "key": "k", "text": "v" });
    for bad in [
        json!({ "op": "set", "key": "x" }),
        json!({ "op": "set", "key": "x", "text": "a", "base64": "YQ==" }),
        json!({ "op": "set", "key": "x", "base64": "?" }),
        json!({ "op": "set", "key": "x", "text": "a", "ttl": 0 }),
        json!({ "op": "set", "key": "x", "text": "a", "content_type": "a\nb" }),
        json!({ "op": "set", "key": "", "text": "a" }),
        json!({ "op": "get", "key": "x", "ttl": 5 }),
        json!({ "op": "get", "key": "x", "namespace": "a/b" }),
        json!({ "op": "steal", "key": "x" }),
        json!({ "key": "x" }),
    ] {
        tenant.post("/v1/cache", json!({ "operations": [set, bad] })).refused(400, "bad_request");
    }
    tenant.post("/v1/cache", json!({ "operations": [] })).refused(400, "bad_request");
    tenant.post("/v1/cache", json!({ "operations": vec![set.clone(); 101] })).refused(400, "bad_request");
    assert!(!has(&tenant, "k"));
}

#[test]
fn a_batch_larger_than_the_room_makes_it_and_its_answer_is_bounded() {
    let server = Server::with(|s| {
        s.set("plans.tiny.cache_bytes", 4 << 20);
    });
    let tenant = server.tenant_on("tiny", "cache");
    (0..1_000).for_each(|n| put(&tenant, &format!("small {n}"), &[1; 2_000]));
    let value = "x".repeat(100_000);
    let sets: Vec<_> = (0..30).map(|n| json!({ "op": "set", "key": format!("large {n}"), "text": value })).collect();
    let results = batch(&tenant, json!(sets));
    assert!(results.iter().all(|result| result["etag"].is_string()), "{results:?}");
    assert!(has(&tenant, "large 29") && has(&tenant, "large 28"));

    let server = Server::shared();
    let tenant = server.tenant("cache");
    (0..6).for_each(|n| put(&tenant, &n.to_string(), &vec![b'x'; 900_000]));
    let gets: Vec<_> = (0..6).map(|n| json!({ "op": "get", "key": n.to_string() })).collect();
    let results = batch(&tenant, json!(gets));
    assert!((0..4).all(|n| results[n]["text"].is_string()));
    assert_eq!((&results[4]["error"]["code"], &results[5]["error"]["code"]), (&json!("result_too_large"), &json!("result_too_large")));
}

//! Counting: atomic, and nothing else than numbers.

use super::{has, path, put, put_with};
use crate::support::{Answer, Server, TenantClient, Value, at_once, eventually, json};

fn increment(tenant: &TenantClient, key: &str, body: Value) -> Answer {
    tenant.post(&format!("{}/increment", path(key)), body)
}

#[test]
fn many_who_count_at_once_lose_nothing() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let mut seen: Vec<i64> = at_once(8, |_| {
        (0..25).map(|_| increment(&tenant, "k", json!({})).expect(200).json()["value"].as_i64().unwrap()).collect::<Vec<_>>()
    })
    .concat();
    seen.sort_unstable();
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "200");
}

#[test]
fn a_missing_key_starts_at_initial_and_its_time_is_the_firsts() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let value = |body: Value| increment(&tenant, "k", body).expect(200).json()["value"].clone();
    assert_eq!(value(json!({ "by": 5, "initial": 100, "ttl": 2 })), 105);
    assert_eq!(value(json!({ "by": -6, "initial": 7, "ttl": 3600 })), 99);
    eventually("its first ttl ends it", || (!has(&tenant, "k")).then_some(()));
    assert_eq!(value(json!({})), 1);
    assert!(!tenant.get(&path("k")).header("cache-status").unwrap().contains("ttl="));
}

#[test]
fn each_count_has_an_etag_of_its_own() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let one = increment(&tenant, "k", json!({})).expect(200).header("etag").unwrap().to_owned();
    assert_eq!(tenant.get(&path("k")).header("etag"), Some(one.as_str()));
    let two = increment(&tenant, "k", json!({ "by": 0 })).expect(200).header("etag").unwrap().to_owned();
    assert_ne!(one, two);
    assert_eq!(tenant.get(&path("k")).header("etag"), Some(two.as_str()));
}

#[test]
fn what_is_no_number_is_refused_and_stays() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    for value in ["text", "1.5", "", " 1", "9223372036854775808"] {
        put(&tenant, "k", value.as_bytes());
        increment(&tenant, "k", json!({})).refused(409, "conflict");
        assert_eq!(tenant.get(&path("k")).expect(200).text(), value);
    }
    put(&tenant, "k", i64::MAX.to_string().as_bytes());
    increment(&tenant, "k", json!({ "by": 1 })).refused(409, "conflict");
    assert_eq!(increment(&tenant, "k", json!({ "by": -1 })).expect(200).json()["value"], i64::MAX - 1);
    for body in [json!({ "by": 1.5 }), json!({ "by": "1" }), json!({ "ttl": 0 }), json!({ "too": 1 }), json!([])] {
        increment(&tenant, "k", body).refused(400, "bad_request");
    }
}

#[test]
fn a_number_keeps_its_tags_and_is_thrown_away_by_them() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    tenant.call("PUT", &format!("{}?tags=numbers", path("k"))).bytes("text/plain", "41").send().expect(204);
    assert_eq!(increment(&tenant, "k", json!({})).expect(200).json()["value"], 42);
    tenant.delete("/v1/cache?tag=numbers").expect(204);
    assert_eq!(increment(&tenant, "k", json!({})).expect(200).json()["value"], 1);
    put_with(&tenant, "key", "namespace=other");
    increment(&tenant, "key", json!({})).expect(200);
    tenant.post(&format!("{}/increment?namespace=other", path("key")), json!({})).refused(409, "conflict");
}

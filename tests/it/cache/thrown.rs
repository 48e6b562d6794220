//! Throwing away what has something in common: at once, from every tier, and nothing else.

use super::{has, path, put_with};
use crate::support::{Server, TenantClient, eventually};

fn in_namespace(tenant: &TenantClient, namespace: &str, key: &str) -> bool {
    tenant.get(&format!("{}?namespace={namespace}", path(key))).status == 200
}

#[track_caller]
fn throw(tenant: &TenantClient, query: &str) {
    tenant.delete(&format!("/v1/cache?{query}")).expect(204);
}

#[test]
fn a_tag_takes_what_was_set_with_it_before_and_nothing_else() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "a", "tags=user:1,list");
    put_with(&tenant, "b", "tags=user:2,list&namespace=other");
    put_with(&tenant, "c", "tags=user:12");
    put_with(&tenant, "d", "");
    for _ in 0..2 {
        // The second time from memory.
        assert!(has(&tenant, "a") && in_namespace(&tenant, "other", "b") && has(&tenant, "c") && has(&tenant, "d"));
    }
    throw(&tenant, "tag=user:1");
    assert!(!has(&tenant, "a") && in_namespace(&tenant, "other", "b") && has(&tenant, "c") && has(&tenant, "d"));
    put_with(&tenant, "a", "tags=user:1,list");
    assert!(has(&tenant, "a"), "what is set afterwards stays");
    throw(&tenant, "tag=list");
    assert!(!has(&tenant, "a") && !in_namespace(&tenant, "other", "b") && has(&tenant, "c") && has(&tenant, "d"));
}

#[test]
fn a_prefix_takes_the_keys_that_begin_with_it_byte_for_byte() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let keys = ["user/1", "user/12", "user/1/x", "user", "User/1", "us%", "ü/1", "ü/2", "u\0ser/1", "u\0x"];
    keys.iter().for_each(|key| drop(put_with(&tenant, key, "")));
    put_with(&tenant, "user/1", "namespace=other");
    let left = || keys.into_iter().filter(|key| has(&tenant, key)).collect::<Vec<_>>();
    throw(&tenant, "prefix=user%2F1");
    assert_eq!(left(), ["user", "User/1", "us%", "ü/1", "ü/2", "u\0ser/1", "u\0x"]);
    throw(&tenant, "prefix=%C3%BC%2F1");
    throw(&tenant, "prefix=us%25");
    throw(&tenant, "prefix=u%00s");
    assert_eq!(left(), ["user", "User/1", "ü/2", "u\0x"]);
    throw(&tenant, "prefix=");
    assert!(left().is_empty() && in_namespace(&tenant, "other", "user/1"));
    throw(&tenant, "prefix=user&namespace=other");
    assert!(!in_namespace(&tenant, "other", "user/1"));
}

#[test]
fn a_namespace_has_keys_of_its_own_and_is_flushed_alone() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    for namespace in ["a", "a.b", "b"] {
        put_with(&tenant, "k", &format!("namespace={namespace}"));
    }
    put_with(&tenant, "a/k", "");
    throw(&tenant, "namespace=a");
    assert!(
        !in_namespace(&tenant, "a", "k") && in_namespace(&tenant, "a.b", "k") && in_namespace(&tenant, "b", "k") && has(&tenant, "a/k")
    );
    tenant.delete(&format!("{}?namespace=b", path("k"))).expect(204);
    assert!(in_namespace(&tenant, "a.b", "k") && !in_namespace(&tenant, "b", "k"));
    throw(&tenant, "all=true");
    assert!(!in_namespace(&tenant, "a.b", "k") && !has(&tenant, "a/k"));
    put_with(&tenant, "k", "namespace=a");
    assert!(in_namespace(&tenant, "a", "k"));
}

#[test]
fn what_was_thrown_away_does_not_come_back_with_a_restart_and_makes_place_later() {
    let mut server = Server::start();
    let tenant = server.tenant("cache");
    for n in 0..200 {
        put_with(&tenant, &n.to_string(), "tags=all");
    }
    put_with(&tenant, "kept", "tags=other");
    throw(&tenant, "tag=all");
    server.restart();
    assert!((0..200).all(|n| !has(&tenant, &n.to_string())) && has(&tenant, "kept"));
    eventually("writes sweep it", || {
        put_with(&tenant, "kept", "tags=other");
        (tenant.get("/v1/cache").expect(200).json()["entries"] == 1).then_some(())
    });
    assert!(has(&tenant, "kept"));
}

#[test]
fn what_is_thrown_away_is_said_clearly() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "k", "tags=a");
    let long = format!("prefix={}", "x".repeat(513));
    for query in ["", "tag=a&all=true", "tag=a&prefix=b", "tag=a&namespace=b", "all=false", "tag=", "namespace=", "everything=true", &long]
    {
        tenant.delete(&format!("/v1/cache?{query}")).refused(400, "bad_request");
    }
    assert!(has(&tenant, "k"));
}

#[test]
fn a_full_cache_can_still_be_thrown_away_from() {
    let server = Server::with(|s| {
        s.set("plans.tiny.cache_bytes", 1 << 20);
    });
    let tenant = server.tenant_on("tiny", "cache");
    for n in 0..100 {
        tenant.call("PUT", &format!("{}?tags=t{}", path(n.to_string()), n % 3)).bytes("text/plain", vec![7; 20_000]).send().expect(204);
    }
    assert!(has(&tenant, "99") && has(&tenant, "98") && has(&tenant, "97"));
    for n in 0..500 {
        throw(&tenant, &format!("tag=nobody{n}"));
    }
    throw(&tenant, "tag=t1");
    assert!(has(&tenant, "99") && has(&tenant, "98") && !has(&tenant, "97"));
}

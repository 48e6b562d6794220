//! For how long an entry is what: fresh, stale, better than nothing, gone; and how an answer says so.

use super::{has, noise, path, put, put_with};
use crate::support::{Answer, Server, TenantClient, eventually, json};

fn status(answer: &Answer) -> String {
    answer.header("cache-status").expect("a Cache-Status").to_owned()
}

/// The seconds for which a hit says it is fresh.
fn ttl(answer: &Answer) -> i64 {
    let status = status(answer);
    let ttl = status.split("ttl=").nth(1).unwrap_or_else(|| panic!("{status}"));
    ttl.split(';').next().unwrap().parse().unwrap()
}

fn age(answer: &Answer) -> u64 {
    answer.header("age").expect("an Age").parse().unwrap()
}

#[test]
fn an_answer_says_how_old_it_is_for_how_long_it_is_fresh_and_which_tier_had_it() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "k", "ttl=600");
    let first = tenant.get(&path("k")).expect(200);
    assert!(status(&first).starts_with("tenantry; hit; ttl=") && status(&first).ends_with("; detail=file"), "{}", status(&first));
    assert!((1..=600).contains(&ttl(&first)) && age(&first) < 600, "{}", status(&first));
    assert!(status(&tenant.get(&path("k")).expect(200)).ends_with("; detail=memory"));
    put(&tenant, "for good", b"v");
    assert_eq!(status(&tenant.get(&path("for good"))), "tenantry; hit; detail=file");
    assert_eq!(status(&tenant.get(&path("none"))), "tenantry; fwd=uri-miss");
}

#[test]
fn head_is_get_without_the_bytes() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let made = put_with(&tenant, "key of nine", "");
    let head = tenant.call("HEAD", &path("key of nine")).send().expect(200);
    assert_eq!((head.header("etag"), head.header("content-length")), (made.header("etag"), Some("11")));
    assert_eq!((head.header("content-type"), head.body.len()), (Some("text/plain"), 0));
    assert_eq!(tenant.call("HEAD", &path("none")).send().expect(404).body.len(), 0);
}

#[test]
fn an_expired_entry_is_answered_as_stale_while_its_grace_lasts() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "k", "ttl=1&swr=3600");
    put_with(&tenant, "short", "ttl=1&swr=1");
    let stale = eventually("it is stale", || Some(tenant.get(&path("k")).expect(200)).filter(|answer| ttl(answer) <= 0));
    assert_eq!(stale.text(), "k");
    eventually("its grace is over", || (!has(&tenant, "short")).then_some(()));
    assert!(has(&tenant, "k"));
    put_with(&tenant, "k", "ttl=3600&swr=1");
    assert!(ttl(&tenant.get(&path("k"))) > 0);
}

#[test]
fn who_cannot_make_it_anew_gets_what_others_are_not_given() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "k", "ttl=1&sie=3600");
    eventually("it expires", || (!has(&tenant, "k")).then_some(()));
    let path = format!("{}?stale=if_error", path("k"));
    let given = tenant.get(&path).expect(200);
    assert!(given.text() == "k" && ttl(&given) <= 0);
    tenant.get(&format!("{}?stale=always", super::path("k"))).refused(400, "bad_request");
    tenant.delete(&super::path("k")).expect(204);
    tenant.get(&path).refused(404, "not_found");
}

#[test]
fn an_entry_lives_no_longer_in_memory_than_its_expiry() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "k", "ttl=1");
    let mut tiers = Vec::new();
    eventually("it expires", || {
        let answer = tenant.get(&path("k"));
        if answer.status == 200 {
            assert!(ttl(&answer) > 0, "{}", status(&answer));
            tiers.push(status(&answer).ends_with("memory"));
        }
        (answer.status == 404).then_some(())
    });
    assert!(tiers.contains(&true), "it was never in memory");
}

#[test]
fn a_sliding_entry_lives_while_it_is_read_and_not_past_its_ttl() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "unread", "sliding=5");
    put_with(&tenant, "read", "sliding=5");
    put_with(&tenant, "ended", "sliding=5&ttl=7");
    let older_than = |seconds: u64| {
        eventually("it grows older", || {
            has(&tenant, "ended");
            let answer = tenant.get(&path("read")).expect(200);
            (age(&answer) >= seconds).then_some(())
        });
    };
    older_than(6);
    assert!(!has(&tenant, "unread"));
    older_than(8);
    assert!(!has(&tenant, "ended"), "being read does not carry it past its ttl");
}

#[test]
fn jitter_shortens_some_more_than_others() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let ttls: std::collections::BTreeSet<_> = (0..20)
        .map(|n| {
            put_with(&tenant, &n.to_string(), "ttl=100000&jitter=90000");
            ttl(&tenant.get(&path(n.to_string())).expect(200))
        })
        .collect();
    assert!(ttls.len() > 1 && ttls.iter().all(|ttl| (9_000..=100_000).contains(ttl)), "{ttls:?}");
}

#[test]
fn what_is_known_not_to_exist_is_not_a_miss() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let absent = |tenant: &TenantClient| tenant.call("PUT", &format!("{}?absent=true&ttl=600", path("k"))).send();
    let etag = absent(&tenant).expect(204).header("etag").expect("an ETag").to_owned();
    let got = tenant.get(&path("k")).expect(204);
    assert_eq!((got.header("etag"), got.body.len()), (Some(etag.as_str()), 0));
    assert!(status(&got).starts_with("tenantry; hit"));
    tenant.get(&path("other")).refused(404, "not_found");
    put(&tenant, "empty", b"");
    tenant.get(&path("empty")).expect(200);
    tenant.call("PUT", &format!("{}?absent=true", path("k"))).bytes("text/plain", "v").send().refused(400, "bad_request");
    put(&tenant, "k", b"now it does");
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "now it does");
}

#[test]
fn terms_that_make_no_sense_are_refused_and_change_nothing() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "k", b"before");
    let too_many_tags = format!("tags={}", (0..17).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    for query in [
        "swr=5",
        "sie=5",
        "jitter=5",
        "ttl=5&jitter=5",
        "ttl=5&sliding=6",
        "ttl=5&swr=0",
        "sliding=1.5",
        "tags=",
        "tags=a,,b",
        "absent=yes",
        "unknown=1",
        &too_many_tags,
    ] {
        let refused = tenant.call("PUT", &format!("{}?{query}", path("k"))).bytes("text/plain", "after").send();
        refused.refused(400, "bad_request");
    }
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "before");
    for query in ["fill=0", "fill=301", "fill=5&wait=21", "fill=5&wait=-1", "namespace=a/b", "namespace=", "x=1"] {
        tenant.get(&format!("{}?{query}", path("k"))).refused(400, "bad_request");
    }
}

#[test]
fn the_cache_says_what_is_in_it_and_what_the_tiers_did() {
    let server = Server::with(|s| {
        s.set("plans.tiny.cache_bytes", 1 << 20);
    });
    let tenant = server.tenant_on("tiny", "cache");
    let stats = || tenant.get("/v1/cache").expect(200).json();
    assert_eq!(stats()["entries"], 0);
    put(&tenant, "k", &noise(10_000));
    assert!(has(&tenant, "k") && has(&tenant, "k") && !has(&tenant, "none"));
    let now = stats();
    assert_eq!(json!([now["entries"], now["memory_hits"], now["file_hits"], now["misses"], now["evicted"]]), json!([1, 1, 1, 1, 0]));
    assert!(now["bytes"].as_i64() > Some(10_000) && now["memory_bytes"].as_i64() > Some(10_000), "{now}");
    (0..20).for_each(|n| put(&tenant, &n.to_string(), &noise(100_000)));
    assert!(stats()["evicted"].as_i64() > Some(0), "{}", stats());
}

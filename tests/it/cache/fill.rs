//! One makes a missing entry, the others wait or take what is stale; and what was overtaken does not come back.

use super::{has, path, put, put_with};
use crate::support::{Answer, Server, TenantClient, at_once, eventually, json};

fn ask(tenant: &TenantClient, key: &str, query: &str) -> Answer {
    tenant.get(&format!("{}?{query}", path(key)))
}

#[track_caller]
fn token(answer: &Answer) -> String {
    answer.header("fill-token").unwrap_or_else(|| panic!("{} without a Fill-Token", answer.status)).to_owned()
}

fn filled(tenant: &TenantClient, key: &str, token: &str, value: &str) -> Answer {
    filled_with(tenant, key, "", token, value)
}

fn filled_with(tenant: &TenantClient, key: &str, query: &str, token: &str, value: &str) -> Answer {
    tenant.call("PUT", &format!("{}?{query}", path(key))).header("Fill-Token", token).bytes("text/plain", value).send()
}

#[test]
fn of_many_who_miss_one_makes_it_and_the_others_get_what_it_made() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let made = at_once(12, |n| {
        let answer = ask(&tenant, "k", "fill=60&wait=20");
        if answer.status == 404 {
            assert!(answer.header("fill-until").is_some());
            filled(&tenant, "k", &token(&answer), &n.to_string()).expect(204);
            return (n, true);
        }
        let value = answer.expect(200).text();
        (value.parse().unwrap(), false)
    });
    let makers: Vec<_> = made.iter().filter(|(_, made)| *made).map(|(n, _)| *n).collect();
    assert_eq!(makers.len(), 1);
    assert!(made.iter().all(|(n, _)| *n == makers[0]));
}

#[test]
fn who_does_not_want_to_wait_is_told_that_somebody_makes_it() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let first = ask(&tenant, "k", "fill=60");
    let second = ask(&tenant, "k", "fill=60");
    assert!(second.header("fill-token").is_none() && second.header("retry-after").is_some());
    second.refused(404, "not_found");
    assert!(!has(&tenant, "k"), "a plain get takes no part in it");
    filled(&tenant, "k", &token(&first), "v").expect(204);
    assert_eq!(ask(&tenant, "k", "fill=60").expect(200).text(), "v");
    filled(&tenant, "k", &token(&first), "twice").refused(409, "lease_lost");
    assert_eq!(tenant.get(&path("k")).text(), "v");
}

#[test]
fn what_is_stale_is_given_to_all_and_one_makes_it_anew() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put_with(&tenant, "k", "ttl=1&swr=3600");
    let maker = eventually("it is stale", || Some(ask(&tenant, "k", "fill=60").expect(200)).filter(|a| a.header("fill-token").is_some()));
    assert_eq!(maker.text(), "k");
    for _ in 0..3 {
        let other = ask(&tenant, "k", "fill=60&wait=20").expect(200);
        assert!(other.header("fill-token").is_none() && other.text() == "k");
    }
    filled_with(&tenant, "k", "ttl=3600", &token(&maker), "new").expect(204);
    assert_eq!(ask(&tenant, "k", "fill=60").expect(200).text(), "new");
}

#[test]
fn a_fill_ends_by_itself_and_the_next_one_gets_it() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let slow = token(&ask(&tenant, "k", "fill=1"));
    let next = token(&ask(&tenant, "k", "fill=60&wait=20"));
    filled(&tenant, "k", &slow, "slow").refused(409, "lease_lost");
    assert!(!has(&tenant, "k"));
    filled(&tenant, "k", &next, "next").expect(204);
    assert_eq!(tenant.get(&path("k")).text(), "next");
}

#[test]
fn who_gives_up_hands_it_to_who_waits() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let first = token(&ask(&tenant, "k", "fill=300"));
    let give_up = |token: &str| tenant.call("DELETE", &format!("{}/fill", path("k"))).header("Fill-Token", token).send();
    give_up("0190a5c6-0000-7000-8000-000100000000").refused(409, "lease_lost");
    give_up("nonsense").refused(400, "bad_request");
    tenant.delete(&format!("{}/fill", path("k"))).refused(400, "bad_request");
    let second = std::thread::scope(|scope| {
        let waits = scope.spawn(|| token(&ask(&tenant, "k", "fill=300&wait=20")));
        give_up(&first).expect(204);
        waits.join().unwrap()
    });
    give_up(&first).refused(409, "lease_lost");
    filled(&tenant, "k", &second, "v").expect(204);
}

#[test]
fn a_fill_begun_before_an_invalidation_does_not_put_the_old_value_back() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    type Overtake = (&'static str, fn(&TenantClient, &str));
    let ways: [Overtake; 9] = [
        ("delete", |tenant, key| drop(tenant.delete(&path(key)).expect(204))),
        ("prefix", |tenant, key| drop(tenant.delete(&format!("/v1/cache?prefix={}", &key[..3])).expect(204))),
        ("tag", |tenant, _| drop(tenant.delete("/v1/cache?tag=t").expect(204))),
        ("flush", |tenant, _| drop(tenant.delete("/v1/cache?all=true").expect(204))),
        ("namespace", |tenant, _| drop(tenant.delete("/v1/cache?prefix=").expect(204))),
        ("put", |tenant, key| put(tenant, key, b"1")),
        ("batch", |tenant, key| {
            drop(tenant.post("/v1/cache", json!({ "operations": [{ "op": "set", "key": key, "text": "1" }] })).expect(200))
        }),
        ("increment", |tenant, key| drop(tenant.post(&format!("{}/increment", path(key)), json!({})).expect(200))),
        ("many tags", |tenant, _| (0..100).for_each(|n| drop(tenant.delete(&format!("/v1/cache?tag=other{n}")).expect(204)))),
    ];
    for (way, overtake) in ways {
        let key = format!("key {way}");
        let begun = token(&ask(&tenant, &key, "fill=300"));
        overtake(&tenant, &key);
        filled_with(&tenant, &key, "tags=s,t", &begun, "old").refused(409, "lease_lost");
        let now = tenant.get(&path(&key));
        assert!(now.status == 404 || now.text() == "1", "{way}: {} {}", now.status, now.text());
        tenant.delete(&path(&key)).expect(204);
        let anew = token(&ask(&tenant, &key, "fill=300"));
        filled_with(&tenant, &key, "tags=s,t", &anew, "new").expect(204);
        assert_eq!(tenant.get(&path(&key)).text(), "new", "{way}: what begins after it counts");
    }
}

#[test]
fn what_does_not_concern_a_fill_does_not_overtake_it() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let begun = token(&ask(&tenant, "key", "fill=300"));
    put(&tenant, "other", b"v");
    for query in ["tag=other", "prefix=other", "prefix=keys", "namespace=key", "namespace=k&prefix=key"] {
        tenant.delete(&format!("/v1/cache?{query}")).expect(204);
    }
    filled_with(&tenant, "key", "tags=t", &begun, "v").expect(204);
    assert!(has(&tenant, "key"));
}

#[test]
fn readers_who_fill_while_the_source_changes_never_keep_an_old_value() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let source = std::sync::atomic::AtomicU64::new(0);
    let over = std::sync::atomic::AtomicBool::new(false);
    use std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    let answer = ask(&tenant, "k", "fill=300&wait=20");
                    if answer.status == 404 && answer.header("fill-token").is_some() {
                        let read = source.load(SeqCst).to_string();
                        let put = filled_with(&tenant, "k", "tags=t", &token(&answer), &read);
                        assert!([204, 409].contains(&put.status), "{}", put.status);
                    }
                }
            });
        }
        let wrong = (1..=150u64).find_map(|n| {
            source.store(n, SeqCst);
            match n % 3 {
                0 => tenant.delete(&path("k")),
                1 => tenant.delete("/v1/cache?tag=t"),
                _ => tenant.delete("/v1/cache?prefix=k"),
            }
            .expect(204);
            let seen = tenant.get(&path("k"));
            (seen.status == 200 && seen.text() != n.to_string()).then(|| (n, seen.text()))
        });
        over.store(true, SeqCst);
        assert_eq!(wrong, None, "(source, cache)");
    });
}

#[test]
fn a_fill_does_not_outlive_the_server_and_a_waiting_request_does_not_hold_it_up() {
    let mut server = Server::start();
    let tenant = server.tenant("cache");
    let begun = token(&ask(&tenant, "k", "fill=300"));
    server.restart();
    filled(&tenant, "k", &begun, "old").refused(409, "lease_lost");
    assert!(!has(&tenant, "k"));
}

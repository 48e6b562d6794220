//! The cache, seen from outside: what comes back, when it stops coming back, and what a full file gives up.

mod batch;
mod behind;
mod conditions;
mod damage;
mod disk;
mod fill;
mod increment;
mod packing;
mod remember;
mod terms;
mod through;
mod thrown;

use crate::support::{Answer, Server, TenantClient, check_files, eventually, json, segment};

fn path(key: impl AsRef<[u8]>) -> String {
    format!("/v1/cache/{}", segment(key))
}

#[track_caller]
fn put(tenant: &TenantClient, key: &str, value: &[u8]) {
    tenant.call("PUT", &path(key)).bytes("application/octet-stream", value).send().expect(204);
}

/// Bytes that nothing makes shorter.
fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    })
    .take(len)
    .collect()
}

/// Sets `key` to a short text under `query`, such as `ttl=5&tags=a`.
#[track_caller]
fn put_with(tenant: &TenantClient, key: &str, query: &str) -> Answer {
    tenant.call("PUT", &format!("{}?{query}", path(key))).bytes("text/plain", key).send().expect(204)
}

fn has(tenant: &TenantClient, key: &str) -> bool {
    match tenant.get(&path(key)).status {
        200 => true,
        404 => false,
        other => panic!("GET {key} answered {other}"),
    }
}

#[test]
fn what_was_put_comes_back_byte_for_byte_with_its_content_type() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (key, content_type, value) in [
        ("bytes", "image/x-odd; v=\"1\"", every_byte.as_slice()),
        ("text", "text/plain; charset=utf-8", "käse".as_bytes()),
        ("empty", "text/html", b""),
    ] {
        tenant.call("PUT", &path(key)).bytes(content_type, value).send().expect(204);
        let got = tenant.get(&path(key)).expect(200);
        assert_eq!((got.header("content-type"), got.body.as_slice()), (Some(content_type), value), "{key}");
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    }
    tenant.call("PUT", &path("text")).bytes("application/json", "{}").send().expect(204);
    let got = tenant.get(&path("text")).expect(200);
    assert_eq!((got.header("content-type"), got.text().as_str()), (Some("application/json"), "{}"));
}

#[test]
fn a_deleted_entry_is_a_miss_and_deleting_twice_is_no_error() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    tenant.get(&path("k")).refused(404, "not_found");
    put(&tenant, "k", b"v");
    tenant.delete(&path("k")).expect(204);
    tenant.get(&path("k")).refused(404, "not_found");
    tenant.delete(&path("k")).expect(204);
}

#[test]
fn an_entry_is_a_miss_from_its_expiry_on_and_others_stay() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "for good", b"v");
    tenant.call("PUT", &format!("{}?ttl=3600", path("an hour"))).bytes("text/plain", "v").send().expect(204);
    tenant.call("PUT", &format!("{}?ttl=1", path("a second"))).bytes("text/plain", "v").send().expect(204);
    eventually("the entry expires", || (!has(&tenant, "a second")).then_some(()));
    assert!(has(&tenant, "for good") && has(&tenant, "an hour"));
    tenant.call("PUT", &path("a second")).bytes("text/plain", "again").send().expect(204);
    assert_eq!(tenant.get(&path("a second")).expect(200).text(), "again");
}

#[test]
fn a_ttl_that_is_no_number_of_seconds_is_refused_and_changes_nothing() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "k", b"before");
    for ttl in ["0", "-1", "NaN", "inf", "1e3", "1.5", "", "%20", "abc", "315360001", "9223372036854775808", "1&ttl=2", "1&tll=2"] {
        let refused = tenant.call("PUT", &format!("{}?ttl={ttl}", path("k"))).bytes("text/plain", "after").send();
        let error = refused.refused(400, "bad_request");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("ttl") || message.contains("tll")), "{error}");
    }
    assert_eq!(tenant.get(&path("k")).expect(200).text(), "before");
}

#[test]
fn keys_are_any_utf8_and_never_mistaken_for_one_another() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let longest = "k".repeat(512);
    let keys = ["a/b", "a%2Fb", "a b", "a+b", "käse", "ka\u{308}se", "K", "k", "nul\0in", "?x=1#y", "\u{fffd}", "..%2f", &longest];
    for key in keys {
        put(&tenant, key, key.as_bytes());
    }
    for key in keys {
        assert_eq!(tenant.get(&path(key)).expect(200).body, key.as_bytes());
    }
}

#[test]
fn a_key_that_is_too_long_or_no_text_is_refused_clearly() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    for key in [vec![b'k'; 513], vec![b'k'; 10_240], b"k\xff".to_vec(), b"\xc3".to_vec()] {
        for method in ["PUT", "GET", "DELETE"] {
            let error = tenant.call(method, &path(&key)).send().refused(400, "bad_request");
            assert!(error["message"].as_str().is_some_and(|message| message.contains("key")), "{error}");
        }
    }
    tenant.get("/v1/cache/half%4").refused(400, "bad_request");
}

#[test]
fn a_value_has_a_largest_size() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "k", &vec![7; 1 << 20]);
    assert_eq!(tenant.get(&path("k")).expect(200).body.len(), 1 << 20);
    tenant.call("PUT", &path("k")).bytes("text/plain", vec![8; (1 << 20) + 1]).send().refused(413, "payload_too_large");
    assert_eq!(tenant.get(&path("k")).expect(200).body[0], 7);
}

#[test]
fn a_client_that_has_the_entry_is_not_sent_it_again() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let made = tenant.call("PUT", &path("k")).bytes("text/plain", "v").send().expect(204);
    let etag = made.header("etag").expect("an ETag").to_owned();
    assert_eq!(tenant.get(&path("k")).expect(200).header("etag"), Some(etag.as_str()));
    let not_modified = tenant.call("GET", &path("k")).header("If-None-Match", &etag).send().expect(304);
    assert_eq!((not_modified.body.len(), not_modified.header("etag")), (0, Some(etag.as_str())));
    let changed = tenant.call("PUT", &path("k")).bytes("text/plain", "v").send().expect(204);
    assert_ne!(changed.header("etag"), Some(etag.as_str()), "every writing has an ETag of its own");
    tenant.call("GET", &path("k")).header("If-None-Match", &etag).send().expect(200);
    tenant.call("GET", &path("gone")).header("If-None-Match", "*").send().refused(404, "not_found");
}

#[test]
fn reading_writes_nothing() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "k", b"v");
    // A commit of ours is in the log; that it does not grow is what reading leaves.
    let file = server.file(&tenant.id, "cache").into_os_string();
    let log = || {
        let mut log = file.clone();
        log.push("-wal");
        std::fs::metadata(log).map(|meta| meta.len()).unwrap_or(0)
    };
    let before = log();
    for _ in 0..50 {
        assert!(has(&tenant, "k") && !has(&tenant, "missing"));
    }
    assert!(log() <= before, "the log grew from {before} to {} bytes", log());
}

#[test]
fn a_tenant_sees_only_its_own_entries_and_only_with_the_scope() {
    let server = Server::shared();
    let (one, other) = (server.tenant("cache"), server.tenant("cache"));
    put(&one, "k", b"mine");
    other.get(&path("k")).refused(404, "not_found");
    other.delete(&path("k")).expect(204);
    assert!(has(&one, "k"));
    let reader = server.scoped(&one, &["sql:read"]);
    for method in ["PUT", "GET", "DELETE"] {
        reader.call(method, &path("k")).send().refused(403, "forbidden");
    }
    reader.get("/v1/cache").refused(403, "forbidden");
    reader.delete("/v1/cache?all=true").refused(403, "forbidden");
    reader.post("/v1/cache", json!({ "operations": [{ "op": "get", "key": "k" }] })).refused(403, "forbidden");
    reader.post(&format!("{}/increment", path("k")), json!({})).refused(403, "forbidden");
    reader.delete(&format!("{}/fill", path("k"))).refused(403, "forbidden");
    server.anyone().get(&path("k")).refused(401, "unauthenticated");
}

#[test]
fn who_reads_while_it_is_written_never_brings_an_old_value_back() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    put(&tenant, "k", b"0");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    tenant.get(&path("k")).expect(200);
                }
            });
        }
        let wrong = (1..=400).find(|n| {
            put(&tenant, "k", n.to_string().as_bytes());
            tenant.get(&path("k")).expect(200).text() != n.to_string()
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(wrong, None, "an acknowledged value was not what was read after it");
    });
}

#[test]
fn a_full_cache_gives_up_what_expires_soonest_and_then_the_oldest() {
    let server = Server::with(|s| {
        s.set("plans.tiny.cache_bytes", 1 << 20);
        // What the file gave up may still be answered from memory.
        s.set("cache.memory_bytes", 0);
    });
    let tenant = server.tenant_on("tiny", "cache");
    put(&tenant, "oldest", b"v");
    tenant.call("PUT", &format!("{}?ttl=600", path("soon gone"))).bytes("text/plain", noise(64 << 10)).send().expect(204);
    put(&tenant, "second", b"v");
    let evicted = || tenant.get("/v1/cache").expect(200).json()["evicted"].as_u64().unwrap();
    let mut n = 0;
    while evicted() == 0 {
        put(&tenant, &format!("fill {n}"), &noise(64 << 10));
        n += 1;
        assert!(n < 32, "nothing was evicted");
    }
    assert!(!has(&tenant, "soon gone"));
    assert!(has(&tenant, "oldest") && has(&tenant, "second"), "what expires goes first");
    for n in 0..64 {
        put(&tenant, &format!("more {n}"), &noise(64 << 10));
        assert!(has(&tenant, &format!("more {n}")));
    }
    assert!(!has(&tenant, "oldest") && !has(&tenant, "fill 0"));
    let bytes = std::fs::metadata(server.file(&tenant.id, "cache")).unwrap().len();
    assert!(bytes <= 1 << 20, "the file has {bytes} bytes");
}

#[test]
fn what_is_read_outlives_a_flood_of_what_is_not() {
    for memory_bytes in [0, 64 << 20] {
        let mut server = Server::with(|s| {
            s.set("plans.tiny.cache_bytes", 1 << 20).set("cache.memory_bytes", memory_bytes);
        });
        let tenant = server.tenant_on("tiny", "cache");
        let set = |name: &str, n: usize| {
            let lasts = if n.is_multiple_of(2) { "?ttl=3600" } else { "" };
            let path = format!("{}{lasts}", path(format!("{name} {n}")));
            tenant.call("PUT", &path).bytes("text/plain", noise(10_000)).send().expect(204);
        };
        (0..10).for_each(|n| set("read", n));
        (0..10).for_each(|n| set("not read", n));
        for n in 0..400 {
            set("flood", n);
            if n % 8 == 0 {
                assert!((0..10).all(|n| has(&tenant, &format!("read {n}"))), "{n} in");
            }
        }
        let stats = tenant.get("/v1/cache").expect(200).json();
        assert!(stats["spared"].as_u64() >= Some(10) && stats["evicted"].as_u64() > Some(300), "{stats}");
        // Nothing is answered from memory then.
        server.restart();
        assert!((0..10).all(|n| has(&tenant, &format!("read {n}"))));
        assert!((0..10).all(|n| !has(&tenant, &format!("not read {n}"))));
        // Read no more, it goes like all others.
        (0..400).for_each(|n| set("later", n));
        server.restart();
        assert!((0..10).all(|n| !has(&tenant, &format!("read {n}"))));
    }
}

#[test]
fn a_file_that_holds_little_becomes_short_again() {
    let mut server = Server::start();
    let tenant = server.tenant("cache");
    let file = server.file(&tenant.id, "cache");
    let bytes = || std::fs::metadata(&file).unwrap().len();
    // As it was provisioned, and made anew.
    for _ in 0..2 {
        (0..30).for_each(|n| put(&tenant, &format!("large {n}"), &noise(100_000)));
        server.restart();
        assert!(bytes() > 3_000_000);
        put(&tenant, "kept", b"v");
        tenant.delete("/v1/cache?prefix=large").expect(204);
        // Once in 64 writes somebody measures how much is empty.
        (0..120).for_each(|n| put(&tenant, &format!("small {n}"), b"v"));
        server.stop();
        assert!(bytes() < 900_000, "{} bytes", bytes());
        check_files(&server.folder(&tenant.id));
        server.start_again();
        assert!(has(&tenant, "kept") && has(&tenant, "small 0") && has(&tenant, "small 119"));
        server.stop();
        std::fs::remove_file(&file).unwrap();
        server.start_again();
    }
}

#[test]
fn small_entries_make_room_for_a_large_one_and_one_that_can_never_fit_evicts_nothing() {
    let server = Server::with(|s| {
        s.set("plans.tiny.cache_bytes", 1 << 20);
    });
    let tenant = server.tenant_on("tiny", "cache");
    for n in 0..400 {
        put(&tenant, &format!("small {n}"), &noise(2_000));
    }
    tenant.call("PUT", &path("never")).bytes("text/plain", noise(1 << 20)).send().refused(507, "quota_exceeded");
    assert!(has(&tenant, "small 399") && has(&tenant, "small 200"));
    put(&tenant, "large", &noise(700 << 10));
    assert!(has(&tenant, "large") && !has(&tenant, "small 0"));
}

#[test]
fn a_method_that_is_not_there_is_named_with_those_that_are() {
    let server = Server::shared();
    let tenant = server.tenant("cache");
    let answer = tenant.post(&path("k"), json!({}));
    let allow = answer.header("allow").unwrap_or("").to_owned();
    answer.refused(405, "method_not_allowed");
    assert!(["GET", "PUT", "DELETE"].iter().all(|method| allow.contains(method)), "{allow}");
}

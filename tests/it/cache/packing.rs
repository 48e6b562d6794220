//! How values stand in the file: compressed, sealed, or as they are. Nobody who reads them sees a difference.

use std::path::Path;

use super::{noise, path, put};
use crate::support::{Server, TenantClient, json};

/// One that answers from the file, over `dir`.
fn server(dir: &Path, encrypt: bool) -> Server {
    Server::with(|c| {
        c.dir(dir).set("cache.memory_bytes", 0).set("cache.encrypt", encrypt);
    })
}

#[track_caller]
fn bytes(tenant: &TenantClient) -> i64 {
    tenant.get("/v1/cache").expect(200).json()["bytes"].as_i64().unwrap()
}

fn get(tenant: &TenantClient, key: &str) -> Option<Vec<u8>> {
    let answer = tenant.get(&path(key));
    match answer.status {
        200 => Some(answer.body),
        404 => None,
        other => panic!("GET {key} answers {other} {}", answer.text()),
    }
}

#[track_caller]
fn remember(tenant: &TenantClient) -> bool {
    let body = json!({ "sql": "SELECT 'the secret ' || 'answer'" });
    let answer = tenant.post("/v1/cache/q/remember", body).expect(200);
    assert!(answer.text().contains("the secret answer"));
    answer.header("cache-status").unwrap().contains("hit")
}

fn change(file: &Path, sql: &str) {
    let changed = rusqlite::Connection::open(file).unwrap().execute(sql, []).unwrap();
    assert!(changed > 0, "{sql}");
}

#[test]
fn values_come_back_byte_for_byte_and_take_less_room() {
    let dir = tempfile::tempdir().unwrap();
    for encrypt in [false, true] {
        let dir = dir.path().join(encrypt.to_string());
        let mut server = server(&dir, encrypt);
        let tenant = server.tenant("packed");
        let before = bytes(&tenant);
        let text = |len: usize| b"The quick brown fox jumps over the lazy dog. ".iter().copied().cycle().take(len).collect::<Vec<u8>>();
        let lens = [0, 1, 1_023, 1_024, 10_000, 128 << 10, 129 << 10, 1 << 20];
        for len in lens {
            put(&tenant, &format!("text {len}"), &text(len));
        }
        assert!(bytes(&tenant) - before < 200_000, "{} bytes", bytes(&tenant) - before);
        put(&tenant, "noise", &noise(300_000));
        let with_noise = bytes(&tenant) - before;
        assert!(with_noise > 290_000, "{with_noise} bytes, {}", get(&tenant, "noise").map_or(0, |noise| noise.len()));
        tenant.post(&format!("{}/increment", path("n")), json!({ "by": 20 })).expect(200);
        for _ in 0..2 {
            lens.iter().for_each(|&len| assert!(get(&tenant, &format!("text {len}")).unwrap() == text(len), "{len}"));
            assert!(get(&tenant, "noise").unwrap() == noise(300_000));
            assert_eq!(tenant.call("HEAD", &path("text 1024")).send().expect(200).header("content-length"), Some("1024"));
            server.restart();
        }
        let counted = tenant.post(&format!("{}/increment", path("n")), json!({})).expect(200).json();
        assert_eq!(counted["value"], 21);
        assert!(!remember(&tenant) && remember(&tenant));
    }
}

#[test]
fn a_value_that_cannot_be_unpacked_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path(), false);
    let tenant = server.tenant("damaged");
    let value = vec![b'v'; 50_000];
    ["cut", "changed", "longer", "whole"].iter().for_each(|key| put(&tenant, key, &value));
    server.stop();
    let file = server.file(&tenant.id, "cache");
    change(&file, "UPDATE entries SET value = substr(value, 1, length(value) / 2) WHERE key = CAST('/cut' AS BLOB)");
    change(&file, "UPDATE entries SET value = zeroblob(length(value)) WHERE key = CAST('/changed' AS BLOB)");
    change(&file, "UPDATE entries SET size = size - 1 WHERE key = CAST('/longer' AS BLOB)");
    server.start_again();
    assert_eq!(["cut", "changed", "longer", "whole"].map(|key| get(&tenant, key).is_some()), [false, false, false, true]);
    put(&tenant, "cut", b"again");
    assert_eq!(get(&tenant, "cut").unwrap(), b"again");
}

#[test]
fn sealed_values_are_their_tenants_and_their_keys_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut sealing = server(dir.path(), true);
    let (one, other) = (sealing.tenant("sealed"), sealing.tenant("other"));
    one.script("CREATE TABLE t(x)");
    for (key, value) in [("a", "the secret of a"), ("b", "the secret of b"), ("c", "the secret of c")] {
        put(&one, key, value.as_bytes());
    }
    put(&other, "a", b"another's");
    assert!(!remember(&one));
    sealing.stop();
    let (file, others) = (sealing.file(&one.id, "cache"), sealing.file(&other.id, "cache"));
    let raw = std::fs::read(&file).unwrap();
    let stands = |text: &[u8]| raw.windows(text.len()).any(|part| part == text);
    assert_eq!([stands(b"the secret"), stands(b"/a")], [false, true]);
    // Another row's value, another tenant's file.
    change(&file, "UPDATE entries SET value = (SELECT value FROM entries WHERE key = CAST('/a' AS BLOB)) WHERE key = CAST('/b' AS BLOB)");
    std::fs::copy(&file, &others).unwrap();
    sealing.start_again();
    assert_eq!(get(&one, "a").unwrap(), b"the secret of a");
    assert_eq!((get(&one, "b"), get(&one, "c").is_some()), (None, true));
    assert!(["a", "b", "c"].iter().all(|key| get(&other, key).is_none()));
    assert!(remember(&one));
    put(&other, "a", b"again");
    assert_eq!(get(&other, "a").unwrap(), b"again");
    sealing.stop();

    // Off, and on again: the other kind is a miss.
    let mut plain = server(dir.path(), false);
    let one = plain.known(&one);
    assert_eq!((get(&one, "a"), get(&one, "c")), (None, None));
    assert!(!remember(&one));
    put(&one, "a", b"plain");
    assert_eq!(get(&one, "a").unwrap(), b"plain");
    plain.stop();
    let mut sealing = server(dir.path(), true);
    let one = sealing.known(&one);
    assert_eq!((get(&one, "a"), get(&one, "c").unwrap()), (None, b"the secret of c".to_vec()));
    sealing.stop();

    let key = dir.path().join("system/keys/cache.key");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&key).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(&key).unwrap();
    sealing.start_again();
    assert_eq!(get(&one, "c"), None);
    put(&one, "c", b"anew");
    assert_eq!(get(&one, "c").unwrap(), b"anew");
}

//! A disk below the cache files that fails, or has no room: it costs misses. Whatever was acknowledged, the value that was
//! there before is never answered again.

use super::{has, noise, path, put, put_with};
use crate::support::shim::*;
use crate::support::*;

const EMFILE: i32 = 24;

fn cache_of(tenant: &TenantClient, suffix: &str) -> String {
    format!("*/tenant_cache_{}.sqlite{suffix}", tenant.id)
}

/// What the key holds.
#[track_caller]
fn held(tenant: &TenantClient, key: &str) -> Option<String> {
    let answer = tenant.get(&path(key));
    match answer.status {
        200 => Some(answer.text()),
        404 => None,
        other => panic!("GET {key} answers {other} {}", answer.text()),
    }
}

/// Overwrites, deletes, throws away and counts what is there, and finds nothing old afterwards. How many puts were stored.
#[track_caller]
fn never_stale(tenant: &TenantClient, case: &str) -> usize {
    let mut stored = 0;
    for n in 0..3 {
        let (key, new) = (format!("put-{n}"), format!("new-{n}"));
        let answer = tenant.call("PUT", &path(&key)).bytes("text/plain", new.as_str()).send().expect(204);
        let etag = answer.header("etag").is_some();
        assert_eq!(answer.header("cache-status"), (!etag).then_some("tenantry; detail=not-stored"), "{case}");
        let held = held(tenant, &key);
        assert!(held.as_ref().is_none_or(|held| *held == new), "{case}: {key} holds {held:?}");
        stored += usize::from(etag);
    }
    tenant.delete(&path("deleted")).expect(204);
    assert_eq!(held(tenant, "deleted"), None, "{case}");
    tenant.delete("/v1/cache?tag=thrown").expect(204);
    assert_eq!(held(tenant, "tagged"), None, "{case}");
    let counted = tenant.post(&format!("{}/increment", path("count")), json!({})).expect(200).json()["value"].as_i64().unwrap();
    assert!(counted == 1 || counted == 42, "{case}: {counted}");
    let operations = json!([{ "op": "set", "key": "b", "text": "v" }, { "op": "get", "key": "put-0" }, { "op": "delete", "key": "b" }]);
    let results = tenant.post("/v1/cache", json!({ "operations": operations })).expect(200).json()["results"].clone();
    assert!(results[0]["etag"].is_string() || results[0] == json!({ "stored": false }), "{case}: {results}");
    assert_eq!(results[2], json!({ "deleted": true }), "{case}");
    tenant.get("/v1/cache").expect(200);
    stored
}

#[track_caller]
fn remembers(tenant: &TenantClient) {
    let answer = tenant.post("/v1/cache/q/remember", json!({ "sql": "SELECT 1" })).expect(200);
    assert_eq!(answer.json()["results"][0]["rows"], json!([[1]]));
}

#[track_caller]
fn filled(tenant: &TenantClient) {
    (0..3).for_each(|n| put(tenant, &format!("put-{n}"), b"old"));
    put(tenant, "deleted", b"old");
    put_with(tenant, "tagged", "tags=thrown");
    put(tenant, "count", b"41");
    // In memory too.
    assert!((0..3).all(|n| has(tenant, &format!("put-{n}"))) && has(tenant, "deleted") && has(tenant, "tagged"));
}

#[test]
fn a_write_that_fails_once_is_done_in_a_new_file() {
    let shim = Shim::new();
    let server = Server::with(|c| shim.under(c));
    let (mut faults, mut stored) = (0, 0);
    for (operations, suffix) in [(WRITE, "-wal"), (WRITE, ""), (WRITE | TRUNCATE, "-shm")] {
        for error in [EIO, ENOSPC] {
            for nth in 1..=3 {
                let tenant = server.tenant("failing");
                filled(&tenant);
                shim.set(&Rule { nth, torn: nth == 2, ..Rule::new(operations, cache_of(&tenant, suffix), error) });
                stored += never_stale(&tenant, &format!("operations {operations} of …{suffix}, error {error}, call {nth}"));
                faults += shim.clear().1;
            }
        }
    }
    assert!(faults >= 6, "{faults}");
    assert_eq!(stored, 18 * 3, "each found room in the file, or in a new one");
}

#[test]
fn where_nothing_can_be_written_nothing_is_stored_and_nothing_old_is_answered() {
    let shim = Shim::new();
    let mut server = Server::with(|c| shim.under(c));
    let mut tenants = Vec::new();
    for error in [EIO, ENOSPC] {
        let tenant = server.tenant("broken");
        filled(&tenant);
        shim.set(&Rule { times: u64::MAX, ..Rule::new(WRITE, cache_of(&tenant, "*"), error) });
        assert_eq!(never_stale(&tenant, &format!("error {error}")), 0);
        remembers(&tenant);
        let conditional = tenant.call("PUT", &path("put-0")).header("If-Match", "*").bytes("text/plain", "new").send();
        conditional.refused(412, "precondition_failed");
        shim.clear();
        tenants.push(tenant);
    }
    server.kill9();
    server.start_again();
    for tenant in &tenants {
        for key in ["put-0", "put-1", "put-2", "deleted", "tagged"] {
            assert_eq!(held(tenant, key), None, "{key} after kill -9");
        }
        put(tenant, "again", b"v");
        assert_eq!(held(tenant, "again").as_deref(), Some("v"));
    }
}

#[test]
fn what_can_neither_be_written_nor_removed_is_not_acknowledged() {
    let shim = Shim::new();
    let server = Server::with(|c| shim.under(c));
    let tenant = server.tenant("stuck");
    filled(&tenant);
    shim.set(&Rule { times: u64::MAX, ..Rule::new(WRITE | UNLINK, cache_of(&tenant, "*"), EIO) });
    let put = || tenant.call("PUT", &path("put-0")).bytes("text/plain", "new").send();
    put().refused(503, "tenant_unavailable");
    assert_eq!(held(&tenant, "put-0"), None);
    shim.clear();
    let etag = eventually("it is stored again", || put().expect(204).header("etag").map(str::to_owned));
    assert!(etag.starts_with('"'));
    assert_eq!(held(&tenant, "put-0").as_deref(), Some("new"));
}

#[test]
fn a_server_without_descriptors_keeps_what_the_file_holds() {
    let shim = Shim::new();
    let server = Server::with(|c| shim.under(c));
    for (suffix, times) in [("", 1), ("*", 1), ("*", u64::MAX), ("-wal", u64::MAX)] {
        let tenant = server.tenant("crowded");
        put(&tenant, "kept", b"value");
        let state = |state: &str| server.admin().patch(&format!("/admin/v1/tenants/{}", tenant.id), json!({ "state": state })).expect(200);
        state("suspended");
        state("active");
        shim.set(&Rule { times, ..Rule::new(OPEN, cache_of(&tenant, suffix), EMFILE) });
        let refused = tenant.get(&path("kept"));
        let (_, hits) = shim.clear();
        assert!(hits > 0, "…{suffix}, {times} times: no call failed");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "…{suffix}: {}", refused.text());
        assert_eq!(held(&tenant, "kept").as_deref(), Some("value"), "…{suffix}, {times} times");
    }
    assert_eq!(server.admin().get("/admin/v1/health").json()["sqlite"]["files_replaced"], 0);
}

#[test]
fn on_a_disk_without_room_from_the_start_nothing_is_stored_until_it_has_some() {
    let shim = Shim::new();
    let mut server = Server::with(|c| shim.under(c));
    let tenant = server.tenant("full");
    filled(&tenant);
    shim.set(&Rule { times: u64::MAX, ..Rule::new(WRITE, cache_of(&tenant, "*"), ENOSPC) });
    server.kill9();
    server.start_again();
    assert_eq!(never_stale(&tenant, "started without room"), 0);
    assert!(shim.clear().1 > 0);
    eventually("it stores again", || {
        put(&tenant, "again", b"v");
        has(&tenant, "again").then_some(())
    });
    ["put-0", "put-1", "put-2", "deleted", "tagged"].iter().for_each(|key| assert_eq!(held(&tenant, key), None, "{key}"));
}

#[test]
fn a_full_disk_costs_misses() {
    let Some(disk) = Disk::tmpfs(24 << 20) else { return };
    let ballast = disk.path().join("ballast");
    let mut server = Server::with(|c| {
        c.dir(&disk.path().join("data"));
    });
    let tenants = [server.tenant("full"), server.tenant("fuller")];
    let fill_up = || {
        let mut file = std::fs::File::options().append(true).create(true).open(&ballast).unwrap();
        while std::io::Write::write(&mut file, &[0; 4_096]).is_ok_and(|written| written > 0) {}
    };
    for tenant in &tenants {
        filled(tenant);
        (0..20).for_each(|n| put(tenant, &format!("large-{n}"), &noise(70_000)));
    }
    for tenant in &tenants {
        fill_up();
        // What the file gives up is room for a new one, until somebody else takes it.
        assert!(never_stale(tenant, "a full disk") > 0);
        fill_up();
        never_stale(tenant, "a disk that stays full");
        let status = tenant.call("PUT", &path("big")).bytes("text/plain", noise(900_000)).send().status;
        assert_eq!(status, 204);
    }
    server.kill9();
    server.start_again();
    fill_up();
    tenants.iter().for_each(|tenant| assert!(never_stale(tenant, "started on a full disk") <= 3));
    std::fs::remove_file(&ballast).unwrap();
    for tenant in &tenants {
        eventually("it stores again", || {
            put(tenant, "again", b"v");
            has(tenant, "again").then_some(())
        });
    }
}

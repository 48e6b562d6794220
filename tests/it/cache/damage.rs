//! A cache file that is harmed, closed or while it is in use: it costs what it held, and nothing else. Nobody is answered
//! with an error, and the next value that is set is there.

use std::fs;
use std::path::Path;

use super::{path, put};
use crate::support::{Server, TenantClient, json};

type Harm = fn(&Path);

/// What is done to a closed file.
const CLOSED: [(&str, Harm); 8] = [
    ("overwritten", |file| fs::write(file, vec![0x42; 64 << 10]).unwrap()),
    ("emptied", |file| fs::write(file, "").unwrap()),
    ("cut within its header", |file| cut(file, 50)),
    ("cut within a page", |file| cut(file, 6_000)),
    ("gone", |file| fs::remove_file(file).unwrap()),
    ("a folder", |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
    ("from a binary to come", |file| {
        let sql = "INSERT INTO _tenantry_migrations (\"set\", version, name, checksum, applied_at, took_ms, applied_by)
             SELECT \"set\", version + 1000, name, checksum, applied_at, took_ms, applied_by FROM _tenantry_migrations";
        rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
    }),
    ("without its tables", |file| {
        rusqlite::Connection::open(file).unwrap().execute_batch("DROP TABLE entries; DROP TABLE clock").unwrap();
    }),
];

/// What is done to a file while the server has it open. Its log stays as it is, but where it says so.
const OPEN: [(&str, Harm); 3] = [
    ("overwritten", |file| fs::write(file, vec![0x42; 256 << 10]).unwrap()),
    ("gone", |file| fs::remove_file(file).unwrap()),
    ("gone with its log", |file| {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = file.as_os_str().to_owned();
            name.push(suffix);
            let _ = fs::remove_file(name);
        }
    }),
];

fn cut(file: &Path, bytes: u64) {
    fs::File::options().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

/// Whatever it held is answered, or is a miss.
fn reads(tenant: &TenantClient, what: &str) {
    // At once, so that there are not readers enough and more are opened.
    std::thread::scope(|scope| {
        for reader in 0..8 {
            scope.spawn(move || {
                for n in (reader..40).step_by(8) {
                    let answer = tenant.get(&path(format!("old-{n}")));
                    assert!([200, 404].contains(&answer.status), "a file {what}: GET answers {} {}", answer.status, answer.text());
                }
            });
        }
    });
}

/// Everything a cache is asked works, with or without what it held.
#[track_caller]
fn serves(tenant: &TenantClient, what: &str) {
    reads(tenant, what);
    let remembered = || tenant.post("/v1/cache/q/remember", json!({ "sql": "SELECT count(*) FROM t" })).expect(200);
    assert_eq!(remembered().json()["results"][0]["rows"], json!([[1]]), "a file {what}");
    put(tenant, "new", b"value");
    assert_eq!(tenant.get(&path("new")).expect(200).text(), "value", "a file {what}");
    tenant.post(&format!("{}/increment", path("count")), json!({})).expect(200);
    tenant.delete("/v1/cache?tag=t").expect(204);
    tenant.delete(&path("new")).expect(204);
    assert_eq!(tenant.get(&path("new")).status, 404, "a file {what}");
    remembered();
    assert!(remembered().header("cache-status").unwrap().starts_with("tenantry; hit"), "a file {what}");
}

fn filled(server: &Server) -> TenantClient {
    let tenant = server.tenant("harmed");
    tenant.script("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    // More than stays in memory: values over 64 KiB are read from the file.
    (0..40).for_each(|n| put(&tenant, &format!("old-{n}"), &vec![b'v'; 70_000]));
    tenant
}

#[track_caller]
fn replaced(server: &Server) -> u64 {
    server.admin().get("/admin/v1/health").expect(200).json()["sqlite"]["files_replaced"].as_u64().unwrap()
}

#[test]
fn a_harmed_cache_file_costs_what_it_held() {
    let mut server = Server::start();
    let harmed = CLOSED.map(|(what, harm)| (what, harm, filled(&server)));
    server.stop();
    for (_, harm, tenant) in &harmed {
        harm(&server.file(&tenant.id, "cache"));
    }
    server.start_again();
    for (what, _, tenant) in &harmed {
        serves(tenant, what);
    }
    assert!(replaced(&server) >= 8, "{}", replaced(&server));
    assert_eq!(server.admin().get("/admin/v1/health").json()["status"], "ok");
    assert!(server.log().contains("is made anew"));
    server.restart();
    harmed.iter().for_each(|(what, _, tenant)| serves_again(tenant, what));
}

#[test]
fn a_cache_file_harmed_while_it_is_open_costs_what_it_held() {
    let mut server = Server::start();
    let harmed = OPEN.map(|(what, harm)| (what, harm, filled(&server)));
    for (what, harm, tenant) in &harmed {
        let before = replaced(&server);
        harm(&server.file(&tenant.id, "cache"));
        // A connection that has the old file open, and finds all in the log, may serve from it for as long as it is alone.
        for _ in 0..20 {
            reads(tenant, what);
            if replaced(&server) > before {
                break;
            }
        }
        serves(tenant, what);
        (0..40).for_each(|n| put(tenant, &format!("old-{n}"), &vec![b'w'; 70_000]));
        serves(tenant, what);
    }
    server.restart();
    harmed.iter().for_each(|(what, _, tenant)| serves_again(tenant, what));
}

#[track_caller]
fn serves_again(tenant: &TenantClient, what: &str) {
    put(tenant, "again", b"v");
    assert_eq!(tenant.get(&path("again")).expect(200).text(), "v", "a file {what}, opened again");
}

#[test]
fn the_operators_own_cache_is_made_anew_as_a_tenants_is() {
    let mut server = Server::start();
    let set = |server: &Server, key: &str| {
        server.admin().call("PUT", &path(key)).bytes("text/plain", "v").send().expect(204);
        assert_eq!(server.admin().get(&path(key)).expect(200).text(), "v");
    };
    for (what, harm) in CLOSED {
        set(&server, "old");
        server.stop();
        harm(&server.dir().join("system/cache.db"));
        server.start_again();
        let old = server.admin().get(&path("old"));
        assert_eq!(old.status, 404, "{what}: {}", old.text());
        set(&server, "new");
    }
}

#[test]
fn a_file_that_cannot_give_pages_back_is_made_anew_and_another_one_is_brought_up_to_date() {
    let mut server = Server::start();
    let (old, newer) = (server.tenant("cache"), server.tenant("cache"));
    [&old, &newer].into_iter().for_each(|tenant| put(tenant, "k", b"v"));
    server.stop();
    let before = "DROP TABLE IF EXISTS entry_uses; CREATE TABLE entry_uses (entry INTEGER PRIMARY KEY, used_at INTEGER NOT NULL) STRICT;
         DELETE FROM _tenantry_migrations WHERE \"set\" = 'cache' AND version > 1";
    let files = [&old, &newer].map(|tenant| server.file(&tenant.id, "cache"));
    let opened = |file: &Path| rusqlite::Connection::open(file).unwrap();
    files.iter().for_each(|file| opened(file).execute_batch(before).unwrap());
    opened(&files[0]).execute_batch("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM; PRAGMA journal_mode = WAL").unwrap();
    let gives_back = |file: &Path| opened(file).query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0)).unwrap() != 0;
    assert_eq!([gives_back(&files[0]), gives_back(&files[1])], [false, true]);
    server.start_again();
    let (old, newer) = (server.known(&old), server.known(&newer));
    assert_eq!((old.get(&path("k")).status, newer.get(&path("k")).expect(200).text()), (404, "v".to_owned()));
    put(&old, "k", b"new");
    server.restart();
    assert_eq!(server.known(&old).get(&path("k")).expect(200).text(), "new");
    server.stop();
    assert_eq!([gives_back(&files[0]), gives_back(&files[1])], [true, true]);
}

//! Files that are not what they should be in a tenant's place: cut short, emptied, overwritten, another database,
//! one whose schema wants to do harm, no file at all. The server starts, that tenant answers 503 with a code and
//! shows in health with the reason for operators, everybody else works, and the good file put back is served again.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::support::*;

type Harm = fn(&Path);

/// What is done to a tenant's closed database file.
const HARMS: &[(&str, Harm)] = &[
    ("overwritten", |file| fs::write(file, vec![0x42; 64 << 10]).unwrap()),
    ("emptied", |file| fs::write(file, "").unwrap()),
    ("cut within its header", |file| cut(file, 50)),
    ("cut within a page", |file| cut(file, 6_000)),
    ("cut after two pages", |file| cut(file, 8_192)),
    ("of zeros", |file| fs::write(file, vec![0; fs::metadata(file).unwrap().len() as usize]).unwrap()),
    ("with a schema that does not parse", |file| {
        schema(file, "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (((' WHERE name = 't'");
    }),
    ("with a table on the first page", |file| schema(file, "UPDATE sqlite_schema SET rootpage = 1 WHERE name = 't'")),
    ("with a table beyond its end", |file| schema(file, "UPDATE sqlite_schema SET rootpage = 999999 WHERE name = 't'")),
    ("of a page size that is none", |file| overwrite(file, 16, &[0x12, 0x34])),
    ("of a format to come", |file| overwrite(file, 18, &[9, 9])),
    ("that only a SQLite to come may write", |file| overwrite(file, 18, &[3])),
    ("with our bookkeeping gone", |file| run(file, "DROP TABLE _tenantry_migrations")),
    ("with a view in our bookkeeping's place", |file| {
        run(file, "DROP TABLE _tenantry_migrations; CREATE VIEW _tenantry_migrations AS SELECT 1 AS \"set\", 1 AS version, 1 AS checksum");
    }),
    ("from a binary to come", |file| {
        run(
            file,
            "INSERT INTO _tenantry_migrations (\"set\", version, name, checksum, applied_at, took_ms, applied_by)
             SELECT \"set\", version + 1000, name, checksum, applied_at, took_ms, applied_by FROM _tenantry_migrations",
        );
    }),
    ("gone", |file| fs::remove_file(file).unwrap()),
    ("a folder", |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
    ("a pipe", |file| {
        fs::remove_file(file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
    }),
    ("a link to nowhere", |file| {
        fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink("/nonexistent/file", file).unwrap();
    }),
];

fn cut(file: &Path, bytes: u64) {
    fs::File::options().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

fn overwrite(file: &Path, at: usize, with: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
    fs::write(file, bytes).unwrap();
}

fn run(file: &Path, sql: &str) {
    Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

fn schema(file: &Path, sql: &str) {
    run(file, &format!("PRAGMA writable_schema = ON; {sql}"));
}

const ROWS: &str = "CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT); CREATE INDEX by_y ON t (y);
    WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 500) INSERT INTO t SELECT x, hex(randomblob(30)) FROM c;";

#[test]
fn a_harmed_file_is_its_tenants_trouble_alone_and_is_healed_by_the_good_one() {
    let mut server = Server::start();
    let fine = server.tenant("fine");
    fine.script(ROWS);
    let harmed: Vec<_> = HARMS.iter().map(|(name, harm)| (name, harm, server.tenant("harmed"))).collect();
    harmed.iter().for_each(|(.., tenant)| drop(tenant.script(ROWS)));
    server.stop();
    let mut good = Vec::new();
    for (_, harm, tenant) in &harmed {
        let file = server.file(&tenant.id, "database");
        good.push(fs::read(&file).unwrap());
        harm(&file);
    }
    server.start_again();
    server.anyone().get("/readyz").expect(200);
    let mut served = Vec::new();
    for (name, _, tenant) in &harmed {
        for sql in ["SELECT count(*), max(y) FROM t", "INSERT INTO t (y) VALUES ('new')"] {
            let answer = tenant.sql(sql, json!([]));
            if answer.status != 503 {
                served.push(format!("a file {name}: {sql}: {} {}", answer.status, answer.text()));
                continue;
            }
            let told = answer.refused(503, "tenant_unavailable").to_string();
            assert!(!told.contains(".sqlite"), "{told}");
        }
        let health = server.admin().get("/admin/v1/health").expect(200).json();
        if health["status"] != "degraded" || !health.to_string().contains(&tenant.id) {
            served.push(format!("a file {name} does not show in health"));
        }
        let details = server.admin().get(&format!("/admin/v1/tenants/{}", tenant.id)).expect(200).json();
        if !details["tenant"]["files"]["database"]["error"].is_string() {
            served.push(format!("a file {name}: operators see no reason: {details}"));
        }
        // The other two files are served.
        tenant.call("PUT", "/v1/cache/k").bytes("text/plain", "v").send().succeeds();
        tenant.post("/v1/queues/q/jobs", json!({ "payload": 1 })).expect(201);
        assert_eq!(fine.rows("SELECT count(*) FROM t WHERE y IS NOT NULL", json!([])), json!([[500]]));
        fine.sql("UPDATE t SET y = y WHERE x = 1", json!([])).expect(200);
    }
    assert!(served.is_empty(), "{}", served.join("\n"));
    server.stop();
    for ((.., tenant), good) in harmed.iter().zip(good) {
        let file = server.file(&tenant.id, "database");
        let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
        // A log belongs to the file that it was written for.
        for log in ["sqlite-wal", "sqlite-shm"] {
            let _ = fs::remove_file(file.with_extension(log));
        }
        fs::write(&file, good).unwrap();
    }
    server.start_again();
    for (name, _, tenant) in &harmed {
        assert_eq!(tenant.rows("SELECT count(*) FROM t WHERE y IS NOT NULL", json!([])), json!([[500]]), "a file that was {name}");
    }
    assert_eq!(server.admin().get("/admin/v1/health").expect(200).json()["status"], "ok");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// `TENANTRY_FLIPS=2000` damages more files.
#[test]
fn flipped_bytes_give_rows_or_a_clear_error_and_harm_nobody_else() {
    let flips: usize = std::env::var("TENANTRY_FLIPS").map_or(40, |flips| flips.parse().expect("TENANTRY_FLIPS is a number"));
    let mut server = Server::start();
    let fine = server.tenant("fine");
    fine.script(ROWS);
    let flipped: Vec<_> = (0..flips).map(|_| server.tenant("flipped")).collect();
    for tenant in &flipped {
        tenant.script(ROWS);
    }
    server.stop();
    let mut dice = Dice::new();
    for tenant in &flipped {
        let file = server.file(&tenant.id, "database");
        let mut bytes = fs::read(&file).unwrap();
        for _ in 0..1 + dice.below(40) {
            // Half of them where b-tree pages have their headers and pointers.
            let page = dice.below(bytes.len() as u64 / 4096) * 4096;
            let at = page + if dice.below(2) == 0 { dice.below(100) } else { dice.below(4096) };
            bytes[at as usize] = dice.below(256) as u8;
        }
        fs::write(&file, bytes).unwrap();
    }
    server.start_again();
    let (mut answered, mut refused) = (0, 0);
    for tenant in &flipped {
        let mut damage = false;
        for sql in [
            "SELECT count(*), max(y) FROM t",
            "SELECT x FROM t WHERE y > 'A' ORDER BY y LIMIT 3",
            "INSERT INTO t (y) VALUES ('new')",
            "UPDATE t SET y = y || '.' WHERE x % 7 = 0",
            "DELETE FROM t WHERE x % 11 = 0",
            "PRAGMA integrity_check",
        ] {
            let answer = tenant.sql(sql, json!([]));
            match (answer.status, answer.json()["code"].as_str()) {
                (200, _) => answered += 1,
                (503, Some("tenant_unavailable")) => {
                    damage = true;
                    refused += 1;
                }
                (400, Some("sql_error")) | (409, Some("constraint_violation")) => refused += 1,
                _ => panic!("dice {}: {sql}: {} {}", dice.seed, answer.status, answer.text()),
            }
        }
        let health = server.admin().get("/admin/v1/health").expect(200).text();
        assert_eq!(health.contains(&tenant.id), damage, "dice {}: damage shows in health: {health}", dice.seed);
        assert_eq!(fine.rows("SELECT count(*) FROM t WHERE y IS NOT NULL", json!([])), json!([[500]]));
    }
    println!("{flips} files with flipped bytes: {answered} statements answered, {refused} refused with a clear code");
    assert!(refused > 0, "no flip was met");
    server.stop();
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

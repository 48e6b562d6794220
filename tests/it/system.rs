//! The system databases: registered, migrated, checked and shown in one place; and what is measured there.

use crate::support::*;

/// Tables that must exist, by file.
const TABLES: &[(&str, &[&str])] = &[
    ("app", &["tenants", "users", "user_sessions", "user_preferences", "user_activity_logs", "notifications", "memberships"]),
    ("mark", &["mark_users", "mark_sessions", "mark_settings", "mark_audit_logs", "content_revisions", "publishing_queue"]),
    ("analytics", &["page_views", "user_engagement", "search_queries", "performance_logs", "error_logs"]),
    ("cache", &["file_metadata_cache", "query_result_cache", "search_index_cache", "temp_uploads", "system_metrics"]),
    ("queue", &["background_jobs"]),
];

fn open(server: &Server, name: &str) -> rusqlite::Connection {
    rusqlite::Connection::open(server.dir().join(format!("system/{name}.db"))).unwrap()
}

#[test]
fn the_operator_sees_each_system_database_and_its_health() {
    let server = Server::shared();
    let answer = server.admin().get("/admin/v1/system").expect(200).json();
    let databases = answer.as_object().unwrap().values().find_map(Value::as_array).unwrap_or_else(|| panic!("{answer}"));
    for (name, tables) in TABLES {
        let health = databases.iter().find(|health| health["name"] == *name).unwrap_or_else(|| panic!("{name}: {answer}"));
        assert_eq!(health["connected"], true, "{health}");
        assert!(health["size_bytes"].as_u64().is_some_and(|size| size > 0), "{health}");
        assert!(health["tables"].as_u64().is_some_and(|count| count >= tables.len() as u64), "{health}");
        assert!(health["sqlite_version"].as_str().is_some_and(|version| version.starts_with("3.5")), "{health}");
        assert!(health["description"].as_str().is_some_and(|text| !text.is_empty()), "{health}");
    }
}

#[test]
fn nobody_else_can_read_the_files_also_where_the_directory_was_there_before() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data");
    let open_to_all = || std::fs::Permissions::from_mode(0o755);
    std::fs::create_dir_all(dir.join("system")).unwrap();
    for folder in [dir.clone(), dir.join("system")] {
        std::fs::set_permissions(folder, open_to_all()).unwrap();
    }
    let server = Server::with(|settings| _ = settings.dir(&dir));
    let tenant = server.tenant("private");
    tenant.script("CREATE TABLE t (x); INSERT INTO t VALUES (1);");
    let files = server.files();
    for kind in [".sqlite", ".sqlite-wal", ".sqlite-shm", "app.db"] {
        assert!(files.iter().any(|file| file.ends_with(kind)), "{kind}: {files:?}");
    }
    for file in files {
        let found = std::fs::symlink_metadata(dir.join(&file)).unwrap();
        let expected = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, expected, "{file}");
    }
}

#[test]
fn each_system_database_has_its_tables_strict_and_its_migrations_recorded() {
    let mut server = Server::start();
    server.stop();
    for (name, tables) in TABLES {
        let file = open(&server, name);
        for table in *tables {
            let strict: Result<i64, _> = file.query_row("SELECT strict FROM pragma_table_list WHERE name = ?1", [table], |row| row.get(0));
            assert_eq!(strict, Ok(1), "{name}.{table}");
        }
        let applied: i64 = file.query_row("SELECT count(*) FROM _tenantry_migrations", [], |row| row.get(0)).unwrap();
        assert!(applied > 0, "{name}");
        let check: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{name}");
    }
}

#[test]
fn a_changed_migration_is_refused_with_both_checksums() {
    let mut server = Server::start();
    server.stop();
    let fake = "0".repeat(64);
    open(&server, "app").execute("UPDATE _tenantry_migrations SET checksum = ?1 WHERE version = 1", [&fake]).unwrap();
    let output = server.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&fake), "{}", said(&output));
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
}

#[test]
fn a_corrupt_system_database_is_a_clear_error_at_start() {
    let mut server = Server::start();
    server.stop();
    std::fs::write(server.dir().join("system/app.db"), vec![0x42; 100_000]).unwrap();
    let output = server.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("app") && !said(&output).contains("panicked"), "{}", said(&output));
}

#[test]
fn slow_statements_are_written_to_performance_logs() {
    let mut server = Server::with(|c| {
        c.set("telemetry.slow_ms", 1);
    });
    let tenant = server.tenant("slow");
    let slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300000) SELECT count(*) FROM c";
    tenant.sql(slow, json!([])).expect(200);
    server.stop();
    let (rows, longest): (i64, f64) = open(&server, "analytics")
        .query_row("SELECT count(*), max(duration_ms) FROM performance_logs", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!(rows >= 1 && longest >= 1.0, "{rows} rows, longest {longest} ms");
}

#[test]
fn errors_on_our_side_are_written_to_error_logs() {
    let mut server = Server::start();
    let tenant = server.tenant("broken");
    server.stop();
    std::fs::write(server.file(&tenant.id, "database"), vec![0x42; 64 << 10]).unwrap();
    server.start_again();
    tenant.sql("SELECT 1", json!([])).refused(503, "tenant_unavailable");
    server.stop();
    let rows: i64 = open(&server, "analytics").query_row("SELECT count(*) FROM error_logs", [], |row| row.get(0)).unwrap();
    assert!(rows >= 1);
}

#[test]
fn health_and_metrics_show_the_pools() {
    let server = Server::shared();
    let tenant = server.tenant("seen");
    tenant.script("CREATE TABLE t (x)");
    let health = server.admin().get("/admin/v1/health").expect(200).text();
    let metrics = server.anyone().get("/metrics").expect(200);
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"), "{:?}", metrics.headers);
    let metrics = metrics.text();
    for (what, names) in [
        ("active connections", ["active", "in_use"]),
        ("idle connections", ["idle", "resting"]),
        ("connections in all", ["total", "open"]),
        ("who waits", ["waiting", "waits"]),
        ("transactions", ["transactions", "commits"]),
        ("opens", ["opens", "opened"]),
        ("evictions", ["evictions", "evicted"]),
        ("cache hits", ["hits", "hit"]),
        ("WAL bytes", ["wal_bytes", "wal"]),
    ] {
        assert!(names.iter().any(|name| health.contains(name)), "health does not show {what}: {health}");
        assert!(names.iter().any(|name| metrics.contains(name)), "metrics do not show {what}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(!line.contains(&tenant.id) && !line.contains(&tenant.slug), "no tenant is named to whoever scrapes: {line}");
    }
}

#[test]
fn metrics_can_want_a_key() {
    let server = Server::with(|c| {
        c.set("telemetry.scrape_key", "\"a-key-for-the-scraper\"");
    });
    server.anyone().get("/metrics").refused(401, "unauthenticated");
    server.anyone().bearer("a-key-for-the-scraper").get("/metrics").expect(200);
}

#[test]
fn every_answer_has_a_request_id() {
    let server = Server::shared();
    let tenant = server.tenant("ids");
    for answer in [
        server.anyone().get("/healthz"),
        tenant.sql("SELECT 1", json!([])),
        tenant.sql("nonsense", json!([])),
        server.anyone().get("/nowhere"),
    ] {
        let id = answer.header("x-request-id").expect("X-Request-Id");
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    }
}

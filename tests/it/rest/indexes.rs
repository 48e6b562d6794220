//! Embeds over foreign keys that no index serves, in each of the setting's ways.

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, StatementStatus};

use std::path::Path;

use super::FIXTURE;
use crate::support::{Client, Server, TenantClient, Value, json};

fn server(how: &str) -> Server {
    Server::with(|with| {
        with.set("rest.unindexed_embeds", how);
    })
}

/// What is indexed by ours: tables and their columns.
fn key_indexes(tenant: &TenantClient) -> Value {
    tenant.rows(
        "SELECT tbl_name, (SELECT group_concat(name) FROM pragma_index_info(s.name)) FROM sqlite_schema AS s \
         WHERE type = 'index' AND name LIKE '\\_tenantry\\_fk\\_%' ESCAPE '\\' ORDER BY 1, 2",
        json!([]),
    )
}

/// The statement by which `path` is read.
fn statement(client: &Client, path: &str) -> String {
    let told = client.call("GET", path).header("Accept", "application/vnd.pgrst.plan+json").send().expect(200).json();
    told[0]["SQL"].as_str().unwrap().to_owned()
}

fn opened(file: &Path) -> Connection {
    let conn = Connection::open(file).unwrap();
    // What they give is nobody's here.
    for ours in ["tenantry_json", "tenantry_object"] {
        conn.create_scalar_function(ours, -1, FunctionFlags::SQLITE_UTF8, |_| Ok("")).unwrap();
    }
    conn
}

/// Steps of SQLite's virtual machine that `sql` takes to its last row; its last parameter is how many rows.
fn steps(conn: &Connection, sql: &str, rows: i64) -> i32 {
    let mut statement = conn.prepare(sql).unwrap();
    statement.raw_bind_parameter(statement.parameter_count(), rows).unwrap();
    let mut rows = statement.raw_query();
    while rows.next().unwrap().is_some() {}
    drop(rows);
    statement.get_status(StatementStatus::VmStep)
}

#[test]
fn without_one_it_is_refused_where_the_setting_says_so() {
    // It is the default.
    let server = Server::start();
    let tenant = server.tenant("unindexed");
    tenant.script(FIXTURE);
    tenant.script("CREATE VIEW task_list AS SELECT id, project_id AS project FROM tasks");
    let error = tenant.get("/rest/v1/projects?select=id,tasks(id)").refused(400, "PGRST127");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("CREATE INDEX \"tasks_project_id\" ON \"tasks\" (\"project_id\")"), "{error}");
    assert_eq!(tenant.get("/rest/v1/projects?select=id,task_list(id)").refused(400, "PGRST127")["hint"], error["hint"]);
    tenant.get("/rest/v1/projects?select=id,clients(id)").expect(200);
    tenant.script(hint.split(';').next().unwrap());
    tenant.get("/rest/v1/projects?select=id,tasks(id)").expect(200);
    tenant.get("/rest/v1/projects?select=id,task_list(id)").expect(200);
}

#[test]
fn none_is_wanted_where_the_setting_says_so() {
    let server = server("allow");
    let tenant = server.tenant("unindexed");
    tenant.script(FIXTURE);
    tenant.get("/rest/v1/projects?select=id,tasks(id)").expect(200);
    assert_eq!(key_indexes(&tenant), json!([]));
}

#[test]
fn an_embed_over_two_hundred_thousand_rows_makes_its_index_and_finds_few() {
    let mut server = server("index");
    let tenant = server.tenant("indexed");
    tenant.script(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT); \
         CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents(id), name TEXT); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO parents SELECT i, 'p' FROM n; \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) \
         INSERT INTO children SELECT i, 1 + i % 20000, 'c' FROM n;",
    );
    let path = "/rest/v1/parents?select=id,children(id)&limit=50";
    let rows = tenant.get(path).expect(200).json();
    assert_eq!(rows.as_array().map(Vec::len), Some(50));
    assert_eq!(rows[0]["children"].as_array().map(Vec::len), Some(10));
    assert_eq!(key_indexes(&tenant), json!([["children", "parent"]]));
    let sql = statement(&tenant, path);
    let file = server.file(&tenant.id, "database");
    server.stop();
    let conn = opened(&file);
    let with = steps(&conn, &sql, 50);
    let ours = "SELECT name FROM sqlite_schema WHERE name LIKE '\\_tenantry\\_fk\\_%' ESCAPE '\\'";
    let name: String = conn.query_row(ours, [], |row| row.get(0)).unwrap();
    conn.execute_batch(&format!("DROP INDEX \"{name}\"")).unwrap();
    let without = steps(&conn, &sql, 50);
    println!("{with} steps with the index, {without} without");
    assert!(with < 100_000 && without > 50 * 200_000, "{with} {without}");
}

#[test]
fn a_write_and_a_view_have_it_made_too() {
    let server = server("index");
    let tenant = server.tenant("indexed");
    tenant.script(FIXTURE);
    tenant.script("CREATE VIEW task_list AS SELECT id, project_id AS project FROM tasks");
    let made = tenant.call("POST", "/rest/v1/clients?select=id,projects(id,task_list(id))").header("Prefer", "return=representation");
    let made = made.json(&json!({ "id": 9, "name": "New" })).send();
    assert_eq!(made.expect(201).json(), json!([{ "id": 9, "projects": [] }]));
    assert_eq!(key_indexes(&tenant), json!([["projects", "client_id"], ["tasks", "project_id"]]));
    assert_eq!(tenant.rows("SELECT count(*) FROM clients WHERE id = 9", json!([])), json!([[1]]));
}

#[test]
fn one_of_a_large_table_is_left_to_its_owner() {
    let server = server("index");
    let tenant = server.tenant("indexed");
    tenant.script(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY); CREATE TABLE children (parent INTEGER REFERENCES parents(id)); \
         INSERT INTO parents VALUES (1); \
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) INSERT INTO children SELECT 1 FROM n",
    );
    // Once for all, also of those who ask at the same time.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = tenant.get("/rest/v1/parents?select=id,children(count())").refused(400, "PGRST127");
                let wanted = "CREATE INDEX \"children_parent\" ON \"children\" (\"parent\")";
                assert!(error["hint"].as_str().unwrap().starts_with(wanted), "{error}");
            });
        }
    });
    assert_eq!(key_indexes(&tenant), json!([]));
    assert_eq!(server.log().matches("an index for a foreign key could not be made").count(), 1);
    tenant.script("DELETE FROM children WHERE rowid > 5; CREATE INDEX mine ON children (parent)");
    assert_eq!(tenant.get("/rest/v1/parents?select=id,children(count())").expect(200).json()[0]["children"][0]["count"], 5);
}

/// What Tenantry made is in nobody's way: neither of a change of the schema nor of a migration, and it is no drift.
#[test]
fn it_bars_no_change_of_the_schema() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, sql: &str| std::fs::write(folder.path().join(name), sql).unwrap();
    write(
        "0001_app.up.sql",
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id), c INTEGER REFERENCES a(id))",
    );
    let mut server = Server::with(|with| {
        with.set("tenants.migrations_dir", folder.path().display()).set("rest.unindexed_embeds", "index");
    });
    let tenant = server.tenant("indexed");
    tenant.get("/rest/v1/a?select=id,b!a(id)").expect(200);
    tenant.get("/rest/v1/a?select=id,b!c(id)").expect(200);
    assert_eq!(key_indexes(&tenant), json!([["b", "a"], ["b", "c"]]));
    let validated = server.cli(["migrate", "validate", &tenant.slug]);
    assert!(validated.status.success(), "{}", crate::support::said(&validated));
    // A tenant's own change of its schema, in one script with what takes it back.
    tenant.post("/v1/sql", json!({ "script": "CREATE INDEX _tenantry_fk_mine ON b (id)" })).refused(403, "sql_denied");
    let ours = tenant.rows("SELECT name FROM sqlite_schema WHERE name LIKE '\\_tenantry\\_fk\\_b\\_c\\_%' ESCAPE '\\'", json!([]));
    tenant.script(&format!("CREATE TABLE d (id); DROP TABLE d; DROP INDEX {}", ours[0][0].as_str().unwrap()));
    assert_eq!(key_indexes(&tenant), json!([["b", "a"]]));
    write("0002_less.up.sql", "ALTER TABLE b DROP COLUMN a");
    server.restart();
    let tenant = server.known(&tenant);
    assert_eq!(tenant.rows("SELECT name FROM pragma_table_info('b')", json!([])), json!([["id"], ["c"]]));
    tenant.get("/rest/v1/a?select=id,b(id)").expect(200);
    assert_eq!(key_indexes(&tenant), json!([["b", "c"]]));
}

#[test]
fn a_tenant_alters_what_is_indexed_and_names_used_before_are_free() {
    let server = server("index");
    let tenant = server.tenant("indexed");
    tenant.script(
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id), c INTEGER REFERENCES a(id)); \
         CREATE TABLE b_a (id INTEGER PRIMARY KEY, c INTEGER REFERENCES a(id)); \
         CREATE TABLE a_b (a_c INTEGER REFERENCES a(id)); CREATE TABLE a_b_a (c INTEGER REFERENCES a(id));",
    );
    for embedded in ["b!a(id)", "b!c(id)", "a_b(a_c)", "a_b_a(c)"] {
        tenant.get(&format!("/rest/v1/a?select=id,{embedded}")).expect(200);
    }
    // Two of the same names, joined.
    assert_eq!(key_indexes(&tenant), json!([["a_b", "a_c"], ["a_b_a", "c"], ["b", "a"], ["b", "c"]]));
    tenant.script("ALTER TABLE b DROP COLUMN c");
    assert_eq!(key_indexes(&tenant), json!([["a_b", "a_c"], ["a_b_a", "c"]]));
    tenant.get("/rest/v1/a?select=id,b(id)").expect(200);
    tenant.post("/v1/sql", json!({ "statements": [{ "sql": "ALTER TABLE \"B\" RENAME TO was" }] })).expect(200);
    tenant.script("CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id))");
    tenant.get("/rest/v1/a?select=id,b(id),was(id)").expect(200);
    assert_eq!(key_indexes(&tenant), json!([["a_b", "a_c"], ["a_b_a", "c"], ["b", "a"], ["was", "a"]]));
}

#[test]
fn what_is_explained_makes_none() {
    let server = server("index");
    let tenant = server.tenant("indexed");
    tenant.script(FIXTURE);
    let told = tenant.call("GET", "/rest/v1/projects?select=id,tasks(id)").header("Accept", "application/vnd.pgrst.plan").send();
    assert!(told.expect(200).text().contains("SCAN"));
    assert_eq!(key_indexes(&tenant), json!([]));
}

/// What SQLite cannot find rows in is not read again for each row.
#[test]
fn a_view_that_is_made_whole_is_made_once_for_a_request() {
    let mut server = server("index");
    let tenant = server.tenant("views");
    tenant.script(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY); \
         CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents(id)); CREATE INDEX by_parent ON children (parent); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO parents SELECT i FROM n; \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO children SELECT i, 1 + i % 2000 FROM n; \
         CREATE VIEW plain AS SELECT id, parent FROM children WHERE id > 0; \
         CREATE VIEW grouped AS SELECT parent, count(*) AS n FROM children GROUP BY parent; \
         CREATE VIEW limited AS SELECT id, parent FROM children LIMIT 30000; \
         CREATE VIEW single AS SELECT DISTINCT parent FROM children; \
         CREATE VIEW numbered AS SELECT id, parent, row_number() OVER (ORDER BY id) AS n FROM children;",
    );
    let path = |view: &str| format!("/rest/v1/parents?select=id,{view}(parent)&limit=50");
    let whole = ["grouped", "limited", "single", "numbered"];
    let plain = statement(&tenant, &path("plain"));
    let statements = whole.map(|view| (view, statement(&tenant, &path(view))));
    let file = server.file(&tenant.id, "database");
    server.stop();
    let conn = opened(&file);
    assert!(steps(&conn, &plain, 50) < 20_000);
    for (view, sql) in statements {
        let (few, many) = (steps(&conn, &sql, 50), steps(&conn, &sql, 1_000));
        println!("{view}: {few} steps for 50 rows, {many} for 1000");
        assert!(few > 20_000 && many < 2 * few + 1_000_000, "{view}: {few} {many}");
    }
}

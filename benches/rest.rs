//! What a request of the dialect is made of: reading it, writing its statement, and running it, beside the same rows by
//! `/v1/sql`'s engine. `benches/README.md` says how to read it.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use tenantry::auth::Claims;
use tenantry::auth::scope::Scopes;
use tenantry::config::{self, Level};
use tenantry::rest::{self, Call, Caller, Dialect, Functions, Indexes, Policies, Request, Schemas, Setting, Stencils, Task, Verb};
use tenantry::sql;
use tenantry::sqlite::{Database, Engine, Gate, Migrations, Options, Party, Trial};
use uuid::Uuid;

const SCHEMA: &str = "CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT NOT NULL, done BOOLEAN NOT NULL DEFAULT false);
     CREATE TABLE tasks (id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), name TEXT NOT NULL, hours INTEGER);
     CREATE INDEX tasks_project ON tasks(project_id);
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
     INSERT INTO projects SELECT i, 'project ' || i, i % 2 FROM n;
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
     INSERT INTO tasks SELECT i, 1 + i % 1000, 'task ' || i, i % 8 FROM n;";

const QUERIES: [(&str, &str, &str); 3] = [
    ("point read", "select=id,name,done&id=eq.77", "SELECT id, name, done FROM projects WHERE id = 77"),
    (
        "page of 20",
        "select=id,name,done&id=gt.77&done=is.true&order=id&limit=20",
        "SELECT id, name, done FROM projects WHERE id > 77 AND done ORDER BY id LIMIT 20",
    ),
    (
        "20 by 5 embedded",
        "select=id,name,tasks(id,name,hours)&limit=20",
        "SELECT id, name, (SELECT json_group_array(json_object('id', id, 'name', name, 'hours', hours)) FROM tasks WHERE project_id = p.id) \
         FROM projects p ORDER BY id LIMIT 20",
    ),
];

/// Name, method, query string, body; the answer is empty.
const WRITES: [(&str, Verb, &str, &str); 2] =
    [("insert", Verb::Post, "", r#"{"name":"new","done":true}"#), ("update by key", Verb::Patch, "id=eq.77", r#"{"name":"other"}"#)];

const FUNCTION: &str = "CREATE FUNCTION of_project(project bigint) RETURNS SETOF tasks STABLE AS $$ \
     SELECT * FROM tasks WHERE project_id = :project $$;";

fn request(query: &str) -> Request<'_> {
    of(Verb::Get, "projects", query, "")
}

fn of<'r>(verb: Verb, table: &'r str, query: &'r str, body: &'r str) -> Request<'r> {
    let (accept, profile, range, content_type) = (None, None, None, None);
    Request { verb, table, query, accept, profile, prefer: Vec::new(), range, content_type, body: body.as_bytes() }
}

/// Reads, writes and calls of one file.
fn rows(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engine = Engine::start(&config::Sqlite::default(), &config::Executor::default());
    let folder = tempfile::tempdir().expect("a folder");
    let migrations = Migrations::from_files("bench", [("0001_bench.up.sql", SCHEMA)]).expect("a migration");
    let options = Options {
        level: Level::Full,
        max_bytes: 0,
        party: Party::SYSTEM,
        migrations: migrations.clone().into(),
        keep_before: None,
        sandboxed: true,
        create: true,
        held: Arc::default(),
        answers: tenantry::sqlite::Allowance::unbounded(),
    };
    std::fs::write(folder.path().join("of_project.sql"), FUNCTION).expect("a function's file");
    let trial = Trial::on(&[Arc::new(migrations)]).expect("a trial");
    let functions = Functions::load(folder.path(), &trial).expect("a function");
    let file = Database::new(&engine, &Gate::new(), folder.path().join("rest.sqlite"), options);
    let dialect = Arc::new(Dialect {
        schemas: Schemas::new(Arc::new(Policies::default())),
        functions,
        stencils: Stencils::default(),
        indexes: Indexes::new(config::UnindexedEmbeds::Allow),
    });
    let claims = Arc::new(Claims {
        tenant: Uuid::nil(),
        sub: "bench".to_owned(),
        role: "service".to_owned(),
        scopes: Scopes::ALL,
        jti: None,
        exp: 0,
        payload: "{}".into(),
    });
    let plan = Arc::new(config::Plan::default());
    let setting = || Setting::new(Caller { claims: claims.clone() }, plan.clone(), dialect.clone());
    let run = |query: &str| {
        let task = Task::read(&request(query)).expect("a request");
        runtime.block_on(rest::run(&file, setting(), task)).expect("rows").body
    };
    let run_sql = |text: &str| {
        let body = serde_json::json!({ "statements": [{ "sql": text }] }).to_string();
        let request: sql::Request = serde_json::from_str(&body).expect("a request");
        let caller = sql::Caller { subject: "bench".to_owned(), scopes: Scopes::ALL };
        runtime.block_on(sql::run(&file, &plan, caller, request, None)).expect("rows").body
    };
    for (name, query, text) in QUERIES {
        let mut group = c.benchmark_group(name);
        group.bench_function("reading the request", |b| b.iter(|| black_box(Task::read(&request(query)).expect("a request"))));
        group.bench_function("the whole, its statement known", |b| b.iter(|| run(query)));
        group.bench_function("the whole, its statement written anew", |b| {
            b.iter(|| {
                dialect.stencils.forget_all();
                run(query)
            })
        });
        group.bench_function("the same rows by SQL", |b| b.iter(|| run_sql(text)));
        group.finish();
    }
    let mut group = c.benchmark_group("writes and calls");
    for (name, verb, query, body) in WRITES {
        group.bench_function(name, |b| {
            b.iter(|| {
                let task = Task::read(&of(verb, "projects", query, body)).expect("a request");
                runtime.block_on(rest::run(&file, setting(), task)).expect("a write")
            })
        });
    }
    group.bench_function("a function of 5 rows", |b| {
        b.iter(|| {
            let caller = Caller { claims: claims.clone() };
            let call = Call::read(&of(Verb::Get, "of_project", "project=77", ""), &dialect.functions, &caller).expect("a call");
            runtime.block_on(rest::call(&file, setting(), call)).expect("rows").body
        })
    });
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);

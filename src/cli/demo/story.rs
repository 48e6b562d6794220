//! The account itself, top to bottom as it is printed: provision, schema and data, a front end's day, who sees
//! what, the files on disk, and what to try next.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::break_in;
use super::caller::{Caller, Visitor, same, wrong};
use super::people;
use crate::auth::scope::{Scope, Scopes};
use crate::cli::client::{Call, Client, query};
use crate::cli::print::{line, table};
use crate::cli::{tenant, token};
use crate::error::Result;
use crate::tenant::TenantId;
use crate::tenant::layout::{Layout, Role};

const SCHEMA: &str = include_str!("../../../deploy/example/0001_board.up.sql");

/// The token that the account ends with lives this long, in seconds.
const TOKEN_S: u64 = 3_600;

/// What a front end's token may do: everything but change the schema.
const USER_SCOPES: Scopes =
    Scopes::of(Scope::SqlRead).with(Scope::SqlWrite).with(Scope::Cache).with(Scope::QueueProduce).with(Scope::QueueConsume);

/// What the product's own token may do: bring the schema up to date.
const PRODUCT_SCOPES: Scopes = Scopes::of(Scope::SqlRead).with(Scope::SqlWrite).with(Scope::SqlSchema);

/// One customer of the example product. The slugs are the demo's own, so that it never meets a tenant of yours.
struct Company {
    slug: &'static str,
    name: &'static str,
    data: &'static str,
    /// The person whose token the front end has.
    user: &'static str,
    /// What the data says, in the order of ids: what this tenant must see, and nobody else may.
    projects: &'static [&'static str],
}

const COMPANIES: [Company; 3] = [
    Company {
        slug: "demo-acme",
        name: "Acme Construction",
        data: include_str!("acme.sql"),
        user: "ada@acme.example",
        projects: &["Harbour Bridge", "Northern Tunnel", "Depot Roof"],
    },
    Company {
        slug: "demo-globex",
        name: "Globex Energy",
        data: include_str!("globex.sql"),
        user: "freya@globex.example",
        projects: &["Wind Park Skagen", "Battery Pilot Malmö"],
    },
    Company {
        slug: "demo-initech",
        name: "Initech Software",
        data: include_str!("initech.sql"),
        user: "hana@initech.example",
        projects: &["Report Generator 4", "Office Move", "Printer Retirement"],
    },
];

/// A company that has its tenant.
pub(super) struct Guest {
    company: &'static Company,
    pub id: TenantId,
    /// The person in front of the front end.
    pub user: Visitor,
}

/// `program` is how this program can be called again; `with_rules`, whether the example's policies hold.
pub fn tell(client: &Client, data_dir: &Path, program: &str, with_rules: bool) -> Result<()> {
    let layout = Layout::of(data_dir).map_err(|e| wrong(&format!("{} cannot be seen: {e}", data_dir.display())))?;
    let start = Instant::now();
    let caller = Caller::new(client);
    line("Tenantry demo: one server, three companies, nothing shared.\n");
    line(&format!("   server  {}\n   data    {}", client.base(), data_dir.display()));

    let guests = provision(&caller)?;
    schema_and_data(&caller, &guests)?;
    let jobs = front_end(&caller, &guests)?;
    who_sees_what(&caller, &guests)?;
    match guests.first() {
        Some(acme) if with_rules => people::at_work(&caller, acme)?,
        _ => line("\n5. People and policies: left out, as tenants.migrations_dir names an application with rules of its own"),
    }
    break_in::attempts(&caller, &guests, &jobs, &layout)?;
    on_disk(&guests, &layout)?;

    line(&format!("\nAll {} calls were answered as they should be, in {} ms.", caller.checked(), start.elapsed().as_millis()));
    next_steps(client, &guests, data_dir, program);
    Ok(())
}

fn provision(caller: &Caller<'_>) -> Result<Vec<Guest>> {
    line("\n1. The operator provisions a tenant for each company (POST /admin/v1/tenants)\n");
    let operator = caller.operator();
    let mut guests = Vec::new();
    let mut rows = Vec::new();
    for company in &COMPANIES {
        let start = Instant::now();
        let found = operator.get(&format!("/admin/v1/tenants{}", query(&[("slug", Some(company.slug))])))?.json();
        let known = tenant::items(&found).iter().find(|t| t["slug"] == company.slug && t["state"] != "deleted");
        let (id, how) = match known {
            Some(known) => {
                let id = TenantId::parse(&text(known, "id")?)?;
                if known["state"] == "suspended" {
                    operator.patch(&format!("/admin/v1/tenants/{id}"), &json!({ "state": "active" }))?;
                }
                (id, "there from an earlier run".to_owned())
            }
            None => {
                let made = operator.post("/admin/v1/tenants", &json!({ "slug": company.slug, "name": company.name }))?.json();
                text(&made, "token")?;
                (TenantId::parse(&text(&made["tenant"], "id")?)?, format!("three files in {} ms", start.elapsed().as_millis()))
            }
        };
        // Its front end sends SQL of its own, past all policies: that is for the tenant's own back end.
        let token = token::mint(operator, &id.to_string(), company.user, "service", USER_SCOPES, TOKEN_S)?;
        rows.push(vec![format!("   {}", company.slug), id.to_string(), how]);
        guests.push(Guest { company, id, user: Visitor { name: company.user.to_owned(), token } });
    }
    line(&table(&["   TENANT", "ID", "HOW"], &rows));
    Ok(guests)
}

fn schema_and_data(caller: &Caller<'_>, guests: &[Guest]) -> Result<()> {
    line("\n2. The product applies its schema, and each company its data (POST /v1/sql, a script is one transaction)\n");
    let mut rows = Vec::new();
    for guest in guests {
        let token = token::mint(caller.operator(), &guest.id.to_string(), "demo", "service", PRODUCT_SCOPES, 60)?;
        let product = Visitor { name: "the product".to_owned(), token };
        let there = caller.column(&product, "SELECT name FROM sqlite_schema WHERE name = 'tasks'")?;
        for script in [SCHEMA, guest.company.data].into_iter().skip(there.len()) {
            caller.json(&product, "POST", "/v1/sql", &json!({ "script": script }), 200)?;
        }
        let counts = "SELECT (SELECT count(*) FROM members), (SELECT count(*) FROM projects), (SELECT count(*) FROM tasks)";
        let counted = caller.sql(&product, counts, json!([]))?;
        let count = |i: usize| counted["rows"][0][i].to_string();
        rows.push(vec![format!("   {}", guest.company.slug), count(0), count(1), count(2)]);
    }
    line(&table(&["   TENANT", "MEMBERS", "PROJECTS", "TASKS"], &rows));
    Ok(())
}

/// What each front end does; gives back each tenant's finished job, for others to reach for.
fn front_end(caller: &Caller<'_>, guests: &[Guest]) -> Result<Vec<Job>> {
    line("\n3. Their front ends work: three files each, so three writers that never wait for each other\n");
    let mut jobs = Vec::new();
    for (index, guest) in guests.iter().enumerate() {
        database(caller, guest)?;
        cache(caller, guest)?;
        jobs.push(queue(caller, guest)?);
        if index == 0 {
            line("   database  a task was inserted with parameters, read back and closed");
            line("   cache     the dashboard was put for an hour, and came back byte for byte");
            line("   queue     a mail was enqueued, claimed, acknowledged; another lease's acknowledgement was refused");
        }
    }
    let others: Vec<&str> = guests.iter().skip(1).map(|guest| guest.company.slug).collect();
    line(&format!("   … and the same for {}.", others.join(" and ")));
    Ok(jobs)
}

fn database(caller: &Caller<'_>, guest: &Guest) -> Result<()> {
    let open = "SELECT p.name, count(t.id) FROM projects p LEFT JOIN tasks t ON t.project_id = p.id AND t.state <> ?1 \
                WHERE p.status = ?2 GROUP BY p.id ORDER BY p.id";
    let board = caller.sql(&guest.user, open, json!(["done", "active"]))?;
    same("the number of columns of the board", &board["columns"].as_array().map(Vec::len), &Some(2))?;

    let title = "Call O'Brien; then \"DROP TABLE tasks\" (it is only a title)";
    let insert = "INSERT INTO tasks (project_id, assignee_id, title) VALUES (?1, ?2, ?3)";
    let inserted = caller.sql(&guest.user, insert, json!([1, 1, title]))?;
    same("rows_affected of the insert", &inserted["rows_affected"], &json!(1))?;
    let id = inserted["last_insert_rowid"].clone();
    let read = caller.sql(&guest.user, "SELECT title, state FROM tasks WHERE id = ?1", json!([id]))?;
    same("the inserted row", &read["rows"], &json!([[title, "open"]]))?;
    let closed = caller.sql(&guest.user, "UPDATE tasks SET state = 'done' WHERE id = ?1", json!([id]))?;
    same("rows_affected of the update", &closed["rows_affected"], &json!(1))
}

/// Every tenant uses the same key, with content of its own.
pub(super) const CACHE_PATH: &str = "/v1/cache/dashboard";

fn dashboard(guest: &Guest) -> String {
    format!("<h1>{}</h1><p>{}</p>", guest.company.name, guest.company.projects.join(", "))
}

fn cache(caller: &Caller<'_>, guest: &Guest) -> Result<()> {
    let page = dashboard(guest);
    let put = Call {
        method: "PUT",
        path: &format!("{CACHE_PATH}?ttl=3600"),
        bearer: Some(&guest.user.token),
        headers: &[("content-type", "text/html; charset=utf-8")],
        body: page.clone().into_bytes(),
    };
    caller.call(&guest.user.name, &put, 204)?;
    let got = caller.call(&guest.user.name, &read_dashboard(guest), 200)?;
    same("the cached page", &got.text(), &page)?;
    same("its content type", &got.content_type.as_str(), &"text/html; charset=utf-8")
}

fn read_dashboard(guest: &Guest) -> Call<'_> {
    Call { method: "GET", path: CACHE_PATH, bearer: Some(&guest.user.token), headers: &[], body: Vec::new() }
}

/// A job that was claimed once; its lease is used up.
pub(super) struct Job {
    pub id: String,
    pub lease_token: String,
}

fn queue(caller: &Caller<'_>, guest: &Guest) -> Result<Job> {
    let payload = json!({ "to": guest.company.user, "template": "task-closed" });
    let enqueued = caller.json(&guest.user, "POST", "/v1/queues/mail/jobs", &json!({ "payload": payload }), 201)?;
    let id = text(&enqueued, "id")?;
    // An earlier run that was interrupted may have left a job before ours: take what is there, find ours.
    let claimed = caller.json(&guest.user, "POST", "/v1/queues/mail/claim", &json!({ "max": 100, "lease_s": 30 }), 200)?;
    let mut ours = None;
    for job in claimed["jobs"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let held = Job { id: text(job, "id")?, lease_token: text(job, "lease_token")? };
        caller.json(&guest.user, "POST", &format!("/v1/jobs/{}/ack", held.id), &json!({ "lease_token": held.lease_token }), 200)?;
        if held.id == id {
            same("the claimed payload", &job["payload"], &payload)?;
            ours = Some(held);
        }
    }
    let ours = ours.ok_or_else(|| wrong(&format!("the job {id} was enqueued but not claimed: {claimed}")))?;
    let stale = json!({ "lease_token": "a lease that ended" }).to_string().into_bytes();
    let path = format!("/v1/jobs/{}/ack", ours.id);
    let call = Call { method: "POST", path: &path, bearer: Some(&guest.user.token), headers: &[], body: stale };
    caller.refused(&guest.user.name, &call, 409, "lease_lost")?;
    Ok(ours)
}

fn who_sees_what(caller: &Caller<'_>, guests: &[Guest]) -> Result<()> {
    line("\n4. One query, one cache key, three tokens: each sees its own and nothing else\n");
    let sql = "SELECT name FROM projects ORDER BY id";
    let mut rows = Vec::new();
    for guest in guests {
        let seen = caller.column(&guest.user, sql)?;
        let own: Vec<String> = guest.company.projects.iter().map(|name| (*name).to_owned()).collect();
        same(&format!("what {} sees", guest.company.slug), &seen, &own)?;
        let page = caller.call(&guest.user.name, &read_dashboard(guest), 200)?;
        same("the cached page", &page.text(), &dashboard(guest))?;
        rows.push(vec![format!("   {}", guest.user.name), seen.join(", ")]);
    }
    line(&table(&["   WHOSE TOKEN", "SELECT name FROM projects"], &rows));
    Ok(())
}

fn on_disk(guests: &[Guest], layout: &Layout) -> Result<()> {
    line("\n7. On disk a tenant is three plain SQLite files\n");
    let mut rows = Vec::new();
    for guest in guests {
        let mut row = vec![format!("   {}", layout.tenant(guest.id).display())];
        for role in Role::ALL {
            let file = layout.file(guest.id, role);
            let bytes = std::fs::metadata(&file).map_err(|e| wrong(&format!("{} cannot be seen: {e}", file.display())))?.len();
            row.push(format!("{} KiB", bytes / 1024));
        }
        rows.push(row);
    }
    line(&table(&["   FOLDER", "DATABASE", "CACHE", "QUEUE"], &rows));
    Ok(())
}

fn next_steps(client: &Client, guests: &[Guest], data_dir: &Path, program: &str) {
    let Some(guest) = guests.first() else { return };
    let (url, dir) = (client.base(), data_dir.display());
    line(&format!("\nTry it yourself, in another terminal ({}'s token is good for an hour):\n", guest.company.slug));
    line(&format!("   TOKEN={}", guest.user.token));
    line(&format!("   curl -s {url}/v1/sql -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\"));
    line(r#"     -d '{"statements":[{"sql":"SELECT id, title, state FROM tasks WHERE state <> ?1","params":["done"]}]}'"#);
    line(&format!("   curl -s '{url}/rest/v1/tasks?select=title,projects(name)&state=eq.open' -H \"Authorization: Bearer $TOKEN\""));
    line(&format!("   curl -s {url}{CACHE_PATH} -H \"Authorization: Bearer $TOKEN\""));
    line(&format!("   {program} tenant list --url {url} --data-dir {dir}"));
    line(&format!("   {program} sql --tenant {} 'SELECT * FROM members' --url {url} --data-dir {dir}", guest.company.slug));
    line(&format!("   {program} audit verify --url {url} --data-dir {dir}"));
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| wrong(&format!("an answer has no `{field}`: {value}")))
}

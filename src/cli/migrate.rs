//! `tenantry migrate`: which migrations there are, which of them a tenant has, and bringing tenants up to date one
//! after the other. One tenant's failure is reported and does not hold up the rest.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, query};
use super::print;
use super::tenant::{Live, items, resolve};
use crate::error::{Code, Error, Result};

/// Tenants asked for at once.
const PAGE: &str = "200";

#[derive(Subcommand)]
pub enum Migrate {
    /// Show the migrations, and which of them a tenant has
    Status {
        #[arg(value_name = "ID|SLUG")]
        tenant: Option<String>,
    },
    /// Apply what is missing to the named tenants, or to all that are active
    Up {
        #[arg(value_name = "ID|SLUG")]
        tenants: Vec<String>,
    },
}

impl Migrate {
    pub fn run(&self, client: &Client, json: bool) -> Result<()> {
        match self {
            Migrate::Status { tenant } => {
                let all = client.get("/admin/v1/migrations")?;
                let Some(tenant) = tenant else {
                    match json {
                        true => print::body(&all),
                        false => print::line(&status(&all.json(), None)),
                    }
                    return Ok(());
                };
                let one = client.get(&format!("/admin/v1/tenants/{}", resolve(client, tenant, Live::Yes)?))?;
                match json {
                    true => print::body(&one),
                    false => print::line(&status(&all.json(), Some(&one.json()["tenant"]))),
                }
                Ok(())
            }
            Migrate::Up { tenants } if tenants.is_empty() => all_up(client, json),
            Migrate::Up { tenants } => {
                let mut run = Run::new(json);
                for tenant in tenants {
                    run.one(client, resolve(client, tenant, Live::Yes), tenant);
                }
                run.finish()
            }
        }
    }
}

fn all_up(client: &Client, json: bool) -> Result<()> {
    let mut run = Run::new(json);
    let mut cursor: Option<String> = None;
    loop {
        let page = query(&[("state", Some("active")), ("limit", Some(PAGE)), ("after", cursor.as_deref())]);
        let body = client.get(&format!("/admin/v1/tenants{page}"))?.json();
        for tenant in items(&body) {
            if let (Some(id), Some(slug)) = (tenant["id"].as_str(), tenant["slug"].as_str()) {
                run.one(client, Ok(id.to_owned()), slug);
            }
        }
        let next = body["next_cursor"].as_str().map(str::to_owned);
        if next.is_none() || next == cursor {
            return run.finish();
        }
        cursor = next;
    }
}

/// One pass over tenants: prints each as it is done and counts.
struct Run {
    json: bool,
    done: u64,
    failed: u64,
}

impl Run {
    fn new(json: bool) -> Run {
        Run { json, done: 0, failed: 0 }
    }

    fn one(&mut self, client: &Client, id: Result<String>, name: &str) {
        match id.and_then(|id| client.post(&format!("/admin/v1/tenants/{id}/migrate"), &json!({}))) {
            Ok(answer) => {
                self.done += 1;
                let body = answer.json();
                match self.json {
                    true => print::body(&answer),
                    false => print::line(&format!("{name}  {}", versions(&body["tenant"]))),
                }
            }
            Err(error) => {
                self.failed += 1;
                print::note(&format!("{name}: {}", error.message()));
            }
        }
    }

    fn finish(self) -> Result<()> {
        if !self.json {
            print::note(&format!("{} up to date, {} failed", self.done, self.failed));
        }
        match self.failed {
            0 => Ok(()),
            failed => Err(Error::new(Code::TenantUnavailable, format!("{failed} tenants could not be migrated"))
                .hint("Each is named above with its reason; the others are up to date.")),
        }
    }
}

/// `database 2, cache 1, queue 1`
fn versions(tenant: &Value) -> String {
    let Some(sets) = tenant["schema_versions"].as_object() else { return "up to date".to_owned() };
    sets.iter().map(|(set, version)| format!("{set} {}", print::cell(version))).collect::<Vec<_>>().join(", ")
}

/// Every migration; with a tenant, those of its own files and whether it has them.
fn status(body: &Value, tenant: Option<&Value>) -> String {
    let mut rows = Vec::new();
    for set in body["sets"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let (name, file) = (print::cell(&set["set"]), print::cell(&set["file"]));
        if tenant.is_some_and(|tenant| tenant["files"].get(&file).is_none()) {
            continue;
        }
        for step in set["migrations"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let checksum: String = print::cell(&step["checksum"]).chars().take(12).collect();
            let mut row = vec![file.clone(), name.clone(), print::cell(&step["version"]), print::cell(&step["name"]), checksum];
            if let Some(tenant) = tenant {
                let has = tenant["schema_versions"][&name].as_u64();
                row.push(if has >= step["version"].as_u64() { "applied" } else { "missing" }.to_owned());
            }
            rows.push(row);
        }
    }
    let headings = ["FILE", "SET", "VERSION", "NAME", "CHECKSUM", "STATE"];
    print::table(&headings[..if tenant.is_some() { 6 } else { 5 }], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_the_migrations_up_to_its_version_of_each_set() {
        let step = |version: u32| json!({ "version": version, "name": "n", "checksum": "0123456789abcdef" });
        let all = json!({ "sets": [
            { "set": "tenant", "file": "database", "migrations": [step(1), step(2)] },
            { "set": "application", "file": "database", "migrations": [step(1)] },
            { "set": "app", "file": "system/app.db", "migrations": [step(1)] },
        ]});
        let tenant = json!({ "files": { "database": {} }, "schema_versions": { "tenant": 1 } });
        let page = status(&all, Some(&tenant));
        let states: Vec<&str> = page.lines().skip(1).map(|row| row.rsplit(' ').next().unwrap()).collect();
        assert_eq!(states, ["applied", "missing", "missing"]);
        assert_eq!(status(&all, None).lines().count(), 5);
    }
}

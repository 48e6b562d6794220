//! `tenantry migrate`: which migrations there are and where they were applied, and bringing tenants up to date
//! one after the other. One tenant's failure is reported and does not hold up the rest.

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
    /// Show the migrations, and how many tenants each was applied to
    Status,
    /// Apply what is missing to the named tenants, or to all that are active
    Up {
        #[arg(value_name = "ID|SLUG")]
        tenants: Vec<String>,
    },
}

impl Migrate {
    pub fn run(&self, client: &Client, json: bool) -> Result<()> {
        match self {
            Migrate::Status => {
                let answer = client.get("/admin/v1/migrations")?;
                if json {
                    print::body(&answer);
                } else {
                    print::line(&status(&answer.json()));
                }
                Ok(())
            }
            Migrate::Up { tenants } if tenants.is_empty() => all_up(client, json),
            Migrate::Up { tenants } => {
                let mut run = Run::new(json);
                for tenant in tenants {
                    let id = resolve(client, tenant, Live::Yes)?;
                    run.one(client, &id, tenant);
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
                run.one(client, id, slug);
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

    fn one(&mut self, client: &Client, id: &str, name: &str) {
        match client.post(&format!("/admin/v1/tenants/{id}/migrate"), &json!({})) {
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
                print::note(&format!("{name}: {error}"));
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

/// `database 2, cache 1, queue 1`, from whichever form the server gives them in.
fn versions(tenant: &Value) -> String {
    let Some(files) = tenant["schema_versions"].as_object() else { return "up to date".to_owned() };
    files.iter().map(|(file, version)| format!("{file} {}", print::cell(version))).collect::<Vec<_>>().join(", ")
}

fn status(body: &Value) -> String {
    let Some(sets) = body["sets"].as_array() else { return print::document(body) };
    let mut rows = Vec::new();
    for set in sets {
        for step in set["migrations"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let name = print::cell(&set["set"]);
            let version = print::cell(&step["version"]);
            let applied = &body["tenants"][name.as_str()][version.as_str()];
            let checksum: String = print::cell(&step["checksum"]).chars().take(12).collect();
            rows.push(vec![name, print::cell(&set["file"]), version, print::cell(&step["name"]), checksum, print::cell(applied)]);
        }
    }
    print::table(&["SET", "FILE", "VERSION", "NAME", "CHECKSUM", "TENANTS"], &rows)
}

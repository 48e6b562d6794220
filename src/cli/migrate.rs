//! `tenantry migrate`: which migrations there are, which of them tenants have, and the runs that visit the fleet. A run
//! is the server's: this command begins it and shows how it goes, and ending this command does not end it.

mod follow;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::print;
use super::tenant::{Live, resolve};
use crate::error::{Error, Result};
use follow::{Output, follow, latest, show_run};

const RUNS: &str = "/admin/v1/migrations/runs";

#[derive(Subcommand)]
pub enum Migrate {
    /// Show the migrations and the last run; or which migrations a tenant has
    Status {
        #[arg(value_name = "ID|SLUG")]
        tenant: Option<String>,
    },
    /// Rehearse on copies of some tenants' files what `up` would do
    Plan {
        #[arg(value_name = "ID|SLUG")]
        tenants: Vec<String>,
        /// Without names: so many tenants, spread over all
        #[arg(long, value_name = "N", default_value_t = 5)]
        sample: u32,
        /// The application's migration to go to [default: the newest]
        #[arg(long, value_name = "VERSION")]
        to: Option<u32>,
        #[command(flatten)]
        how: How,
    },
    /// Bring the fleet up to date, canaries first; or only the named tenants
    Up {
        #[arg(value_name = "ID|SLUG")]
        tenants: Vec<String>,
        /// The application's migration to go to [default: the newest]
        #[arg(long, value_name = "VERSION")]
        to: Option<u32>,
        #[command(flatten)]
        waves: Waves,
        #[command(flatten)]
        how: How,
    },
    /// Take migrations of the application back, with their down files; from the fleet or only the named tenants
    Down {
        #[arg(value_name = "ID|SLUG")]
        tenants: Vec<String>,
        /// The application's migration to go back to; 0 takes back all
        #[arg(long, value_name = "VERSION")]
        to: u32,
        /// Really: what the migrations added goes
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        waves: Waves,
        #[command(flatten)]
        how: How,
    },
    /// Compare tenants' records and schemas with the migrations: changed, missing, unknown, drifted
    Validate {
        #[arg(value_name = "ID|SLUG")]
        tenants: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Put the named tenants' databases back as they were before the last destructive migration
    Rollback {
        #[arg(value_name = "ID|SLUG", required = true)]
        tenants: Vec<String>,
        /// Really: what they wrote since then is lost
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        how: How,
    },
    /// Visit once more whom a run did not reach or failed on
    Retry {
        /// [default: the last run]
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Do not wait for the run's end
        #[arg(long)]
        detach: bool,
    },
    /// Have the run that is under way take no further tenants
    Stop,
    /// Follow the run that is under way, or show the last
    Watch,
}

#[derive(Args)]
pub struct Waves {
    /// Tenants that are tried first, spread over all [default: 3]
    #[arg(long, value_name = "N", conflicts_with = "tenants")]
    canaries: Option<u32>,
    /// A tenant that is tried first (may be repeated)
    #[arg(long, value_name = "ID|SLUG", conflicts_with = "tenants")]
    canary: Vec<String>,
    /// Percentages of the fleet at which waves end [default: 1,10]
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', conflicts_with = "tenants")]
    waves: Option<Vec<u8>>,
}

#[derive(Args)]
pub struct How {
    /// Tenants at once [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<u32>,
    /// The share of a wave that may fail, 0 to 1; past it the run halts [default: 0.05 for up and down, else 1]
    #[arg(long, value_name = "RATE")]
    max_failure_rate: Option<f64>,
    /// The longest one file may take, in seconds [default: 300]
    #[arg(long, value_name = "SECONDS")]
    tenant_timeout_s: Option<u64>,
    /// Do not wait for the run's end
    #[arg(long)]
    detach: bool,
}

impl Migrate {
    pub fn run(&self, client: &Client, json: bool) -> Result<()> {
        let out = Output { client, json };
        match self {
            Migrate::Status { tenant: None } => out.status(),
            Migrate::Status { tenant: Some(tenant) } => out.status_of(tenant),
            Migrate::Plan { tenants, sample, to, how } => {
                let sample = tenants.is_empty().then_some(*sample);
                out.begin("plan", tenants, json!({ "to": to, "sample": sample }), None, how)
            }
            Migrate::Up { tenants, to, waves, how } => out.begin("up", tenants, json!({ "to": to }), Some(waves), how),
            Migrate::Down { tenants, to, yes: _, waves, how } => out.begin("down", tenants, json!({ "to": to }), Some(waves), how),
            Migrate::Validate { tenants, how } => out.begin("validate", tenants, json!({}), None, how),
            Migrate::Rollback { tenants, yes: _, how } => out.begin("rollback", tenants, json!({}), None, how),
            Migrate::Retry { run, detach } => {
                let run = match run {
                    Some(run) => run.clone(),
                    None => print::cell(&latest(client)?["id"]),
                };
                out.begun(client.post(&format!("{RUNS}/{run}/retry"), &json!({}))?, *detach)
            }
            Migrate::Stop => {
                let run = latest(client)?;
                let answer = client.post(&format!("{RUNS}/{}/stop", print::cell(&run["id"])), &json!({}))?;
                match json {
                    true => print::body(&answer),
                    false => print::line(&show_run(&answer.json()["run"])),
                }
                Ok(())
            }
            Migrate::Watch => follow(&out, &latest(client)?),
        }
    }
}

impl Output<'_> {
    fn begin(&self, kind: &str, tenants: &[String], more: Value, waves: Option<&Waves>, how: &How) -> Result<()> {
        let ids = |names: &[String]| names.iter().map(|name| resolve(self.client, name, Live::Yes)).collect::<Result<Vec<_>>>();
        let mut wish = more;
        wish["kind"] = kind.into();
        wish["parallel"] = how.parallel.into();
        wish["max_failure_rate"] = how.max_failure_rate.into();
        wish["tenant_timeout_s"] = how.tenant_timeout_s.into();
        if !tenants.is_empty() {
            wish["tenants"] = ids(tenants)?.into();
        }
        if let Some(Waves { canaries, canary, waves }) = waves {
            wish["canaries"] = (*canaries).into();
            wish["canary"] = ids(canary)?.into();
            wish["waves"] = waves.clone().into();
        }
        self.begun(self.client.post(RUNS, &wish)?, how.detach)
    }

    fn begun(&self, answer: super::client::Answer, detach: bool) -> Result<()> {
        if detach {
            match self.json {
                true => print::body(&answer),
                false => print::line(&show_run(&answer.json()["run"])),
            }
            return Ok(());
        }
        follow(self, &answer.json()["run"])
    }

    fn status(&self) -> Result<()> {
        let all = self.client.get("/admin/v1/migrations")?;
        if self.json {
            print::body(&all);
            return Ok(());
        }
        print::line(&sets(&all.json(), None));
        let runs = self.client.get(RUNS)?.json();
        if let Some(run) = runs["runs"].as_array().and_then(|runs| runs.first()) {
            print::line(&format!("\n{}", show_run(run)));
        }
        Ok(())
    }

    fn status_of(&self, tenant: &str) -> Result<()> {
        let all = self.client.get("/admin/v1/migrations")?;
        let one = self.client.get(&format!("/admin/v1/tenants/{}", resolve(self.client, tenant, Live::Yes)?))?;
        match self.json {
            true => print::body(&one),
            false => print::line(&sets(&all.json(), Some(&one.json()["tenant"]))),
        }
        Ok(())
    }
}

/// Every migration; with a tenant, those of its own files and whether it has them.
fn sets(body: &Value, tenant: Option<&Value>) -> String {
    let mut rows = Vec::new();
    for set in follow::list(&body["sets"]) {
        let (name, file) = (print::cell(&set["set"]), print::cell(&set["file"]));
        if tenant.is_some_and(|tenant| tenant["files"].get(&file).is_none()) {
            continue;
        }
        for step in follow::list(&set["migrations"]) {
            let short = |checksum: &Value| print::cell(checksum).chars().take(12).collect::<String>();
            let state = match tenant {
                Some(tenant) if tenant["schema_versions"][&name].as_u64() >= step["version"].as_u64() => "applied",
                Some(_) => "missing",
                None if step["in_force"] == false => "not in force",
                None if step["destructive"] == true => "in force, destructive",
                None => "in force",
            };
            let version = print::cell(&step["version"]);
            rows.push(vec![
                file.clone(),
                name.clone(),
                version,
                print::cell(&step["name"]),
                short(&step["checksum"]),
                short(&step["down_checksum"]),
                state.to_owned(),
            ]);
        }
    }
    print::table(&["FILE", "SET", "VERSION", "NAME", "UP", "DOWN", "STATE"], &rows)
}

fn no_run() -> Error {
    Error::not_found("there was no run yet").hint("`tenantry migrate up` begins one.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_the_migrations_up_to_its_version_of_each_set() {
        let step = |version: u32| json!({ "version": version, "name": "n", "checksum": "0123456789abcdef", "in_force": true });
        let all = json!({ "sets": [
            { "set": "tenant", "file": "database", "migrations": [step(1), step(2)] },
            { "set": "application", "file": "database", "migrations": [step(1)] },
            { "set": "app", "file": "system/app.db", "migrations": [step(1)] },
        ]});
        let tenant = json!({ "files": { "database": {} }, "schema_versions": { "tenant": 1 } });
        let page = sets(&all, Some(&tenant));
        let states: Vec<&str> = page.lines().skip(1).map(|row| row.rsplit(' ').next().unwrap()).collect();
        assert_eq!(states, ["applied", "missing", "missing"]);
        assert_eq!(sets(&all, None).lines().count(), 5);
    }
}

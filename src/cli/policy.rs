//! `tenantry policy`: whether policies can be read, and what they make of a caller.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::tenant::{Live, resolve};
use super::{Global, print};
use crate::error::{Error, Result};
use crate::rest::Policies;

#[derive(Subcommand)]
pub enum Policy {
    /// Read a folder of policies and say what is wrong; asks no server
    Check {
        /// The folder of migrations that has `policies/`, or that folder itself
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Say what a caller may do with a table, by which policies, and how many rows it sees
    Test {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
        table: String,
        /// A token of the caller's
        #[arg(long, conflicts_with_all = ["claims", "role", "sub"])]
        token: Option<String>,
        /// What its token would say, as JSON
        #[arg(long, value_name = "JSON")]
        claims: Option<String>,
        /// The role in it
        #[arg(long)]
        role: Option<String>,
        /// Who it is
        #[arg(long)]
        sub: Option<String>,
    },
}

impl Policy {
    pub fn run(&self, global: &Global) -> Result<()> {
        match self {
            Policy::Check { folder } => {
                let inside = folder.join(crate::rest::policy::FOLDER);
                let policies = Policies::load(if inside.is_dir() { &inside } else { folder })?;
                let (policies, grants) = policies.len();
                match global.json {
                    true => print::line(&json!({ "policies": policies, "grants": grants }).to_string()),
                    false => print::line(&format!("{policies} policies and {grants} grants are well formed")),
                }
                Ok(())
            }
            Policy::Test { tenant, table, token, claims, role, sub } => {
                let client = global.client()?;
                let id = resolve(&client, tenant, Live::Yes)?;
                let body = match token {
                    Some(token) => json!({ "table": table, "token": token }),
                    None => json!({ "table": table, "claims": claimed(claims.as_deref(), role.as_deref(), sub.as_deref())? }),
                };
                test(&client, &id, &body, global.json)
            }
        }
    }
}

fn claimed(claims: Option<&str>, role: Option<&str>, sub: Option<&str>) -> Result<Value> {
    let wrong = |_| Error::bad_request("--claims is no JSON object").hint("For example {\"sub\":\"ann\",\"role\":\"authenticated\"}.");
    let mut claims: serde_json::Map<String, Value> =
        claims.map_or_else(|| Ok(serde_json::Map::new()), |text| serde_json::from_str(text).map_err(wrong))?;
    for (name, value) in [("role", role), ("sub", sub)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value.into());
        }
    }
    Ok(Value::Object(claims))
}

fn test(client: &Client, id: &str, body: &Value, json: bool) -> Result<()> {
    let answer = client.post(&format!("/admin/v1/tenants/{id}/policies/test"), body)?;
    if json {
        print::body(&answer);
        return Ok(());
    }
    let told = answer.json();
    print::note(&format!("{} as {}, of {} rows:", print::cell(&told["table"]), print::cell(&told["role"]), told["rows"]));
    let listed =
        |value: &Value| value.as_array().map(|names| names.iter().map(print::cell).collect::<Vec<_>>().join(" ")).unwrap_or_default();
    let row = |name: &str| {
        let verdict = &told["commands"][name];
        let open = if verdict["allowed"] == true { "yes" } else { "no" };
        let why = if verdict["reason"].is_null() { listed(&verdict["policies"]) } else { print::cell(&verdict["reason"]) };
        let text = |value: &Value| if value.is_null() { String::new() } else { print::cell(value) };
        vec![
            name.to_owned(),
            open.to_owned(),
            text(&verdict["rows"]),
            why,
            listed(&verdict["columns"]),
            text(&verdict["using"]),
            text(&verdict["check"]),
        ]
    };
    let rows: Vec<_> = ["select", "insert", "update", "delete"].map(row).to_vec();
    print::line(&print::table(&["COMMAND", "OPEN", "ROWS", "BY", "COLUMNS", "USING", "CHECK"], &rows));
    for problem in told["problems"].as_array().into_iter().flatten() {
        print::note(&format!("{}: {}", print::cell(&problem["place"]), print::cell(&problem["message"])));
    }
    Ok(())
}

//! `tenantry policy`: whether policies can be read, what they make of a caller, and that the server reads them anew.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::Client;
use super::tenant::{Live, resolve};
use super::{Global, print};
use crate::error::{Error, Result};
use crate::rest::policy::FOLDER;
use crate::rest::{Functions, Policies};
use crate::sqlite::Trial;
use crate::tenant::{Blueprint, Role};

#[derive(Subcommand)]
pub enum Policy {
    /// Hold a folder of policies against the tables that its migrations make, and say what is wrong; asks no server
    Check {
        /// The folder of migrations that has `policies/`, or that folder itself
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Have the server read its policies and functions anew; if anything is wrong, what was in force stays so
    Reload,
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
            Policy::Check { folder } => check(folder, global.json),
            Policy::Reload => reload(&global.client()?, global.json),
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

/// Reads the policies, and holds them against the tables that the migrations beside them make.
fn check(folder: &Path, json: bool) -> Result<()> {
    let inside = folder.join(FOLDER);
    let (migrations, own) = match inside.is_dir() {
        true => (Some(folder), inside.as_path()),
        false => (folder.parent().filter(|_| folder.file_name().is_some_and(|name| name == FOLDER)), folder),
    };
    let policies = Policies::load(own)?;
    let blueprint = Blueprint::load(migrations)?;
    let makes_tables = blueprint.application().is_some_and(|own| own.newest() > 0);
    let mut problems = Vec::new();
    let mut functions = Functions::default();
    if let Some(migrations) = migrations.filter(|_| makes_tables) {
        let trial = Trial::on(blueprint.of(Role::Database))?;
        problems = policies.check(&trial)?;
        functions = Functions::load(&migrations.join("functions"), &trial)?;
    }
    let (count, grants) = policies.len();
    if json {
        let problems: Vec<_> = problems.iter().map(|one| json!({ "place": one.place, "message": one.message })).collect();
        let told =
            json!({ "policies": count, "grants": grants, "functions": functions.len(), "checked": makes_tables, "problems": problems });
        print::line(&told.to_string());
    } else {
        problems.iter().for_each(|problem| print::line(&format!("{}: {}", problem.place, problem.message)));
    }
    if !problems.is_empty() {
        let hint = "A table whose policies do not hold is closed to every role but service.";
        return Err(Error::bad_request(format!("{} of the policies, grants and functions do not hold", problems.len())).hint(hint));
    }
    if !json {
        let hold =
            if makes_tables { "hold on the tables that the migrations make" } else { "are well formed; no migrations stand beside them" };
        print::line(&format!("{count} policies, {grants} grants and {} functions {hold}", functions.len()));
    }
    Ok(())
}

fn reload(client: &Client, json: bool) -> Result<()> {
    let answer = client.post("/admin/v1/policies:reload", &json!({}))?;
    if json {
        print::body(&answer);
        return Ok(());
    }
    let told = answer.json();
    told["problems"].as_array().into_iter().flatten().for_each(said);
    print::line(&format!("{} policies, {} grants and {} functions are in force", told["policies"], told["grants"], told["functions"]));
    Ok(())
}

/// Of a problem, where and what.
fn said(problem: &Value) {
    print::note(&format!("{}: {}", print::cell(&problem["place"]), print::cell(&problem["message"])));
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
    told["problems"].as_array().into_iter().flatten().for_each(said);
    Ok(())
}

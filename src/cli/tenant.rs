//! `tenantry tenant`: the life of a tenant, from the shell. A tenant is named by its id or its slug; the API
//! takes ids only, so a slug is looked up first ([`resolve`]).

use clap::Subcommand;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::{Answer, Client, query};
use super::print;
use crate::error::{Error, Result};

const COLUMNS: [&str; 6] = ["id", "slug", "name", "state", "plan", "created_at"];

#[derive(Subcommand)]
pub enum Tenant {
    /// List tenants, a page at a time
    List {
        /// Only tenants in this state: active, suspended, deleted
        #[arg(long)]
        state: Option<String>,
        /// Only tenants whose slug or name contains this
        #[arg(long, value_name = "TEXT")]
        q: Option<String>,
        /// Tenants in this page
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// The cursor that the page before ended with
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Make a tenant and its three files; prints its service token
    Create {
        slug: String,
        /// Its human name [default: the slug]
        #[arg(long)]
        name: Option<String>,
        /// The limits it runs under [default: default]
        #[arg(long)]
        plan: Option<String>,
        /// Makes it safe to repeat this command after a failure
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Show one tenant: sizes, schema versions, whether it is open, when it was last used
    Show {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
    },
    /// Change a tenant's name or plan
    #[command(arg_required_else_help = true)]
    Set {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
        #[arg(long, required_unless_present = "plan")]
        name: Option<String>,
        #[arg(long)]
        plan: Option<String>,
    },
    /// Refuse a tenant's requests until it is resumed
    Suspend {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
    },
    /// Serve a suspended tenant again
    Resume {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
    },
    /// Move a tenant to the trash; `undelete` brings it back until it is purged
    Delete {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
    },
    /// Bring a deleted tenant back
    Undelete {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
    },
    /// Remove a deleted tenant's files for good
    Purge {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
        /// Really: there is no way back
        #[arg(long, required = true)]
        yes: bool,
    },
}

impl Tenant {
    pub fn run(&self, client: &Client, json: bool) -> Result<()> {
        match self {
            Tenant::List { state, q, limit, after } => {
                let limit = limit.to_string();
                let filter =
                    query(&[("state", state.as_deref()), ("q", q.as_deref()), ("limit", Some(&limit)), ("after", after.as_deref())]);
                let answer = client.get(&format!("/admin/v1/tenants{filter}"))?;
                if json {
                    print::body(&answer);
                    return Ok(());
                }
                let body = answer.json();
                print::line(&print::list(items(&body), &COLUMNS));
                print::more(&body);
                Ok(())
            }
            Tenant::Create { slug, name, plan, idempotency_key } => {
                let body = fields(&[("slug", Some(slug)), ("name", name.as_ref().or(Some(slug))), ("plan", plan.as_ref())]);
                let key: Vec<(&str, &str)> = idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
                let answer = client.ask("POST", "/admin/v1/tenants", Some(&body), &key)?;
                show(&answer, json);
                Ok(())
            }
            Tenant::Show { tenant } => {
                show(&client.get(&path(client, tenant, Live::Yes)?)?, json);
                Ok(())
            }
            Tenant::Set { tenant, name, plan } => {
                change(client, json, tenant, &fields(&[("name", name.as_ref()), ("plan", plan.as_ref())]))
            }
            Tenant::Suspend { tenant } => change(client, json, tenant, &json!({ "state": "suspended" })),
            Tenant::Resume { tenant } => change(client, json, tenant, &json!({ "state": "active" })),
            Tenant::Delete { tenant } => done(&client.delete(&path(client, tenant, Live::Yes)?)?, json, tenant, "deleted"),
            Tenant::Undelete { tenant } => {
                let path = format!("{}/undelete", path(client, tenant, Live::No)?);
                done(&client.post(&path, &json!({}))?, json, tenant, "active again")
            }
            Tenant::Purge { tenant, yes: _ } => {
                let path = format!("{}/purge", path(client, tenant, Live::No)?);
                done(&client.post(&path, &json!({}))?, json, tenant, "purged")
            }
        }
    }
}

fn change(client: &Client, json: bool, tenant: &str, fields: &Value) -> Result<()> {
    show(&client.patch(&path(client, tenant, Live::Yes)?, fields)?, json);
    Ok(())
}

/// The tenant in the answer as a page; its token last, alone on a line, so that it can be copied.
fn show(answer: &Answer, json: bool) {
    if json {
        return print::body(answer);
    }
    let mut body = answer.json();
    let files = body["tenant"].as_object_mut().and_then(|tenant| {
        tenant.remove("schema_versions");
        tenant.remove("files")
    });
    print::line(&print::document(&body["tenant"]));
    if let Some(Value::Object(files)) = files {
        print::line(&format!("\n{}", files_table(&files)));
    }
    if let Some(token) = body["token"].as_str() {
        print::note("\nits service token, with every tenant scope:");
        print::line(token);
    }
}

fn files_table(files: &Map<String, Value>) -> String {
    let row = |(role, file): (&String, &Value)| {
        let versions = file["schema_versions"].as_object().into_iter().flatten();
        let versions: Vec<String> = versions.map(|(set, version)| format!("{set} {version}")).collect();
        let schema = if versions.is_empty() { print::cell(&file["error"]) } else { versions.join(", ") };
        vec![role.clone(), print::cell(&file["size_bytes"]), print::cell(&file["wal_bytes"]), schema]
    };
    print::table(&["FILE", "SIZE_BYTES", "OF THAT IN WAL", "SCHEMA"], &files.iter().map(row).collect::<Vec<_>>())
}

fn done(answer: &Answer, json: bool, tenant: &str, what: &str) -> Result<()> {
    match json {
        true if !answer.body.is_empty() => print::body(answer),
        true => {}
        false => print::line(&format!("{tenant}: {what}")),
    }
    Ok(())
}

/// Which of the tenants that had one slug is meant: the one that has it now, or one in the trash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Live {
    Yes,
    No,
}

fn path(client: &Client, tenant: &str, live: Live) -> Result<String> {
    Ok(format!("/admin/v1/tenants/{}", resolve(client, tenant, live)?))
}

/// The id of the tenant that a person named by id or slug.
pub fn resolve(client: &Client, tenant: &str, live: Live) -> Result<String> {
    if let Ok(id) = Uuid::try_parse(tenant) {
        return Ok(id.hyphenated().to_string());
    }
    let state = (live == Live::No).then_some("deleted");
    let answer = client.get(&format!("/admin/v1/tenants{}", query(&[("slug", Some(tenant)), ("state", state)])))?;
    choose(items(&answer.json()), tenant, live)
}

fn choose(found: &[Value], slug: &str, live: Live) -> Result<String> {
    let wanted = |item: &&Value| item["slug"] == slug && (item["state"] == "deleted") == (live == Live::No);
    let ids: Vec<&str> = found.iter().filter(wanted).filter_map(|item| item["id"].as_str()).collect();
    match (ids.as_slice(), live) {
        ([id], _) => Ok((*id).to_owned()),
        ([], Live::Yes) => Err(Error::not_found(format!("there is no tenant `{slug}`")).hint("`tenantry tenant list` shows all of them.")),
        ([], Live::No) => Err(Error::not_found(format!("there is no deleted tenant `{slug}`"))
            .hint("`tenantry tenant list --state deleted` shows what is in the trash.")),
        (several, _) => Err(Error::conflict(format!("{} tenants had the slug `{slug}`", several.len()))
            .hint(format!("Name one by its id: {}", several.join(", ")))),
    }
}

/// The list in a `{"tenants":[…]}` answer.
pub fn items(body: &Value) -> &[Value] {
    body["tenants"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn fields(pairs: &[(&str, Option<&String>)]) -> Value {
    let given = pairs.iter().filter_map(|(name, value)| value.map(|value| ((*name).to_owned(), Value::String(value.clone()))));
    Value::Object(given.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_means_the_tenant_that_has_it_unless_the_trash_is_meant() {
        let found = [
            json!({"id": "a", "slug": "acme", "state": "deleted"}),
            json!({"id": "b", "slug": "acme", "state": "active"}),
            json!({"id": "c", "slug": "acme-2", "state": "active"}),
        ];
        assert_eq!(choose(&found, "acme", Live::Yes).unwrap(), "b");
        assert_eq!(choose(&found, "acme", Live::No).unwrap(), "a");
        assert!(choose(&found, "globex", Live::Yes).is_err());
        let twice = [found[0].clone(), json!({"id": "d", "slug": "acme", "state": "deleted"})];
        assert!(choose(&twice, "acme", Live::No).unwrap_err().to_string().contains("a, d"));
    }
}

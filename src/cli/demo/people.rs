//! People of one company, each with a token of their own, at the rows of their tenant: one request, and each sees and
//! changes what the example application's policies say.

use serde_json::{Value, json};

use super::caller::{Caller, Visitor, same};
use super::story::Guest;
use crate::auth::scope::{Scope, Scopes};
use crate::cli::client::Call;
use crate::cli::print::{line, table};
use crate::cli::token;
use crate::error::Result;

/// What the dialect of rows asks of a token; whose rows they are is for the policies.
const PERSON_SCOPES: Scopes = Scopes::of(Scope::SqlRead).with(Scope::SqlWrite);

const TITLE: &str = "Order coffee for the site office";

/// One of the first company's, and what the policies let them do.
struct Person {
    email: &'static str,
    position: &'static str,
    projects: &'static [&'static str],
    /// Adding a task.
    adds: bool,
    /// Changing a task that is another's.
    changes: bool,
}

const PEOPLE: [Person; 3] = [
    Person {
        email: "ada@acme.example",
        position: "owner",
        projects: &["Harbour Bridge", "Northern Tunnel", "Depot Roof"],
        adds: true,
        changes: true,
    },
    Person { email: "bram@acme.example", position: "editor", projects: &["Harbour Bridge", "Northern Tunnel"], adds: true, changes: false },
    Person {
        email: "dmitri@acme.example",
        position: "viewer",
        projects: &["Harbour Bridge", "Northern Tunnel"],
        adds: false,
        changes: false,
    },
];

pub(super) fn at_work(caller: &Caller<'_>, acme: &Guest) -> Result<()> {
    line("\n5. Three people of Acme at its rows (/rest/v1, as supabase-js calls it): policies say who sees and changes what\n");
    let mut rows = Vec::new();
    let mut visitors = Vec::new();
    for person in &PEOPLE {
        let token = token::mint(caller.operator(), &acme.id.to_string(), person.email, "authenticated", PERSON_SCOPES, 60)?;
        let visitor = Visitor { name: person.email.to_owned(), token };
        let me = caller.json(&visitor, "POST", "/rest/v1/rpc/whoami", &json!({}), 200)?;
        same("who calls", &me, &json!([{ "email": person.email, "role": "authenticated" }]))?;
        let seen = caller.json(&visitor, "GET", "/rest/v1/projects?select=name,tasks(title)&order=id", &Value::Null, 200)?;
        let names: Vec<&str> = seen.as_array().into_iter().flatten().filter_map(|project| project["name"].as_str()).collect();
        same(&format!("the projects that {} sees", person.email), &names.as_slice(), &person.projects)?;
        let added = adds(caller, &visitor, person)?;
        let changed = changes(caller, &visitor, person)?;
        rows.push(vec![format!("   {}", person.email), person.position.to_owned(), names.join(", "), added.to_owned(), changed.to_owned()]);
        visitors.push(visitor);
    }
    if let Some(owner) = visitors.first() {
        let path = format!("/rest/v1/tasks?title=eq.{}&select=title", TITLE.replace(' ', "%20"));
        let call = Call {
            method: "DELETE",
            path: &path,
            bearer: Some(&owner.token),
            headers: &[("prefer", "return=representation")],
            body: Vec::new(),
        };
        // An earlier run that was interrupted may have left some.
        let cleared = caller.call(&owner.name, &call, 200)?.json();
        same("that the owner clears both tasks away", &cleared.as_array().is_some_and(|tasks| tasks.len() >= 2), &true)?;
    }
    line(&table(&["   WHO", "IS", "SEES", "ADDS A TASK", "CHANGES ANOTHER'S"], &rows));
    Ok(())
}

fn adds(caller: &Caller<'_>, visitor: &Visitor, person: &Person) -> Result<&'static str> {
    let task = json!({ "project_id": 1, "title": TITLE });
    if person.adds {
        caller.json(visitor, "POST", "/rest/v1/tasks", &task, 201)?;
        return Ok("201");
    }
    let body = task.to_string().into_bytes();
    let call = Call { method: "POST", path: "/rest/v1/tasks", bearer: Some(&visitor.token), headers: &[], body };
    caller.refused(person.email, &call, 403, "42501")?;
    Ok("403 42501")
}

/// A task of Chiara's. To whom it is closed, it is as if there were none to change.
fn changes(caller: &Caller<'_>, visitor: &Visitor, person: &Person) -> Result<&'static str> {
    let call = Call {
        method: "PATCH",
        path: "/rest/v1/tasks?id=eq.2&select=id",
        bearer: Some(&visitor.token),
        headers: &[("prefer", "return=representation")],
        body: json!({ "state": "doing" }).to_string().into_bytes(),
    };
    let changed = caller.call(person.email, &call, 200)?.json();
    same(&format!("what {} changed", person.email), &changed, &if person.changes { json!([{ "id": 2 }]) } else { json!([]) })?;
    Ok(if person.changes { "1 row" } else { "0 rows" })
}

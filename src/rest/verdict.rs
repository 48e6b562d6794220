//! A [`verdict`]: what the policies make of a caller and a table, and why. For operators.

use std::sync::Arc;

use serde_json::{Value, json};

use super::access::{self, Caller, Command};
use super::expression::identifier;
use super::policy::Condition;
use super::policy::rules::Access;
use super::render::where_;
use super::schema::Table;
use super::statement::Binder;
use super::{Setting, execute, refusal};
use crate::auth::{Claims, Scopes};
use crate::error::Result;
use crate::sqlite::{Database, Limits, Reader};

/// Of each command on `table`: whether it is open to the caller, by which policies, on which columns, to which
/// conditions rows are held, and how many rows of the tenant's meet them.
pub async fn verdict(database: &Arc<Database>, setting: Setting, table: String) -> Result<Value> {
    let (serial, limits) = (database.serial(), Limits::of(&setting.plan));
    let judged = move |reader: &Reader<'_>| {
        reader.snapshot()?;
        let real = setting.dialect.schemas.of(serial, reader)?;
        let id = real.position(&table).ok_or_else(|| refusal::unknown_table(&real, &table))?;
        let seen = access::schema(&setting.caller, real.clone());
        let commands = Command::ALL.into_iter().map(|command| {
            let verdict = command_on(reader, &setting, seen.table(id), command)?;
            Ok((command.name().to_owned(), verdict))
        });
        let problems: Vec<_> = real.problems().into_iter().filter(|(name, _)| *name == real.table(id).name).collect();
        Ok(json!({
            "table": real.table(id).name,
            "role": setting.caller.claims.role,
            "rows": count(reader, real.table(id), Vec::new(), Binder::default())?,
            "commands": commands.collect::<Result<serde_json::Map<_, _>>>()?,
            "problems": problems.iter().map(|(_, problem)| json!({ "place": problem.place, "message": problem.message })).collect::<Vec<_>>(),
        }))
    };
    database.read(limits, judged).await.map_err(refusal::translate)
}

fn command_on(reader: &Reader<'_>, setting: &Setting, table: &Table, command: Command) -> Result<Value> {
    let (caller, policies) = (&setting.caller, setting.dialect.schemas.policies());
    let names = policies.named(&table.name, &caller.claims.role, command);
    let rule = match &table.access {
        Access::Everything => return Ok(json!({ "allowed": true, "policies": names, "reason": "no policy holds the role service back" })),
        Access::Nothing => None,
        Access::Ruled(rules) => rules.of(command),
    };
    let Some(rule) = rule else {
        return Ok(json!({ "allowed": false, "policies": names, "reason": "no permissive policy for this command names the role" }));
    };
    let columns: Vec<_> = table.columns.iter().filter(|column| column.rights.has(command)).map(|column| &column.name).collect();
    let mut binder = Binder::default();
    // A row that is changed or deleted is also one that is seen.
    let held: &[Command] = if command == Command::Select { &[Command::Select] } else { &[Command::Select, command] };
    let mut conditions = Vec::new();
    let mut open = command != Command::Insert;
    for command in held.iter().filter(|_| command != Command::Insert) {
        match access::using(caller, table, *command, "t0", &mut binder) {
            Ok(condition) => conditions.extend(condition),
            Err(_) => open = false,
        }
    }
    let rows = if open { Some(count(reader, table, conditions, binder)?) } else { None };
    let text = |expr: &Option<Condition>| expr.as_ref().map_or_else(|| "TRUE".to_owned(), Condition::text);
    Ok(json!({
        "allowed": true,
        "policies": names,
        "columns": columns,
        "using": (command != Command::Insert).then(|| text(&rule.using)),
        "check": matches!(command, Command::Insert | Command::Update).then(|| text(&rule.check)),
        "rows": rows,
    }))
}

/// The rows of `table` that meet the conditions.
fn count(reader: &Reader<'_>, table: &Table, conditions: Vec<String>, binder: Binder) -> Result<i64> {
    let sql = format!("SELECT count(*) FROM {} AS t0{}", identifier(&table.name), where_(&conditions.join(" AND ")));
    let mut counted = 0;
    execute(reader, &binder.statement(sql), |cells| {
        counted = cells.iter().next().and_then(|value| value.as_i64().ok()).unwrap_or_default();
        Ok(())
    })?;
    Ok(counted)
}

/// A caller with these claims.
pub fn caller(tenant: uuid::Uuid, claims: &serde_json::Map<String, Value>) -> Caller {
    let text = |name: &str, otherwise: &str| claims.get(name).and_then(Value::as_str).unwrap_or(otherwise).to_owned();
    let (sub, role) = (text("sub", "nobody"), text("role", "authenticated"));
    let payload = Value::Object(claims.clone()).to_string().into();
    let claims = Claims { tenant, sub, role, scopes: Scopes::ALL, jti: None, exp: i64::MAX, payload };
    Caller { claims: Arc::new(claims) }
}

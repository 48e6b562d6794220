//! Who may touch which table. Every reference of a table in a statement asks [`using`] first: the root, what is
//! embedded, counted or ordered by, and what is written; every write asks [`check`] about the rows it made. A schema is
//! looked at as its caller sees it ([`schema`]): names that the caller has no right to are not in it.
//!
//! Without a policy nobody but a service token has access.

use std::sync::Arc;

use rusqlite::types::Value;

use super::policy::Auth;
use super::policy::rules::{Access, Rule};
use super::refusal;
use super::schema::{Schema, Table, TableId};
use super::statement::Binder;
use crate::auth::{Claims, SERVICE};
use crate::error::{Error, Result};

/// The role of those who did not sign in.
const ANONYMOUS: &str = "anon";

#[derive(Clone)]
pub struct Caller {
    pub claims: Arc<Claims>,
}

impl Caller {
    /// Whether no policy holds it back.
    pub fn is_service(&self) -> bool {
        self.claims.role == SERVICE
    }

    pub fn is_anonymous(&self) -> bool {
        self.claims.role == ANONYMOUS
    }

    /// What `auth` asks of its token.
    pub fn answer(&self, auth: &Auth) -> Value {
        auth.of(&self.claims.sub, &self.claims.role, &self.claims.payload, self.is_anonymous())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Select,
    Insert,
    Update,
    Delete,
}

impl Command {
    pub const ALL: [Command; 4] = [Command::Select, Command::Insert, Command::Update, Command::Delete];

    pub const fn name(self) -> &'static str {
        match self {
            Command::Select => "select",
            Command::Insert => "insert",
            Command::Update => "update",
            Command::Delete => "delete",
        }
    }
}

/// `schema` as the caller sees it.
pub fn schema(caller: &Caller, schema: Arc<Schema>) -> Arc<Schema> {
    if caller.is_service() { schema } else { schema.seen_by(&caller.claims.role) }
}

/// The table of this name. To who has no access to it, it is as one that does not exist.
pub fn find(caller: &Caller, schema: &Schema, name: &str) -> Result<TableId> {
    match schema.find(name) {
        Some(found) => Ok(found),
        None if caller.is_service() => Err(refusal::unknown_table(schema, name)),
        None => Err(refusal::denied(name, caller.is_anonymous())),
    }
}

/// What the caller is told of an error.
pub fn told(caller: &Caller, schema: &Schema, error: Error) -> Error {
    if caller.is_service() { error } else { refusal::discreet(error, schema) }
}

/// That `command` is open to the caller, and what holds it back then; `None` for nothing.
pub fn admit<'t>(caller: &Caller, table: &'t Table, command: Command) -> Result<Option<&'t Rule>> {
    let rule = match &table.access {
        // Only ever for who is not held back: a role's schema says what each table is held to.
        Access::Everything if caller.is_service() => return Ok(None),
        Access::Everything | Access::Nothing => None,
        Access::Ruled(rules) => rules.of(command),
    };
    rule.map(Some).ok_or_else(|| refusal::denied(&table.name, caller.is_anonymous()))
}

/// A condition on the rows of `table`, called `alias` in the statement, that the caller may see or touch; `None` for
/// all of them. What it compares with is bound.
pub fn using(caller: &Caller, table: &Table, command: Command, alias: &str, binder: &mut Binder) -> Result<Option<String>> {
    condition(caller, table, command, Half::Using, alias, binder)
}

/// A condition that every row of `table` meets once `command` has written it; `None` for any row.
pub fn check(caller: &Caller, table: &Table, command: Command, alias: &str, binder: &mut Binder) -> Result<Option<String>> {
    condition(caller, table, command, Half::Check, alias, binder)
}

#[derive(Clone, Copy)]
enum Half {
    Using,
    Check,
}

fn condition(caller: &Caller, table: &Table, command: Command, half: Half, alias: &str, binder: &mut Binder) -> Result<Option<String>> {
    let Some(rule) = admit(caller, table, command)? else { return Ok(None) };
    let expr = match half {
        Half::Using => &rule.using,
        Half::Check => &rule.check,
    };
    binder.admit(&rule.tables);
    let mut bind = |auth: &Auth| binder.bind_who(auth, caller);
    Ok(expr.as_ref().map(|expr| format!("({})", expr.sql(alias, &mut bind))))
}

//! Who may touch which table. Every reference of a table in a statement asks [`using`] first: the root, what is
//! embedded, counted or ordered by, and what is written; every write asks [`check`] about the rows it made. Without
//! a policy nobody but a service token has access.

use std::sync::Arc;

use super::refusal;
use super::render::Binder;
use super::schema::Table;
use crate::auth::Claims;
use crate::error::Result;

/// The role that no policy holds back: the tenant's own back end.
const SERVICE: &str = "service";
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Select,
    Insert,
    Update,
    Delete,
}

/// A condition on the rows of `table`, called `alias` in the statement, that the caller may see or touch; `None` for
/// all of them. What it compares with is bound.
pub fn using(caller: &Caller, table: &Table, _command: Command, _alias: &str, _binder: &mut Binder) -> Result<Option<String>> {
    admit(caller, &table.name).map(|()| None)
}

/// Asked before a request's names are looked up in the schema: who has access to nothing learns nothing of it either.
pub fn enter(caller: &Caller, table: &str) -> Result<()> {
    admit(caller, table)
}

/// A condition that every row of `table` meets once `_command` has written it; `None` for any row.
pub fn check(caller: &Caller, table: &Table, _command: Command, _alias: &str, _binder: &mut Binder) -> Result<Option<String>> {
    admit(caller, &table.name).map(|()| None)
}

fn admit(caller: &Caller, table: &str) -> Result<()> {
    match caller.claims.role.as_str() {
        SERVICE => Ok(()),
        role => Err(refusal::denied(table, role == ANONYMOUS)),
    }
}

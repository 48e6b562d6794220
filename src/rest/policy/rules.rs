//! What a role may do with the tables of one schema: an [`Access`] to each table, and [`Rights`] to each column. A
//! role's view of a schema is that schema with these settled ([`seen_by`]), and nothing that asks for a table or
//! column by name finds one that the role has no right to.

use std::sync::Arc;

use super::super::access::Command;
use super::super::schema::{ForeignKey, Schema, Shape, Table, TableId};
use super::place::{Half, Placer, Problem};
use super::tree::Expr;
use super::{Grant, Policies, names};
use crate::sqlite::ANYTHING;

#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Policies do not hold: the schema is not seen by a role.
    #[default]
    Everything,
    Nothing,
    /// What each command is held to.
    Ruled(Arc<Rules>),
}

/// By command; `None` is closed.
#[derive(Debug, Default)]
pub struct Rules([Option<Rule>; 4]);

#[derive(Debug)]
pub struct Rule {
    /// That rows meet which are read, changed or deleted; `None`: all do.
    pub using: Option<Expr>,
    /// That rows meet once they are written.
    pub check: Option<Expr>,
    /// Those that may be read for it: the table, what a view of that name reads (`*`), and those that the conditions ask.
    pub tables: Vec<String>,
}

impl Rules {
    pub fn of(&self, command: Command) -> Option<&Rule> {
        self.0[command as usize].as_ref()
    }
}

/// Commands that a column is open to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u8);

impl Default for Rights {
    fn default() -> Self {
        Rights(u8::MAX)
    }
}

impl Rights {
    pub const NONE: Rights = Rights(0);

    pub const fn has(self, command: Command) -> bool {
        self.0 & (1 << command as u8) != 0
    }

    #[must_use]
    pub const fn with(self, command: Command) -> Rights {
        Rights(self.0 | 1 << command as u8)
    }
}

/// `schema` as the role of this number sees it.
pub fn seen_by(policies: &Policies, schema: &Schema, role: usize) -> Schema {
    let role = policies.role_name(role);
    let mut tables: Vec<Table> = schema.by_id().map(|(id, table)| ruled(policies, schema, role, id, table)).collect();
    // A relation is known to who may read both of its ends.
    let readable = |tables: &[Table], table: TableId, columns: &[usize]| {
        columns.iter().all(|&column| tables[table].columns[column].rights.has(Command::Select))
    };
    for id in 0..tables.len() {
        let mut keys = std::mem::take(&mut tables[id].foreign_keys);
        keys.retain(|key| readable(&tables, id, &key.columns) && readable(&tables, key.to, &key.to_columns));
        // What a view's key is called tells of the table that has it.
        for key in &mut keys {
            let (stored, columns) = schema.stored(id, &key.columns);
            if !readable(&tables, stored, &columns) {
                key.name = ForeignKey::default_name(&tables[id], &key.columns);
            }
        }
        tables[id].foreign_keys = keys;
    }
    Schema::of(tables)
}

fn ruled(policies: &Policies, schema: &Schema, role: Option<&str>, id: TableId, table: &Table) -> Table {
    let mut table = table.clone();
    table.access = match rules(policies, schema, role, id) {
        Ok(rules) if rules.0.iter().any(Option::is_some) => Access::Ruled(Arc::new(rules)),
        _ => Access::Nothing,
    };
    for column in &mut table.columns {
        column.rights = match &table.access {
            Access::Ruled(rules) => rights(policies, role, rules, &table.name, &column.name),
            _ => Rights::NONE,
        };
    }
    table
}

fn rules(policies: &Policies, schema: &Schema, role: Option<&str>, id: TableId) -> Result<Rules, Problem> {
    let mut rules = Rules::default();
    grants_hold(policies, schema.table(id))?;
    for command in Command::ALL {
        let half = |half| Placer::new(policies, schema, role).condition(id, command, half, None);
        let (using, check) = match command {
            Command::Select | Command::Delete => (half(Half::Using)?, Some(Expr::Bool(true))),
            Command::Insert => (Some(Expr::Bool(true)), half(Half::Check)?),
            Command::Update => (half(Half::Using)?, half(Half::Check)?),
        };
        let says = |expr: Expr| Some(expr).filter(|expr| *expr != Expr::Bool(true));
        rules.0[command as usize] = using.zip(check).map(|(using, check)| {
            let mut tables = vec![schema.table(id).name.as_str()];
            using.tables(&mut tables);
            check.tables(&mut tables);
            if tables.iter().any(|name| schema.position(name).is_some_and(|id| schema.table(id).shape == Shape::View)) {
                tables.push(ANYTHING);
            }
            let tables = tables.into_iter().map(str::to_owned).collect();
            Rule { using: says(using), check: says(check), tables }
        });
    }
    Ok(rules)
}

/// The columns' names in GRANTs on `table` are its own.
fn grants_hold(policies: &Policies, table: &Table) -> Result<(), Problem> {
    for grant in policies.grants.iter().filter(|grant| grant.table.eq_ignore_ascii_case(&table.name)) {
        for (at, name) in grant.columns.iter().flatten() {
            if !table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name)) {
                let message = format!("GRANT on {}: there is no column {name}", table.name);
                return Err(Problem { place: policies.place(grant.file, *at), message });
            }
        }
    }
    Ok(())
}

/// The commands that are open on the table, but for those that the role has on other columns only.
fn rights(policies: &Policies, role: Option<&str>, rules: &Rules, table: &str, column: &str) -> Rights {
    let of_role = |grant: &&Grant| grant.table.eq_ignore_ascii_case(table) && names(&grant.roles, role);
    let lists =
        |grant: &Grant| grant.columns.as_ref().is_none_or(|columns| columns.iter().any(|(_, listed)| listed.eq_ignore_ascii_case(column)));
    let mut rights = Rights::NONE;
    for command in Command::ALL.into_iter().filter(|command| rules.of(*command).is_some()) {
        let mut grants = policies.grants.iter().filter(of_role).filter(|grant| grant.commands.contains(&command)).peekable();
        if grants.peek().is_none() || grants.any(lists) {
            rights = rights.with(command);
        }
    }
    rights
}

/// Why policies and grants cannot hold on `schema`, by the table that is closed for it.
pub fn problems(policies: &Policies, schema: &Schema) -> Vec<(String, Problem)> {
    let mut found: Vec<(String, Problem)> = Vec::new();
    for (id, table) in schema.by_id() {
        for role in 0..policies.role_count() {
            if let Err(problem) = rules(policies, schema, policies.role_name(role), id)
                && !found.iter().any(|(name, known)| *name == table.name && known.place == problem.place)
            {
                found.push((table.name.clone(), problem));
            }
        }
    }
    let declared = policies.policies.iter().map(|policy| (&policy.table, policy.file, policy.table_at));
    let granted = policies.grants.iter().map(|grant| (&grant.table, grant.file, grant.table_at));
    for (table, file, at) in declared.chain(granted) {
        if schema.position(table).is_none() {
            found.push((table.clone(), Problem { place: policies.place(file, at), message: format!("there is no table {table}") }));
        }
    }
    found
}

//! [`Written`] is which tables a transaction wrote, as SQLite's authorizer named them while its statements were
//! compiled: also those that only a trigger, a foreign key's action or an upsert writes. Kept where tenants' SQL runs.
//!
//! - What is committed is never missed, whoever's SQL it was. What a savepoint rolled back, a statement that failed or one
//!   that found no row may be counted.
//! - A change of the schema, and what is not known statement by statement (a migration), is everything.

use std::collections::BTreeSet;

use rusqlite::hooks::AuthAction;

use super::authorizer::Needs;
use super::database::Database;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    everything: bool,
    /// In lower case.
    tables: BTreeSet<Box<str>>,
}

impl Written {
    pub fn everything() -> Written {
        Written { everything: true, tables: BTreeSet::new() }
    }

    /// Whether `table`, in lower case, may have been written.
    pub fn has(&self, table: &str) -> bool {
        self.everything || self.tables.contains(table)
    }

    /// Whether nothing else than `table` was written.
    pub(super) fn is_only(&self, table: &str) -> bool {
        !self.everything && self.tables.len() == 1 && self.tables.contains(table)
    }

    pub fn is_everything(&self) -> bool {
        self.everything
    }

    pub fn is_empty(&self) -> bool {
        !self.everything && self.tables.is_empty()
    }

    pub(super) fn add(&mut self, other: &Written) {
        if other.everything {
            *self = Written::everything();
        } else if !self.everything {
            for table in &other.tables {
                if !self.tables.contains(table) {
                    self.tables.insert(table.clone());
                }
            }
        }
    }

    fn add_table(&mut self, table: &str) {
        if table.eq_ignore_ascii_case("sqlite_master") {
            *self = Written::everything();
        } else if !self.everything {
            self.tables.insert(table.to_ascii_lowercase().into());
        }
    }
}

/// What the authorizer was told of a statement.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    pub needs: Needs,
    /// The tables it reads, in lower case; also views, and names that its own WITH makes.
    pub reads: BTreeSet<Box<str>>,
    /// The functions it calls and, after `pragma `, its pragmas, in lower case.
    pub calls: BTreeSet<Box<str>>,
    pub writes: Written,
    /// The table that it alters.
    pub alters: Option<Box<str>>,
}

impl Judged {
    pub fn add(&mut self, other: Judged) {
        self.alters = other.alters.or(self.alters.take());
        self.needs = self.needs.with(other.needs);
        self.writes.add(&other.writes);
        self.reads.extend(other.reads);
        self.calls.extend(other.calls);
    }

    /// Takes note of one action on the database itself, not on the `temp` schema.
    pub(super) fn touch(&mut self, action: &AuthAction<'_>) {
        use AuthAction::*;
        match *action {
            Read { table_name, .. } if !self.reads.contains(table_name) => drop(self.reads.insert(table_name.to_ascii_lowercase().into())),
            // Full-text search asks whether somebody else has written the file.
            Pragma { pragma_name: "data_version", .. } => drop(self.reads.insert("sqlite_master".into())),
            Pragma { pragma_name, .. } => drop(self.calls.insert(format!("pragma {}", pragma_name.to_ascii_lowercase()).into())),
            Function { function_name } => drop(self.calls.insert(function_name.to_ascii_lowercase().into())),
            Insert { table_name } | Delete { table_name } | Update { table_name, .. } => self.writes.add_table(table_name),
            CreateIndex { .. }
            | CreateTable { .. }
            | CreateTrigger { .. }
            | CreateView { .. }
            | CreateVtable { .. }
            | DropIndex { .. }
            | DropTable { .. }
            | DropTrigger { .. }
            | DropView { .. }
            | DropVtable { .. } => self.writes = Written::everything(),
            AlterTable { table_name, .. } => {
                self.writes = Written::everything();
                self.alters = Some(table_name.into());
            }
            _ => {}
        }
    }
}

/// Who is told of a file's commits.
pub type Told = Box<dyn Fn(&Written) + Send + Sync>;

impl Database {
    /// Has `told` called after each commit of this handle's that wrote something, with what it wrote, before its writers are
    /// answered: by grouped writes, transactions over several requests, and the migrations of an opening (as everything);
    /// also where nobody knows whether the commit happened. It runs on the writer's lane: it rings a bell, and neither
    /// waits nor uses the file. Only the first one given to a handle is; files where no tenant's SQL runs never call it.
    /// What was committed before a crash, or by a fleet run's visit to the closed file, is told to nobody; see
    /// [`Database::ask_when_opened`].
    pub fn on_commit(&self, told: impl Fn(&Written) + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(told));
    }

    /// Has `question`, a SELECT, asked each time the file is opened: a row of it tells whoever is told of commits that
    /// everything was written. So what an earlier process left is found.
    pub fn ask_when_opened(&self, question: &'static str) {
        let _ = self.left.set(question);
    }
}

#[cfg(test)]
mod tests;

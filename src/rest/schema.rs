//! A [`Schema`] is what a tenant's tables look like: the only place that names in SQL come from. [`Schemas`] keeps
//! what was read: once for each version of a file's schema, and one copy for all files whose schema is the same.

mod constraints;
mod load;
mod views;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use moka::sync::Cache;

use super::access::Command;
use super::policy::rules::{self, Access, Rights};
use super::policy::{Policies, Problem};
use super::value::Kind;
use crate::error::Result;
use crate::sqlite::Reader;

/// Files whose schema is remembered: a hundred bytes each.
const FILES: u64 = 100_000;

/// Of one schema, in the log.
const PROBLEMS_LOGGED: usize = 20;

/// Different schemas that are remembered.
const DIFFERENT: u64 = 200;

#[derive(Debug, Default)]
pub struct Schema {
    number: Number,
    tables: Vec<Table>,
    policies: Arc<Policies>,
    /// As each role sees it, by its number.
    sights: Vec<OnceLock<Arc<Schema>>>,
}

/// No two schemas of a process have the same.
#[derive(Debug)]
struct Number(u64);

impl Default for Number {
    fn default() -> Number {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Number(LAST.fetch_add(1, Relaxed))
    }
}

/// Index of a table in its schema.
pub type TableId = usize;

#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub shape: Shape,
    pub columns: Vec<Column>,
    /// The primary key's columns in its order.
    pub key: Vec<usize>,
    /// Columns of each unique index, the primary key's among them.
    pub unique: Vec<Vec<usize>>,
    /// Columns of each index, in its order.
    pub indexes: Vec<Vec<usize>>,
    pub foreign_keys: Vec<ForeignKey>,
    /// A constraint of it says ON CONFLICT REPLACE: a row that comes deletes those in its way.
    pub replaces: bool,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// With the name under which its rowid can be had.
    Rowid(&'static str),
    WithoutRowid,
    View,
    /// Its columns are searched with MATCH.
    FullText,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// As the table declares it.
    pub declared: String,
    pub kind: Kind,
    pub not_null: bool,
    /// In SQL.
    pub default: Option<String>,
    pub generated: bool,
    /// Of a view's column, the table's column that it shows.
    pub origin: Option<(TableId, usize)>,
    pub rights: Rights,
}

/// Columns whose values are those of another table's: a constraint, or what a view shows of one ([`views`]).
#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub name: String,
    pub columns: Vec<usize>,
    pub to: TableId,
    pub to_columns: Vec<usize>,
    /// No two rows of its table refer to the same.
    pub unique: bool,
    /// Its columns are of the primary key.
    pub in_key: bool,
    /// Its table refers to itself.
    pub reflexive: bool,
}

impl ForeignKey {
    /// As PostgreSQL calls one that has no name.
    pub fn default_name(table: &Table, columns: &[usize]) -> String {
        let columns: Vec<_> = columns.iter().map(|&column| table.columns[column].name.as_str()).collect();
        format!("{}_{}_fkey", table.name, columns.join("_"))
    }
}

impl Schema {
    pub fn of(tables: Vec<Table>) -> Schema {
        Schema { tables, ..Schema::default() }
    }

    /// The same, under these policies.
    pub fn under(self, policies: Arc<Policies>) -> Schema {
        let sights = (0..policies.role_count()).map(|_| OnceLock::new()).collect();
        Schema { policies, sights, ..self }
    }

    /// Of this very schema, as one role or the service sees it.
    pub fn number(&self) -> u64 {
        self.number.0
    }

    /// As `role` sees it; settled once.
    pub fn seen_by(&self, role: &str) -> Arc<Schema> {
        let number = self.policies.role(role);
        let settle = || Arc::new(rules::seen_by(&self.policies, self, number));
        self.sights.get(number).map_or_else(settle, |sight| sight.get_or_init(settle).clone())
    }

    /// The same, with `table`, all of it, in the place of the one that has its rights: rows of it were given to the caller.
    pub fn opened(&self, id: TableId, table: &Table) -> Schema {
        let mut tables = self.tables.clone();
        let foreign_keys = std::mem::take(&mut tables[id].foreign_keys);
        tables[id] = Table { foreign_keys, ..table.clone() };
        Schema::of(tables)
    }

    /// Why policies do not hold on it, by table.
    pub fn problems(&self) -> Vec<(String, Problem)> {
        rules::problems(&self.policies, self)
    }

    /// Those that may be seen.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| !matches!(table.access, Access::Nothing))
    }

    /// All of them.
    pub fn by_id(&self) -> impl Iterator<Item = (TableId, &Table)> {
        self.tables.iter().enumerate()
    }

    pub fn table(&self, id: TableId) -> &Table {
        &self.tables[id]
    }

    /// The table of exactly this name, if it may be seen.
    pub fn find(&self, name: &str) -> Option<TableId> {
        self.tables.iter().position(|table| table.name == name && !matches!(table.access, Access::Nothing))
    }

    /// The table of this name as SQL takes it, in any case; also one that may not be seen.
    pub fn position(&self, name: &str) -> Option<TableId> {
        self.tables.iter().position(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// Where these columns are stored: in the table itself; a view's, in the one that it shows.
    pub fn stored(&self, id: TableId, columns: &[usize]) -> (TableId, Vec<usize>) {
        let origins: Option<Vec<_>> = columns.iter().map(|&column| self.tables[id].columns[column].origin).collect();
        match origins.as_deref() {
            Some([(table, _), ..]) => (*table, origins.iter().flatten().map(|origin| origin.1).collect()),
            _ => (id, columns.to_vec()),
        }
    }

    /// Every foreign key with the table that has it.
    pub fn foreign_keys(&self) -> impl Iterator<Item = (TableId, &ForeignKey)> {
        self.tables.iter().enumerate().flat_map(|(id, table)| table.foreign_keys.iter().map(move |key| (id, key)))
    }
}

impl Table {
    /// The table as it is to nobody in particular, related to no other.
    pub fn alone(&self) -> Table {
        let mut alone = Table { access: Access::Everything, foreign_keys: Vec::new(), ..self.clone() };
        alone.columns.iter_mut().for_each(|column| column.rights = Rights::default());
        alone
    }

    /// The column of this name, if it may be read.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.column_for(Command::Select, name)
    }

    /// The column of this name, if it is open to `command`.
    pub fn column_for(&self, command: Command, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name && column.rights.has(command))
    }

    /// The columns that may be read.
    pub fn readable(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.rights.has(Command::Select))
    }

    /// Whether its key may be read.
    pub fn key_is_readable(&self) -> bool {
        self.key.iter().all(|&column| self.columns[column].rights.has(Command::Select))
    }

    /// Whether no two rows have the same in these columns.
    pub fn is_unique(&self, columns: &[usize]) -> bool {
        self.unique.iter().any(|unique| unique.iter().all(|column| columns.contains(column)))
    }

    /// Whether rows can be found by these columns without reading all.
    pub fn is_indexed(&self, columns: &[usize]) -> bool {
        let begins = |index: &Vec<usize>| index.iter().take(columns.len()).all(|column| columns.contains(column));
        self.indexes.iter().chain(&self.unique).any(|index| index.len() >= columns.len() && begins(index))
    }
}

/// What is remembered of schemas, within bounds.
pub struct Schemas {
    /// By the file's handle: the version and what it was then.
    files: Cache<u64, (i64, Arc<Schema>)>,
    /// By the hash of the statements that make it.
    different: Cache<[u8; 32], Arc<Schema>>,
    policies: Arc<Policies>,
}

impl Schemas {
    /// With the policies that hold on all of them.
    pub fn new(policies: Arc<Policies>) -> Schemas {
        Schemas { files: Cache::new(FILES), different: Cache::new(DIFFERENT), policies }
    }

    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// The schema that `reader` sees of the file that `serial` numbers; it is in a snapshot.
    pub fn of(&self, serial: u64, reader: &Reader<'_>) -> Result<Arc<Schema>> {
        let version = version(reader)?;
        if let Some(known) = self.known(serial, version) {
            return Ok(known);
        }
        let schema = self.load(reader)?;
        self.files.insert(serial, (version, schema.clone()));
        Ok(schema)
    }

    /// The same inside a write, where a version may be one that is rolled back and then given to another schema: it
    /// is not remembered.
    pub fn within_write(&self, serial: u64, reader: &Reader<'_>) -> Result<Arc<Schema>> {
        match self.known(serial, version(reader)?) {
            Some(known) => Ok(known),
            None => self.load(reader),
        }
    }

    fn known(&self, serial: u64, version: i64) -> Option<Arc<Schema>> {
        self.files.get(&serial).filter(|(known, _)| *known == version).map(|(_, schema)| schema)
    }

    fn load(&self, reader: &Reader<'_>) -> Result<Arc<Schema>> {
        let hash = load::hash(reader)?;
        if let Some(known) = self.different.get(&hash) {
            return Ok(known);
        }
        let schema = Arc::new(load::schema(reader)?.under(self.policies.clone()));
        for (table, problem) in schema.problems().iter().take(PROBLEMS_LOGGED) {
            tracing::warn!(table, place = problem.place, "{}: the table is closed to every role but service", problem.message);
        }
        self.different.insert(hash, schema.clone());
        Ok(schema)
    }
}

fn version(reader: &Reader<'_>) -> Result<i64> {
    Ok(reader.row("PRAGMA schema_version", [], |row| row.get(0))?.unwrap_or_default())
}

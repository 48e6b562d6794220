//! A [`Function`] is SQL of the application's that is called by name: a file `functions/NAME.sql` beside its
//! migrations, in PostgreSQL's words. It runs with its definer's rights: no policy holds back the statements in it, and
//! so nobody but a service token may call it unless the file grants it. [`Functions`] are all of them, read once at start.
//!
//! A function's parameters are bound, its arguments are never text of a statement. In each statement the parameters are
//! `?1`, `?2`, … in their order; after them comes who calls: subject, role and token.

mod parse;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Value;

use super::access::Caller;
use super::policy::rules::{Access, Rights};
use super::refusal;
use super::schema::{Column, Schema, Shape, Table, TableId};
use super::value::Kind;
use crate::error::{Error, Result};
use crate::sqlite::Trial;

/// The longest file of a function, in bytes.
const FILE_MAX: u64 = 256 << 10;

/// To whom PostgreSQL grants what everybody may.
const PUBLIC: &str = "public";

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub parameters: Vec<Parameter>,
    pub returns: Returns,
    /// It may write.
    pub is_volatile: bool,
    /// Roles that may call it beside the service.
    granted: Vec<String>,
    /// At least one, unless nothing is returned. The rows of the last are the function's.
    pub statements: Vec<Text>,
}

#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    /// PostgreSQL's name of its type.
    pub declared: String,
    pub kind: Kind,
    pub default: Option<Value>,
}

/// One statement.
#[derive(Debug)]
pub struct Text {
    pub sql: String,
    /// The greatest number of a parameter in it.
    pub parameters: usize,
    /// Where it stands in the file.
    at: usize,
}

#[derive(Debug)]
pub enum Returns {
    Nothing,
    /// Values as they are, of a table with one column.
    Values {
        of: Arc<Schema>,
        many: bool,
    },
    /// Rows of columns of its own.
    Rows {
        of: Arc<Schema>,
    },
    /// Rows as those of one of the tenant's tables.
    Table {
        name: String,
        many: bool,
    },
}

impl Returns {
    /// An array, not one value or object.
    pub fn is_many(&self) -> bool {
        matches!(self, Returns::Rows { .. } | Returns::Values { many: true, .. } | Returns::Table { many: true, .. })
    }

    /// The schema and table that rows like its own are of, if there are any.
    pub fn shape(&self, tenants: &Arc<Schema>, caller: &Caller) -> Result<Option<(Arc<Schema>, TableId)>> {
        match self {
            Returns::Nothing => Ok(None),
            Returns::Values { of, .. } | Returns::Rows { of } => Ok(Some((of.clone(), 0))),
            Returns::Table { name, .. } => {
                // The rows are the caller's to see; what is embedded beside them is not always.
                let found = tenants.by_id().find(|(_, table)| table.name == *name);
                let (id, table) = found.ok_or_else(|| refusal::unknown_table(tenants, name))?;
                let seen = if caller.is_service() { tenants.clone() } else { Arc::new(tenants.opened(id, &table.alone())) };
                Ok(Some((seen, id)))
            }
        }
    }
}

impl Function {
    pub fn admits(&self, caller: &Caller) -> bool {
        caller.is_service() || self.granted.iter().any(|role| *role == caller.claims.role || role == PUBLIC)
    }

    /// `name(a, b)`
    pub fn signature(&self) -> String {
        let names: Vec<_> = self.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        format!("{}({})", self.name, names.join(", "))
    }

    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// Whether what it returns is known to have a column of this name. Of a tenant's table it is not known.
    pub fn has_column(&self, name: &str) -> bool {
        match &self.returns {
            Returns::Rows { of } => of.table(0).column(name).is_some(),
            Returns::Table { .. } => true,
            Returns::Nothing | Returns::Values { .. } => false,
        }
    }

    /// The methods it takes, as `Allow` lists them.
    pub fn methods(&self) -> &'static str {
        if self.is_volatile { "OPTIONS,POST" } else { "OPTIONS,GET,HEAD,POST" }
    }

    /// That SQLite takes every statement of it on a file as migrations make it. `Err`: where in the file, and why not.
    fn try_on(&self, trial: &Trial) -> Result<(), (usize, String)> {
        for (number, text) in (1..).zip(&self.statements) {
            let at = |offset: usize| text.at + offset;
            let judged = trial.judge(&text.sql).map_err(|flaw| (at(flaw.offset.unwrap_or(0)), flaw.message))?;
            if judged.changes_schema {
                return Err((at(0), "a function does not change the schema".to_owned()));
            }
            if !judged.reads && !self.is_volatile {
                return Err((at(0), "this writes, and the function is not VOLATILE".to_owned()));
            }
            if number == self.statements.len()
                && let Some(wanted) = self.width(trial).map_err(|why| (0, why))?
                && judged.columns != wanted
            {
                return Err((at(0), format!("the last statement has {} columns, and what is returned has {wanted}", judged.columns)));
            }
        }
        Ok(())
    }

    /// How many columns the last statement is to have; `None` for any number.
    fn width(&self, trial: &Trial) -> Result<Option<usize>, String> {
        match &self.returns {
            Returns::Nothing => Ok(None),
            Returns::Values { of, .. } | Returns::Rows { of } => Ok(Some(of.table(0).columns.len())),
            Returns::Table { name, .. } => {
                let all = format!("SELECT * FROM {}", super::expression::identifier(name));
                trial.judge(&all).map(|judged| Some(judged.columns)).map_err(|flaw| format!("RETURNS {name}: {}", flaw.message))
            }
        }
    }
}

/// A schema of one table that is no table of the tenant's.
fn shape_of(name: &str, columns: Vec<(String, String, Kind)>) -> Arc<Schema> {
    let column = |(name, declared, kind)| {
        let rights = Rights::default();
        Column { name, declared, kind, not_null: false, default: None, generated: false, origin: None, rights }
    };
    let columns = columns.into_iter().map(column).collect();
    let (key, unique, indexes, foreign_keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (shape, replaces, access) = (Shape::View, false, Access::Everything);
    let table = Table { name: name.to_owned(), shape, columns, key, unique, indexes, foreign_keys, replaces, access };
    Arc::new(Schema::of(vec![table]))
}

/// All functions, by name.
#[derive(Debug, Default)]
pub struct Functions(BTreeMap<String, Arc<Function>>);

impl Functions {
    /// Those of the folder; none if there is no such folder. Blocking. What is wrong is said with file, line and column.
    pub fn load(folder: &Path, trial: &Trial) -> Result<Functions> {
        let failed = |path: &Path, error: &std::io::Error| Error::bad_request(format!("functions: {}: {error}", path.display()));
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Functions::default()),
            Err(error) => return Err(failed(folder, &error)),
        };
        let mut functions = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(folder, &error))?.path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            if std::fs::metadata(&path).map_err(|error| failed(&path, &error))?.len() > FILE_MAX {
                return Err(Error::bad_request(format!("functions: {} has more than {FILE_MAX} bytes", path.display())));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let wrong = |(at, why): (usize, String)| {
                let (line, column) = place(&text, at);
                Error::bad_request(format!("{}:{line}:{column}: {why}", path.display()))
                    .hint("docs/rest.md has the form of a function's file.")
            };
            let function = parse::function(&text, &stem).map_err(wrong)?;
            function.try_on(trial).map_err(wrong)?;
            functions.insert(function.name.clone(), Arc::new(function));
        }
        Ok(Functions(functions))
    }

    /// The one of this name that `caller` may call. The others are not there for it.
    pub fn find(&self, caller: &Caller, name: &str) -> Option<&Arc<Function>> {
        self.0.get(name).filter(|function| function.admits(caller))
    }

    /// Those that `caller` may call.
    pub fn of(&self, caller: &Caller) -> impl Iterator<Item = &Function> {
        self.0.values().map(Arc::as_ref).filter(|function| function.admits(caller))
    }
}

/// Line and column, from 1, of a place in bytes.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    (before.iter().filter(|&&byte| byte == b'\n').count() + 1, column)
}

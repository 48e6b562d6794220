//! [`Sources`] are what an answer hangs on: the plain tables its query reads, as the authorizer named them. A query that
//! reads anything else, or calls what answers differently each time, is looked at here, in one place.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::reader::Reader;
use super::super::statement::Prepared;
use super::{ALL, Seen, VERSION};
use crate::error::{Code, Error, Result};

/// Tables that one answer may depend on; with more it depends on the whole file.
const TABLES_MAX: usize = 32;

/// Answer by the time of day, if their arguments say `now` or are left out.
const TIME: [&str; 10] =
    ["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff", "current_date", "current_time", "current_timestamp"];

/// SQLite does not say so of them, but they answer by the file alone.
const STEADY: [&str; 8] = ["bm25", "highlight", "snippet", "match", "matchinfo", "offsets", "sqlite_version", "sqlite_source_id"];

/// Table-valued functions that answer by their arguments alone.
const STEADY_TABLES: [&str; 2] = ["json_each", "json_tree"];

/// Whether it can be told later that an answer is current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    Seen(Seen),
    /// Once these are watched ([`Database::watch`](super::Database::watch)) and the answer is made again.
    Unwatched(Arc<[Box<str>]>),
}

impl Reader<'_> {
    /// What an answer of `query` made in this snapshot hangs on. To be asked again once it has run: some of it shows then.
    /// Errors: `sql_denied` for a query that never answers the same.
    pub fn sources(&self, query: &Prepared<'_>) -> Result<Sources> {
        let judged = query.judged();
        for name in &judged.calls {
            if !self.is_steady(name)? {
                return Err(Error::new(Code::SqlDenied, format!("what {name} answers cannot be remembered"))
                    .hint("Use it outside the remembered query, or send the query to /v1/sql."));
            }
        }
        let mut tables = BTreeSet::new();
        for name in &judged.reads {
            match self.kind(name)?.as_deref() {
                Some("view") => {}
                Some("table") if !name.starts_with("sqlite_") => drop(tables.insert(name.clone())),
                Some(_) => drop(tables.insert(ALL.into())),
                None if STEADY_TABLES.contains(&&**name) || !self.is_module(name)? => {}
                None => {
                    return Err(Error::new(Code::SqlDenied, format!("what {name} answers cannot be remembered"))
                        .hint("A remembered query reads the tenant's tables and views."));
                }
            }
        }
        if tables.contains(ALL) || tables.len() > TABLES_MAX {
            tables = [ALL.into()].into();
        }
        let (mut seen, mut unwatched) = (Vec::with_capacity(tables.len()), Vec::new());
        for name in tables {
            match self.row(VERSION, [&name], |row| row.get(0))? {
                Some(version) => seen.push((name, version)),
                None => unwatched.push(name),
            }
        }
        Ok(if unwatched.is_empty() { Sources::Seen(Seen(seen)) } else { Sources::Unwatched(unwatched.into()) })
    }

    fn is_steady(&self, function: &str) -> Result<bool> {
        /// 0x800 is SQLite's flag of a deterministic function; aggregates do not carry it.
        const DETERMINISTIC: &str =
            "SELECT count(*) > 0 AND sum(type = 's' AND flags & 0x800 = 0) = 0 FROM pragma_function_list WHERE name = ?1";
        if TIME.contains(&function) || STEADY.contains(&function) {
            return Ok(true);
        }
        Ok(self.row(DETERMINISTIC, [function], |row| row.get(0))?.unwrap_or(false))
    }

    /// `table`, `view`, `virtual` or `shadow`; none for what is no table of the file.
    fn kind(&self, name: &str) -> Result<Option<String>> {
        self.row("SELECT type FROM pragma_table_list(?1) WHERE schema = 'main'", [name], |row| row.get(0))
    }

    fn is_module(&self, name: &str) -> Result<bool> {
        Ok(self.row("SELECT 1 FROM pragma_module_list WHERE name = ?1", [name], |_| Ok(()))?.is_some())
    }
}

impl Prepared<'_> {
    /// Whether it may answer by the time of day.
    pub fn tells_time(&self) -> bool {
        self.judged().calls.iter().any(|name| TIME.contains(&&**name))
    }
}

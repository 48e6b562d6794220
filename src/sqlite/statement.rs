//! A tenant's statement: [`Prepared`] under the sandbox, checked by what it [`Needs`], bound, and stepped row by
//! row into whatever the caller encodes. Nothing of it is kept between the rows.
//!
//! The statement cache is the connection's, by text. A statement that our own code prepared is not taken from
//! it: only what the sandbox has judged before is.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::types::ValueRef;
use rusqlite::{Batch, CachedStatement, Row, Statement, ToSql, ffi};

use super::authorizer::{Needs, Sandbox};
use super::key_index;
use super::reader::Reader;
use super::session::Session;
use super::written::Judged;
use crate::error::{Code, Error, Result};

/// The longest text that the statement cache keeps, in bytes.
const CACHED_MAX: usize = 8 << 10;

/// Stands for every table.
pub const ANYTHING: &str = "*";

pub struct Prepared<'s> {
    session: &'s Session,
    statement: Handle<'s>,
    needs: Needs,
    judged: Arc<Mutex<Judged>>,
}

enum Handle<'s> {
    Cached(CachedStatement<'s>),
    Fresh(Statement<'s>),
}

impl<'s> Deref for Handle<'s> {
    type Target = Statement<'s>;

    fn deref(&self) -> &Statement<'s> {
        match self {
            Handle::Cached(statement) => statement,
            Handle::Fresh(statement) => statement,
        }
    }
}

impl DerefMut for Handle<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Handle::Cached(statement) => statement,
            Handle::Fresh(statement) => statement,
        }
    }
}

/// What a statement did beside its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    pub rows_affected: u64,
    /// Of the last row inserted, if one was and it has one.
    pub last_insert_rowid: Option<i64>,
}

impl<'s> Reader<'s> {
    /// Compiles one statement of a tenant's.
    pub fn prepare(&self, sql: &str) -> Result<Prepared<'s>> {
        let session = self.session;
        let Some(sandbox) = &session.sandbox else {
            return Err(Error::internal("tenants' SQL on a file that is not theirs", &sql));
        };
        if session.watch.due() {
            return Err(interrupted(session));
        }
        let prepared = self.compile(sandbox, sql)?;
        if prepared.needs.has(Needs::COSTLY) && session.watch.is_brief() {
            return Err(interrupted(session));
        }
        Ok(prepared)
    }

    fn compile(&self, sandbox: &Sandbox, sql: &str) -> Result<Prepared<'s>> {
        let session = self.session;
        session.gather();
        let confined = sandbox.confined();
        if sql.len() <= CACHED_MAX {
            let cached = session.conn.prepare_cached(sql).map_err(|error| blame(session, error))?;
            let judged = match confined.judged()? {
                Some(judged) => Some(session.remember(sql, true, judged)),
                None => session.known(sql, true),
            };
            if let Some(judged) = judged {
                return Ok(Prepared::new(session, Handle::Cached(cached), judged));
            }
            // In the cache, but never judged: compile it again.
        }
        let statement = session.conn.prepare(sql).map_err(|error| blame(session, error))?;
        let judged = confined.judged()?.map_or_else(|| unjudged(sql), Ok)?;
        Ok(Prepared::new(session, Handle::Fresh(statement), Arc::new(Mutex::new(judged))))
    }

    /// The statements of a script, compiled one after the other, each after the one before has run.
    pub fn script<'t>(&self, sql: &'t str) -> Script<'s, 't> {
        Script { session: self.session, batch: Batch::new(&self.session.conn, sql) }
    }
}

pub struct Script<'s, 't> {
    session: &'s Session,
    batch: Batch<'s, 't>,
}

impl<'s> Script<'s, '_> {
    /// The next statement, compiled; none after the last.
    pub fn advance(&mut self) -> Result<Option<Prepared<'s>>> {
        let Some(sandbox) = &self.session.sandbox else {
            return Err(Error::internal("tenants' SQL on a file that is not theirs", &"a script"));
        };
        if self.session.watch.due() {
            return Err(interrupted(self.session));
        }
        self.session.gather();
        let confined = sandbox.confined();
        // By its full name: `Batch` has it from a trait that is not ours to import here.
        let next = fallible_next(&mut self.batch).map_err(|error| blame(self.session, error))?;
        let Some(statement) = next else { return Ok(None) };
        let judged = match confined.judged()? {
            Some(judged) => judged,
            None => unjudged(&statement.expanded_sql().unwrap_or_default())?,
        };
        Ok(Some(Prepared::new(self.session, Handle::Fresh(statement), Arc::new(Mutex::new(judged)))))
    }
}

fn fallible_next<'s>(batch: &mut Batch<'s, '_>) -> rusqlite::Result<Option<Statement<'s>>> {
    use rusqlite::fallible_iterator::FallibleIterator;
    batch.next()
}

impl<'s> Prepared<'s> {
    fn new(session: &'s Session, statement: Handle<'s>, judged: Arc<Mutex<Judged>>) -> Prepared<'s> {
        let needs = judged.lock().unwrap_or_else(PoisonError::into_inner).needs;
        Prepared { session, statement, needs, judged }
    }

    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// What is known of it until now.
    pub(super) fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What SQLite says of it, not its text. A CREATE or DROP TRIGGER IF … EXISTS with nothing to do counts as one that
    /// only reads, and writes when its step compiles it anew: what may change the schema is never taken for one.
    pub fn is_readonly(&self) -> bool {
        self.statement.readonly() && !self.needs.has(Needs::SCHEMA)
    }

    /// That it reads these tables only, by what the authorizer was told of it. `sql_denied` for another one; with
    /// [`ANYTHING`] among them there is none.
    pub fn keeps_to(&self, tables: &[String]) -> Result<()> {
        if tables.iter().any(|table| table == ANYTHING) {
            return Ok(());
        }
        // FTS5's own statements read tables of the table's name with something behind it.
        let known = |read: &str, table: &str| {
            let rest = read.get(..table.len()).filter(|begin| begin.eq_ignore_ascii_case(table)).map(|_| &read[table.len()..]);
            rest.is_some_and(|rest| rest.is_empty() || ["_data", "_idx", "_content", "_docsize", "_config"].contains(&rest))
        };
        // It also asks whether the file was written, which is noted as a read of sqlite_master.
        let own = ["json_each", "sqlite_master"];
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        match judged.reads.iter().find(|read| !own.contains(&read.as_ref()) && !tables.iter().any(|table| known(read, table))) {
            None => Ok(()),
            Some(read) => Err(Error::new(Code::SqlDenied, format!("table {read} is not allowed here"))
                .hint("Nothing has said which of its rows may be seen.")),
        }
    }

    /// Once it has run, or from its rows ([`Cells::columns`]): one that was remembered compiled is compiled anew, where the
    /// schema has changed, by its first step.
    pub fn columns(&self) -> Vec<&str> {
        self.statement.column_names()
    }

    /// Binds `?1`, `?2`, … in order.
    pub fn bind_all<V: ToSql>(&mut self, values: &[V]) -> Result<()> {
        let wanted = self.statement.parameter_count();
        if values.len() != wanted {
            return Err(rusqlite::Error::InvalidParameterCount(values.len(), wanted).into());
        }
        for (index, value) in (1..).zip(values) {
            self.statement.raw_bind_parameter(index, value)?;
        }
        Ok(())
    }

    /// Binds by name; a name may leave out its `:`, `@` or `$`. Every parameter wants a value, every value a
    /// parameter.
    pub fn bind_named<N: AsRef<str>, V: ToSql>(&mut self, values: &[(N, V)]) -> Result<()> {
        let wanted = self.statement.parameter_count();
        if values.len() != wanted {
            return Err(rusqlite::Error::InvalidParameterCount(values.len(), wanted).into());
        }
        for (name, value) in values {
            let index = self.parameter(name.as_ref())?;
            self.statement.raw_bind_parameter(index, value)?;
        }
        Ok(())
    }

    /// Binds by position and by name; where both name a parameter, the name wins. Every parameter wants a value, every
    /// value a parameter.
    pub fn bind<'v, V: ToSql + 'v>(&mut self, positional: &'v [V], named: impl Iterator<Item = (&'v str, &'v V)>) -> Result<()> {
        let wanted = self.statement.parameter_count();
        if positional.len() > wanted {
            return Err(rusqlite::Error::InvalidParameterCount(positional.len(), wanted).into());
        }
        for (index, value) in (1..).zip(positional) {
            self.statement.raw_bind_parameter(index, value)?;
        }
        let mut bound = vec![false; wanted];
        bound[..positional.len()].fill(true);
        for (name, value) in named {
            let index = self.parameter(name)?;
            self.statement.raw_bind_parameter(index, value)?;
            bound[index - 1] = true;
        }
        match bound.iter().position(|bound| !bound) {
            None => Ok(()),
            Some(at) => {
                let name = self.statement.parameter_name(at + 1).map_or_else(|| format!("?{}", at + 1), str::to_owned);
                Err(Error::new(Code::SqlError, format!("the parameter {name} has no value")))
            }
        }
    }

    /// The place of the parameter of this name, from 1.
    fn parameter(&self, name: &str) -> Result<usize> {
        let index = match name.as_bytes().first() {
            Some(b':' | b'@' | b'$' | b'?') => self.statement.parameter_index(name)?,
            _ => [':', '@', '$'].into_iter().find_map(|sigil| self.statement.parameter_index(&format!("{sigil}{name}")).ok()?),
        };
        Ok(index.ok_or_else(|| rusqlite::Error::InvalidParameterName(name.to_owned()))?)
    }

    /// The parameters' names with their first character, in the order of their places; none for `?`.
    pub fn parameters(&self) -> impl Iterator<Item = Option<&str>> {
        (1..=self.statement.parameter_count()).map(|index| self.statement.parameter_name(index))
    }

    /// Each column's name and, where it comes straight from a table, its declared type.
    pub fn columns_declared<T>(&self, column: impl Fn(&str, Option<&str>) -> T) -> Vec<T> {
        self.statement.columns().iter().map(|one| column(one.name(), one.decl_type())).collect()
    }

    /// EXPLAIN or EXPLAIN QUERY PLAN.
    pub fn is_explain(&self) -> bool {
        self.statement.is_explain() != 0
    }

    /// Steps through the rows. An `Err` of `on_row` ends it. What is refused after SQLite has written it takes its whole
    /// transaction with it, as SQLite does where it cannot undo a statement alone: whoever goes on after the error must
    /// not be able to commit it.
    pub fn run(&mut self, mut on_row: impl FnMut(&Cells<'_>) -> Result<()>) -> Result<Effect> {
        let session = self.session;
        let conn = &session.conn;
        session.gather();
        if self.needs.has(Needs::SCHEMA) {
            session.note_our_names()?;
            let altered = self.judged().alters.clone();
            if let Some(table) = altered {
                key_index::drop_of(conn, &table)?;
                session.gather();
            }
        }
        let confined = session.sandbox.as_ref().map(|sandbox| sandbox.confined());
        let inserts = self.needs.has(Needs::INSERT);
        let asks_rowid = self.needs.has(Needs::LAST_ROWID);
        if inserts && !asks_rowid {
            // SAFETY: the handle is the open connection's. So that a stale rowid is not taken for a new one; unless the
            // statement itself asks for that of the one before.
            unsafe { ffi::sqlite3_set_last_insert_rowid(conn.handle(), 0) };
        }
        let writes = !self.is_readonly();
        let changes = self.needs.has(Needs::WRITE) && !self.needs.has(Needs::SCHEMA) && writes;
        if writes {
            session.touched.set(true);
        }
        let schema = if self.needs.has(Needs::SCHEMA) { Some(session.schema_version()?) } else { None };
        let mut rows = self.statement.raw_query();
        let stepped = loop {
            match rows.next() {
                Ok(Some(row)) => {
                    if let Err(refused) = on_row(&Cells { row, width: row.as_ref().column_count() }) {
                        break Ok(Err(refused));
                    }
                }
                Ok(None) => break Ok(Ok(())),
                Err(error) => break Err(error),
            }
        };
        drop((rows, confined));
        let anew = session.sandbox.as_ref().and_then(|sandbox| sandbox.compiled());
        // A table that is to be made only if it is not there, and is, is compiled as one that writes.
        let idle = stepped.is_ok() && schema.is_some() && schema == session.schema_version().ok();
        if !idle && (writes || anew.is_some()) {
            // Also of one that failed: what it did until then may stay.
            session.wrote(&self.judged, anew);
        }
        let mut done = stepped.map_err(|error| blame(session, error))?;
        if done.is_ok() && self.needs.has(Needs::SCHEMA) {
            done = keep_our_names(session);
        }
        if done.is_err() && writes {
            super::writer::roll_back(session);
        }
        done.map(|()| {
            let rows_affected = if changes { conn.changes() } else { 0 };
            let is_new = |&rowid: &i64| inserts && rowid != 0 && (!asks_rowid || rows_affected > 0);
            Effect { rows_affected, last_insert_rowid: Some(conn.last_insert_rowid()).filter(is_new) }
        })
    }
}

/// The values of one row, valid until the next step.
pub struct Cells<'r> {
    row: &'r Row<'r>,
    width: usize,
}

impl Cells<'_> {
    pub fn columns(&self) -> Vec<&str> {
        self.row.as_ref().column_names()
    }

    pub fn iter(&self) -> impl Iterator<Item = ValueRef<'_>> {
        (0..self.width).map(|index| self.row.get_ref(index).unwrap_or(ValueRef::Null))
    }
}

/// What SQLite would say, had it been asked.
fn interrupted(session: &Session) -> Error {
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), Some("interrupted".to_owned()));
    super::writer::explain(session, error.into())
}

/// The authorizer is not told the new name of ALTER TABLE … RENAME. A table of a tenant's under one of our names
/// would be in the way of a later migration, or in the place of a table of ours.
fn keep_our_names(session: &Session) -> Result<()> {
    let shadowing = "SELECT count(*) FROM temp.sqlite_schema WHERE substr(lower(name), 1, 10) = '_tenantry_'";
    let shadowing: i64 = session.conn.query_row(shadowing, [], |row| row.get(0))?;
    if shadowing == 0 && session.has_our_names()? {
        return Ok(());
    }
    Err(Error::new(Code::SqlDenied, "a name that begins with _tenantry_ is not allowed here")
        .hint("Names that begin with _tenantry_ are kept for Tenantry's own tables."))
}

/// Whether the text is one plain `VACUUM` of the tenant's database.
pub fn is_vacuum(sql: &str) -> bool {
    let mut words = sql.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == ';').split_ascii_whitespace();
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("vacuum"))
        && words.next().is_none_or(|word| word.eq_ignore_ascii_case("main"))
        && words.next().is_none()
}

/// Whether a statement is worth asking a reader, by its first word. Wrong answers cost time only.
pub fn may_only_read(sql: &str) -> bool {
    const WRITES: [&str; 10] = ["insert", "update", "delete", "replace", "create", "drop", "alter", "analyze", "reindex", "vacuum"];
    let sql = sql.trim_start();
    let word = &sql[..sql.bytes().take_while(u8::is_ascii_alphabetic).count()];
    !WRITES.iter().any(|writes| word.eq_ignore_ascii_case(writes))
}

/// What a statement needs that SQLite compiled without asking the authorizer, since there is nothing to be done: a
/// table that is to be made only if it is not there, and is. A VACUUM is compiled in this way too.
fn unjudged(sql: &str) -> Result<Judged> {
    match without_comments(sql) {
        "" => Err(Error::new(Code::SqlError, "there is no statement in this \"sql\"")),
        text if text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("vacuum")) => {
            Err(Error::new(Code::SqlDenied, "VACUUM is not allowed in a transaction, nor VACUUM INTO at all")
                .hint("Send a plain VACUUM as the only statement, with \"transaction\":\"none\"."))
        }
        _ => Ok(Judged { needs: Needs::SCHEMA, ..Judged::default() }),
    }
}

/// The text from its first word on.
fn without_comments(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';');
        let (opened, end) = match rest.get(..2) {
            Some("--") => (&rest[2..], "\n"),
            Some("/*") => (&rest[2..], "*/"),
            _ => return rest,
        };
        rest = opened.split_once(end).map_or("", |(_, after)| after);
    }
}

/// SQLite's error, or the sandbox's reason where it was the sandbox that refused.
fn blame(session: &Session, error: rusqlite::Error) -> Error {
    let Some(sandbox) = &session.sandbox else { return error.into() };
    // What was not compiled to its end is not run.
    drop(sandbox.compiled());
    sandbox.denial().unwrap_or_else(|| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_its_comments_begins_with_a_word() {
        for (sql, rest) in [("", ""), (" ;-- x", ""), ("/* a */ -- b\n;VACUUM INTO 'x'", "VACUUM INTO 'x'"), ("/* open", ""), ("-", "-")] {
            assert_eq!(without_comments(sql), rest, "{sql:?}");
        }
    }

    #[test]
    fn only_a_plain_vacuum_is_one() {
        assert!(is_vacuum("vacuum") && is_vacuum(" VACUUM main ;\n"));
        assert!(!is_vacuum("VACUUM INTO 'x'") && !is_vacuum("VACUUM main INTO 'x'") && !is_vacuum("SELECT 1"));
    }

    #[test]
    fn the_first_word_only_ever_sends_to_the_writer() {
        assert!(may_only_read(" select 1") && may_only_read("WITH x AS (SELECT 1) DELETE FROM t") && may_only_read("-- c\nDELETE FROM t"));
        assert!(!may_only_read("\n INSERT INTO t VALUES (1)") && !may_only_read("replace into t values (1)"));
        assert!(may_only_read("") && may_only_read("ü"));
    }
}

//! [`Reader`] and [`WriteTx`]: what a closure on a lane may do with a connection. A `Reader` cannot write: its
//! connection refuses to, and the type has no way to ask. A `WriteTx` can write but not commit.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;

use rusqlite::{Params, Row};

use super::draft::{Allowance, Draft};
use super::room::Gauge;
use super::session::Session;
use crate::error::{Error, Result};

/// A connection that reads. Outside [`Reader::snapshot`] each statement sees the newest commit.
pub struct Reader<'a> {
    pub(super) session: &'a Session,
    answers: &'a Arc<Allowance>,
    in_snapshot: Cell<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(session: &'a Session, answers: &'a Arc<Allowance>) -> Reader<'a> {
        Reader { session, answers, in_snapshot: Cell::new(false) }
    }

    /// For the answer that is made of what is read here.
    pub fn draft(&self) -> Draft<'a> {
        Draft::new(self.answers)
    }

    /// From here on all statements see the same commit. Ends with the closure.
    pub fn snapshot(&self) -> Result<()> {
        if self.session.conn.is_autocommit() {
            // First: a BEGIN that is stopped may have begun.
            self.in_snapshot.set(true);
            self.session.conn.prepare_cached("BEGIN")?.execute([])?;
        }
        Ok(())
    }

    /// Whether a transaction is open: some errors end the one that was.
    pub fn in_transaction(&self) -> bool {
        !self.session.conn.is_autocommit()
    }

    /// Whether it runs where it must not take long, and is run again on a lane if it fails.
    pub fn is_brief(&self) -> bool {
        self.session.watch.is_brief()
    }

    /// Whether the transaction would fail to commit for a foreign key that is not satisfied.
    pub fn unmet_foreign_key(&self) -> Option<Error> {
        self.session.has_unmet_foreign_keys().then(super::writer::unmet_foreign_key)
    }

    /// The first row, if any. Statements are cached by their text, so `sql` should be one of few.
    pub fn row<T>(&self, sql: &str, params: impl Params, f: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>) -> Result<Option<T>> {
        Ok(self.session.own(sql, |statement| statement.query(params)?.next()?.map(f).transpose())?)
    }

    /// Every row.
    pub fn rows<T>(&self, sql: &str, params: impl Params, f: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        Ok(self.session.own(sql, |statement| statement.query_map(params, f)?.collect())?)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if self.in_snapshot.get() {
            super::writer::roll_back(self.session);
        }
    }
}

/// The writer inside a transaction that somebody else commits.
pub struct WriteTx<'a> {
    reader: Reader<'a>,
}

impl<'a> WriteTx<'a> {
    pub(super) fn new(session: &'a Session, answers: &'a Arc<Allowance>) -> WriteTx<'a> {
        WriteTx { reader: Reader::new(session, answers) }
    }

    /// The number of rows changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        Ok(self.reader.session.own(sql, |statement| statement.execute(params))?)
    }

    /// Runs several statements without parameters; for migrations.
    pub fn batch(&self, sql: &str) -> Result<()> {
        let session = self.reader.session;
        session.touched.set(true);
        let outcome = session.conn.execute_batch(sql);
        session.gather();
        Ok(outcome?)
    }

    /// Has the transaction count as one that wrote everything.
    pub(super) fn wrote_everything(&self) {
        self.reader.session.wrote_everything();
    }

    /// (bytes of a page, the most pages the file may have)
    pub fn page_bounds(&self) -> (u64, u64) {
        (self.reader.session.page_bytes, self.reader.session.max_pages)
    }

    pub(super) fn gauge(&self) -> &Gauge {
        &self.reader.session.gauge
    }

    pub fn last_insert_rowid(&self) -> i64 {
        self.reader.session.conn.last_insert_rowid()
    }
}

impl<'a> Deref for WriteTx<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

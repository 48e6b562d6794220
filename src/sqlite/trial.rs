//! A [`Trial`] is a tenant's file as the migrations make it, in memory and without rows: on it SQL of the application is
//! compiled before anybody's file is asked to run it.

use std::sync::Arc;

use rusqlite::Connection;

use super::authorizer::Needs;
use super::draft::Allowance;
use super::migrate::{Course, Failure, Migrations, bring, unwatched};
use super::reader::Reader;
use super::session::Session;
use crate::error::{Error, Result};

pub struct Trial {
    session: Session,
    answers: Arc<Allowance>,
}

/// What SQLite says of a statement.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// It writes nothing.
    pub reads: bool,
    pub changes_schema: bool,
    pub columns: usize,
}

/// Why it does not compile.
#[derive(Debug)]
pub struct Flaw {
    pub message: String,
    /// In bytes of the statement, where SQLite knows.
    pub offset: Option<usize>,
}

impl Trial {
    /// Blocking, as is all of it.
    pub fn on(sets: &[Arc<Migrations>]) -> Result<Trial> {
        let make = || -> Result<Trial, Failure> {
            let conn = Connection::open_in_memory()?;
            bring(&conn, sets, Course::Up, None, &unwatched)?;
            Ok(Trial { session: Session::in_memory(conn)?, answers: Allowance::unbounded() })
        };
        make().map_err(|failure| match failure {
            Failure::Sqlite(error) => Error::bad_request(format!("the migrations do not run on an empty file: {error}")),
            Failure::Refused(error) => error,
        })
    }

    /// The schema is there to be read.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.session, &self.answers)
    }

    /// Compiles one statement as a tenant's, and does not run it.
    pub fn judge(&self, sql: &str) -> Result<Judged, Flaw> {
        // What the one before was compiled to, if it was not compiled to its end.
        let sandbox = self.session.sandbox.as_ref().ok_or_else(|| Flaw { message: "there is no sandbox".to_owned(), offset: None })?;
        drop(sandbox.compiled());
        let confined = sandbox.confined();
        let statement = self.session.conn.prepare(sql).map_err(|error| self.flaw(error))?;
        let needs = match confined.judged() {
            Ok(judged) => judged.unwrap_or_default().needs,
            Err(error) => return Err(Flaw { message: error.message().to_owned(), offset: None }),
        };
        Ok(Judged { reads: statement.readonly(), changes_schema: needs.has(Needs::SCHEMA), columns: statement.column_count() })
    }

    fn flaw(&self, error: rusqlite::Error) -> Flaw {
        if let Some(denied) = self.session.sandbox.as_ref().and_then(|sandbox| sandbox.denial()) {
            return Flaw { message: denied.message().to_owned(), offset: None };
        }
        match error {
            rusqlite::Error::SqlInputError { msg, offset, .. } => Flaw { message: msg, offset: usize::try_from(offset).ok() },
            other => Flaw { message: other.to_string(), offset: None },
        }
    }
}

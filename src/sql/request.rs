//! What `POST /v1/sql` takes: `{"statements":[{"sql","params"}],"transaction","integers"}` or `{"script"}`.

use serde::Deserialize;

use super::encode::Integers;
use super::params::Params;
use crate::error::{Error, Result};
use crate::sqlite::may_only_read;

/// Statements in one request.
pub const STATEMENTS_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    pub statements: Option<Vec<Statement>>,
    #[serde(default)]
    pub script: Option<String>,
    /// `None`: reads go to a reader, anything else is one write transaction.
    #[serde(default)]
    pub transaction: Option<Mode>,
    #[serde(default)]
    pub integers: Integers,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    pub sql: String,
    #[serde(default)]
    pub params: Params,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One transaction on the writer.
    Write,
    /// One snapshot; a statement that writes is refused.
    Read,
    /// Each statement commits by itself.
    None,
}

/// A request that makes sense.
#[derive(Debug)]
pub enum Work {
    Statements(Vec<Statement>),
    Script(String),
}

impl Request {
    /// Statements in one transaction.
    pub(super) fn of(statements: Vec<Statement>) -> Request {
        Request { statements: Some(statements), script: None, transaction: None, integers: Integers::default() }
    }

    pub(super) fn work(&mut self) -> Result<Work> {
        let both = "Send either \"statements\" or \"script\".";
        match (self.statements.take(), self.script.take()) {
            (Some(statements), None) if statements.is_empty() => Err(Error::bad_request("\"statements\" is empty").hint(both)),
            (Some(statements), None) if statements.len() > STATEMENTS_MAX => {
                Err(Error::bad_request(format!("more than {STATEMENTS_MAX} statements in one request"))
                    .hint("Send several requests, or a script."))
            }
            (Some(statements), None) => Ok(Work::Statements(statements)),
            (None, Some(_)) if matches!(self.transaction, Some(Mode::None)) => {
                Err(Error::bad_request("a script is always one transaction").hint("Send \"statements\" for \"transaction\":\"none\"."))
            }
            (None, Some(script)) => Ok(Work::Script(script)),
            _ => Err(Error::bad_request("neither or both of \"statements\" and \"script\"").hint(both)),
        }
    }
}

impl Work {
    /// Whether it is worth asking a reader. Wrong answers cost time only.
    pub fn may_only_read(&self) -> bool {
        match self {
            Work::Statements(statements) => statements.iter().all(|statement| may_only_read(&statement.sql)),
            Work::Script(_) => false,
        }
    }
}

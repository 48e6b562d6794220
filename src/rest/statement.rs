//! A [`Statement`] and how it comes by its values: what a request or a policy says is bound, never text. Its [`Binder`]
//! knows of each value where it came from, so that the statement can be bound again for another request of the same
//! outline ([`super::stencil`]), and which tables [`super::access`] was asked for.

use std::sync::Arc;

use rusqlite::types::Value;

use super::access::Caller;
use super::policy::Auth;
use super::reading::Reading;

/// A statement and what it is bound to.
#[derive(Debug, Default)]
pub struct Statement {
    pub sql: String,
    pub values: Vec<Value>,
    /// The only tables that it may read, where policies hold its caller back: those that [`super::access`] was asked for.
    pub reads: Option<Arc<[String]>>,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum Slot {
    /// From what requests of one outline have in common.
    Common(Value),
    /// From the literal of this number.
    Literal(usize, Reading),
    /// From who calls.
    Who(Auth),
    /// Of what is given with the request: a function's parameter, by its place.
    Given(usize),
    Limit,
    Offset,
}

/// The values of a statement being written.
#[derive(Debug, Default)]
pub struct Binder {
    values: Vec<Value>,
    /// Of each value; of none, once one was bound that is this request's alone.
    slots: Option<Vec<Slot>>,
    reads: Vec<String>,
}

impl Binder {
    /// For a statement that may be remembered, unless [`Binder::bind`] is called.
    pub fn remembering() -> Binder {
        Binder { slots: Some(Vec::new()), ..Binder::default() }
    }

    /// The same, whose first parameters are what is given.
    pub fn given(values: Vec<Value>) -> Binder {
        let slots = (0..values.len()).map(Slot::Given).collect();
        Binder { values, slots: Some(slots), ..Binder::default() }
    }

    /// Whose first parameters are these.
    pub fn after(values: Vec<Value>) -> Binder {
        Binder { values, ..Binder::default() }
    }

    /// The parameter that stands for `value`, which is of this request alone.
    pub fn bind(&mut self, value: impl Into<Value>) -> String {
        self.slots = None;
        self.push(value.into())
    }

    /// The parameter that stands for `value`, which came from `slot`.
    pub fn bind_from(&mut self, slot: Slot, value: Value) -> String {
        self.slots.iter_mut().for_each(|slots| slots.push(slot.clone()));
        self.push(value)
    }

    /// The same of a value that all requests of the outline have.
    pub fn bind_common(&mut self, value: impl Into<Value>) -> String {
        let value = value.into();
        self.bind_from(Slot::Common(value.clone()), value)
    }

    /// The same of what `auth` asks of the caller.
    pub fn bind_who(&mut self, auth: &Auth, caller: &Caller) -> String {
        self.bind_from(Slot::Who(auth.clone()), caller.answer(auth))
    }

    fn push(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    /// Of each value where it came from, if the statement may be remembered.
    pub fn slots(&mut self) -> Option<Vec<Slot>> {
        self.slots.take()
    }

    /// Takes note that [`super::access`] was asked for these tables.
    pub fn admit(&mut self, tables: &[String]) {
        self.reads.extend_from_slice(tables);
    }

    pub fn statement(self, sql: String) -> Statement {
        Statement { sql, values: self.values, reads: None }
    }

    /// One that only reads, and for a caller who is held back only what [`super::access`] was asked for.
    pub fn reading(self, sql: String, caller: &Caller) -> Statement {
        let reads = (!caller.is_service()).then(|| self.reads.into());
        Statement { sql, values: self.values, reads }
    }
}

#[cfg(test)]
mod tests {
    use super::super::execute;
    use super::*;
    use crate::error::Code;
    use crate::sqlite::{Migrations, Trial};

    const SCHEMA: &str = "CREATE TABLE open(x); CREATE TABLE closed(y); CREATE VIEW shown AS SELECT y FROM closed;
        CREATE VIRTUAL TABLE words USING fts5(text);";

    /// A plan that forgot to ask for a table is none that is run, whatever it was made of.
    #[test]
    fn a_statement_reads_no_table_that_nobody_asked_for() {
        let migrations = Migrations::from_files("belt", [("0001_belt.up.sql", SCHEMA)]).unwrap();
        let trial = Trial::on(&[Arc::new(migrations)]).unwrap();
        let run = |sql: &str, asked: &[&str]| {
            let mut binder = Binder::default();
            binder.admit(&asked.iter().map(|table| (*table).to_owned()).collect::<Vec<_>>());
            let statement = Statement { reads: Some(binder.reads.clone().into()), ..binder.statement(sql.to_owned()) };
            execute(&trial.reader(), &statement, |_| Ok(())).map(drop)
        };
        // Twice: the second time it is remembered compiled.
        for _ in 0..2 {
            for (sql, asked) in [
                ("SELECT x FROM open", &["OPEN"][..]),
                ("SELECT x, value FROM open, json_each('[1]')", &["open"]),
                ("SELECT x FROM open WHERE x IN (SELECT y FROM closed)", &["open", "closed"]),
                ("SELECT y FROM shown", &["shown", "closed"]),
                ("SELECT y FROM shown", &["shown", "*"]),
                ("SELECT text FROM words WHERE words MATCH 'a'", &["words"]),
            ] {
                assert!(run(sql, asked).is_ok(), "{sql} {asked:?}");
            }
            for (sql, asked) in [
                ("SELECT y FROM closed", &["open"][..]),
                ("SELECT y FROM closed", &[]),
                ("SELECT x FROM open WHERE EXISTS (SELECT 1 FROM closed)", &["open"]),
                ("SELECT (SELECT count(*) FROM closed) FROM open", &["open"]),
                ("SELECT x FROM open ORDER BY (SELECT y FROM closed)", &["open"]),
                ("WITH open AS (SELECT y AS x FROM closed) SELECT x FROM open", &["open"]),
                ("SELECT y FROM shown", &["shown"]),
                ("SELECT x FROM open UNION ALL SELECT text FROM words", &["open"]),
            ] {
                let Err(error) = run(sql, asked) else { panic!("{sql} was run, and {asked:?} were asked for") };
                assert_eq!(error.code(), Code::SqlDenied, "{sql}: {error}");
            }
        }
    }
}

//! A [`Statement`] and how it comes by its values: what a request or a policy says is bound, never text.

use rusqlite::types::Value;

use super::access::Caller;

/// A statement and what it is bound to.
#[derive(Debug, Default)]
pub struct Statement {
    pub sql: String,
    pub values: Vec<Value>,
    /// The only tables that it may read, where policies hold its caller back: those that [`access`](super::access) was asked for.
    pub reads: Option<Vec<String>>,
}

/// The values of a statement being written.
#[derive(Debug, Default)]
pub struct Binder {
    values: Vec<Value>,
    reads: Vec<String>,
}

impl Binder {
    /// The parameter that stands for `value`.
    pub fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    /// Whose first parameters are bound to these.
    pub fn of(values: Vec<Value>) -> Binder {
        Binder { values, ..Binder::default() }
    }

    /// Whose first parameters are `count` values that are put there later.
    pub fn behind(count: usize) -> Binder {
        Binder { values: vec![Value::Null; count], ..Binder::default() }
    }

    pub fn statement(self, sql: String) -> Statement {
        Statement { sql, values: self.values, reads: None }
    }

    /// Takes note that [`access`](super::access) was asked for these tables.
    pub fn admit(&mut self, tables: &[String]) {
        self.reads.extend_from_slice(tables);
    }

    /// One that only reads, and for a caller who is held back only what [`access`](super::access) was asked for.
    pub fn reading(self, sql: String, caller: &Caller) -> Statement {
        let reads = (!caller.is_service()).then_some(self.reads);
        Statement { sql, values: self.values, reads }
    }
}

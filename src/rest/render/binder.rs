//! A [`Binder`] has the values of a statement being written, and knows of each where it came from, so that the statement
//! can be bound again for another request of the same outline ([`super::super::stencil`]).

use rusqlite::types::Value;

use super::super::access::Caller;
use super::super::policy::Auth;
use super::super::reading::Reading;

/// A statement and what it is bound to.
#[derive(Debug, Default)]
pub struct Statement {
    pub sql: String,
    pub values: Vec<Value>,
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
    Limit,
    Offset,
}

#[derive(Debug, Default)]
pub struct Binder {
    values: Vec<Value>,
    /// Of each value; of none, once one was bound that is this request's alone.
    slots: Option<Vec<Slot>>,
}

impl Binder {
    /// For a statement that may be remembered, unless [`Binder::bind`] is called.
    pub fn remembering() -> Binder {
        Binder { slots: Some(Vec::new()), ..Binder::default() }
    }

    /// Whose first parameters are these.
    pub fn after(values: Vec<Value>) -> Binder {
        Binder { values, slots: None }
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

    pub fn statement(self, sql: String) -> Statement {
        Statement { sql, values: self.values }
    }
}

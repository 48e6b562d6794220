//! A [`Stencil`] is the statement of a read, or of a call that only reads, with its values left open. Requests that differ in their literals only have
//! one outline ([`super::outline`]) and so one stencil; for the second of them nothing is parsed, planned or rendered.
//!
//! A stencil is known by the outline and by the schema as its caller's role sees it, policies included: both are in its
//! key. What else a statement is bound to (who calls, where the page begins) has a [`Slot`]; one with a value that has
//! none is never kept.

use std::sync::Arc;

use moka::sync::Cache;
use rusqlite::types::Value;

use super::Task;
use super::access::Caller;
use super::reading::Reading;
use super::render::Member;
use super::schema::Schema;
use super::statement::{Slot, Statement};
use super::{conditions, refusal};
use crate::error::Result;

/// Of all stencils together, in bytes.
const BYTES: u64 = 32 << 20;

/// A longer one is not kept, in bytes.
const LONGEST: usize = 32 << 10;

#[derive(Debug)]
pub struct Stencil {
    sql: String,
    pub members: Vec<Member>,
    slots: Vec<Slot>,
    reads: Option<Arc<[String]>>,
}

impl Stencil {
    pub fn new(statement: &Statement, members: Vec<Member>, slots: Vec<Slot>) -> Stencil {
        Stencil { sql: statement.sql.clone(), members, slots, reads: statement.reads.clone() }
    }

    /// The statement for `task`, with what is given to a function. `Err` where a literal cannot be read, or needs a statement of its own.
    pub fn filled(&self, task: &Task, caller: &Caller, given: &[Value]) -> Result<Statement> {
        let value = |slot: &Slot| {
            Ok(match slot {
                Slot::Common(value) => value.clone(),
                Slot::Literal(number, reading) => {
                    let text = task.outline.literal(*number);
                    // A long pattern may raise, and this statement may have been made for a short one, without a guard.
                    if matches!(reading, Reading::Like | Reading::Ilike) && conditions::is_long(text) {
                        return Err(refusal::not_here("a long pattern in a statement made for another"));
                    }
                    reading.read(text)?
                }
                Slot::Who(auth) => caller.answer(auth),
                Slot::Given(at) => given.get(*at).cloned().unwrap_or(Value::Null),
                Slot::Limit => Value::Integer(task.page.limit_bound().unwrap_or(-1)),
                Slot::Offset => Value::Integer(task.page.offset_bound()),
            })
        };
        let values = self.slots.iter().map(value).collect::<Result<_>>()?;
        Ok(Statement { sql: self.sql.clone(), values, reads: self.reads.clone() })
    }
}

/// Those that are remembered, within bounds.
pub struct Stencils(Cache<Box<[u8]>, Arc<Stencil>>);

impl Default for Stencils {
    fn default() -> Self {
        // As moka hands the key.
        #[allow(clippy::borrowed_box)]
        let weigher = |key: &Box<[u8]>, stencil: &Arc<Stencil>| {
            let members: usize = stencil.members.iter().map(|member| 2 * member.name.len() + 64).sum();
            u32::try_from(key.len() + stencil.sql.len() + members + 64 * stencil.slots.len() + 200).unwrap_or(u32::MAX)
        };
        Stencils(Cache::builder().max_capacity(BYTES).weigher(weigher).build())
    }
}

impl Stencils {
    /// `schema` is as the caller sees it.
    pub fn find(&self, schema: &Schema, task: &Task) -> Option<Arc<Stencil>> {
        self.0.get(&key(schema, task)[..])
    }

    /// For benches: what it costs not to know one.
    pub fn forget_all(&self) {
        self.0.invalidate_all();
    }

    pub fn keep(&self, schema: &Schema, task: &Task, stencil: &Arc<Stencil>) {
        let key = key(schema, task);
        if key.len() + stencil.sql.len() <= LONGEST {
            self.0.insert(key.into_boxed_slice(), stencil.clone());
        }
    }
}

fn key(schema: &Schema, task: &Task) -> Vec<u8> {
    let outline = task.outline.key();
    let mut key = Vec::with_capacity(outline.len() + 8);
    key.extend_from_slice(outline);
    key.extend_from_slice(&schema.number().to_le_bytes());
    key
}

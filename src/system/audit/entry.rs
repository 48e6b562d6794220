//! An [`Action`] is what somebody did, as the one who does it says it; a [`Record`] is the action with its time,
//! as it is stored; an [`Entry`] is a record with its place in the chain.

use std::borrow::Cow;

use rusqlite::Row;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::{Millis, rfc3339};
use crate::error::Error;

/// Characters kept of a failure's message.
const MESSAGE_MAX: usize = 500;

/// The outcome of what succeeded; what failed has the error's code.
pub const OK: &str = "ok";

/// The outcome of what is about to be done where no transaction holds both it and its entry. Another entry says how
/// it ended; if there is none, it was cut short.
pub const BEGUN: &str = "begun";

/// Who does it: an operator, in a request.
#[derive(Clone, Debug)]
pub struct By {
    pub actor: String,
    pub request_id: Uuid,
}

impl By {
    pub fn did(&self, action: &'static str, target: Option<String>, details: Value) -> Action {
        Action { actor: self.actor.clone(), action, target, request_id: Some(self.request_id), outcome: OK.into(), details }
    }

    pub fn begun(&self, action: &'static str, target: Option<String>, details: Value) -> Action {
        Action { outcome: BEGUN.into(), ..self.did(action, target, details) }
    }

    pub fn failed(&self, action: &'static str, target: Option<String>, error: &Error) -> Action {
        let outcome = error.code().as_str().into();
        let message: String = error.message().chars().take(MESSAGE_MAX).collect();
        Action { outcome, ..self.did(action, target, json!({ "message": message })) }
    }
}

#[derive(Clone, Debug)]
pub struct Action {
    /// The operator's name.
    pub actor: String,
    /// `tenant.create`, `token.revoke`, …
    pub action: &'static str,
    /// The id of what it was done to.
    pub target: Option<String>,
    pub request_id: Option<Uuid>,
    pub outcome: Cow<'static, str>,
    /// An object; no secrets.
    pub details: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub at: Millis,
    pub actor: String,
    pub action: String,
    pub target: Option<String>,
    pub request_id: Option<String>,
    pub outcome: String,
    /// JSON text, hashed as it stands.
    pub details: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// 1 for the first, without gaps.
    pub seq: i64,
    pub record: Record,
    pub prev_hash: Vec<u8>,
    pub hash: Vec<u8>,
}

impl Record {
    /// From the columns at, actor, action, target, request_id, outcome, details, the first of them at `first`.
    pub(in crate::system) fn from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Record> {
        Ok(Record {
            at: row.get(first)?,
            actor: row.get(first + 1)?,
            action: row.get(first + 2)?,
            target: row.get(first + 3)?,
            request_id: row.get(first + 4)?,
            outcome: row.get(first + 5)?,
            details: row.get(first + 6)?,
        })
    }
}

impl Entry {
    pub fn to_json(&self) -> Value {
        let record = &self.record;
        json!({
            "seq": self.seq,
            "at": rfc3339(record.at),
            "actor": record.actor,
            "action": record.action,
            "target": record.target,
            "request_id": record.request_id,
            "outcome": record.outcome,
            "details": serde_json::from_str::<Value>(&record.details).unwrap_or(Value::Null),
            "hash": hex(&self.hash),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

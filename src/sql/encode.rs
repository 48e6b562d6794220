//! Rows as JSON, written while SQLite steps: no tree between its values and the answer's bytes.
//!
//! | SQLite | JSON |
//! | --- | --- |
//! | NULL | `null` |
//! | INTEGER | a number, exact; a string with `"integers":"string"` |
//! | REAL | a number; `null` for the infinities, which JSON does not have |
//! | TEXT | a string; bytes that are not UTF-8 become U+FFFD |
//! | BLOB | `{"base64":"…"}` |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use super::params::Params;
use crate::config::Plan;
use crate::error::Result;
use crate::sqlite::{Cells, Draft, Effect, Finished, Prepared};

/// How integers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integers {
    #[default]
    Number,
    /// All of them: for clients whose numbers are exact to 2^53 only.
    String,
}

/// The answer being written, within the plan's bounds.
pub struct Answering<'p> {
    out: Draft<'p>,
    integers: Integers,
    plan: &'p Plan,
    rows: u64,
    results: usize,
    first_row: bool,
}

impl<'p> Answering<'p> {
    pub fn new(mut out: Draft<'p>, plan: &'p Plan, integers: Integers) -> Self {
        out.extend_from_slice(b"{\"results\":[");
        Answering { out, integers, plan, rows: 0, results: 0, first_row: true }
    }

    /// Runs a statement; its rows are the next result.
    pub fn result(&mut self, prepared: &mut Prepared<'_>, params: &Params) -> Result<()> {
        match params {
            Params::Positional(values) => prepared.bind_all(values)?,
            Params::Named(values) => prepared.bind_named(values)?,
        }
        let mut begun = false;
        let effect = prepared.run(|cells| {
            if !std::mem::replace(&mut begun, true) {
                self.begin_result(&cells.columns())?;
            }
            self.row(cells)
        })?;
        if !begun {
            self.begin_result(&prepared.columns())?;
        }
        self.end_result(effect);
        Ok(())
    }

    pub fn begin_result(&mut self, columns: &[&str]) -> Result<()> {
        if self.results > 0 {
            self.out.push(b',');
        }
        self.results += 1;
        self.first_row = true;
        self.out.extend_from_slice(b"{\"columns\":[");
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.out.expect(column.len())?;
            string(&mut self.out, column);
            self.plan.admits(self.rows, self.out.len() as u64)?;
        }
        self.out.extend_from_slice(b"],\"rows\":[");
        self.out.settle()
    }

    pub fn row(&mut self, cells: &Cells<'_>) -> Result<()> {
        self.rows += 1;
        self.out.extend_from_slice(if std::mem::take(&mut self.first_row) { b"[" } else { b",[" });
        let mut between = false;
        for value in cells.iter() {
            if std::mem::replace(&mut between, true) {
                self.out.push(b',');
            }
            self.value(value)?;
        }
        self.out.push(b']');
        self.out.settle()?;
        self.plan.admits(self.rows, self.out.len() as u64)
    }

    pub fn end_result(&mut self, effect: Effect) {
        self.out.extend_from_slice(b"],\"rows_affected\":");
        number(&mut self.out, effect.rows_affected);
        self.out.extend_from_slice(b",\"last_insert_rowid\":");
        match effect.last_insert_rowid {
            Some(rowid) => self.integer(rowid),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.push(b'}');
    }

    /// Ends the answer. `more` is written as further members.
    pub fn finish(mut self, more: &str, took: std::time::Duration) -> Finished {
        self.out.push(b']');
        self.out.extend_from_slice(more.as_bytes());
        self.out.extend_from_slice(b",\"duration_ms\":");
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        number(&mut self.out, micros / 1_000);
        self.out.extend_from_slice(format!(".{:03}}}", micros % 1_000).as_bytes());
        self.out.finish()
    }

    fn value(&mut self, value: ValueRef<'_>) -> Result<()> {
        match value {
            ValueRef::Null => self.out.extend_from_slice(b"null"),
            ValueRef::Integer(value) => self.integer(value),
            ValueRef::Real(value) => number(&mut self.out, value),
            ValueRef::Text(text) => {
                self.out.expect(text.len())?;
                match std::str::from_utf8(text) {
                    Ok(text) => string(&mut self.out, text),
                    Err(_) => string(&mut self.out, &String::from_utf8_lossy(text)),
                }
            }
            ValueRef::Blob(bytes) => {
                let encoded = base64::encoded_len(bytes.len(), true).unwrap_or(0);
                self.out.expect(encoded)?;
                self.out.extend_from_slice(b"{\"base64\":\"");
                let start = self.out.len();
                self.out.resize(start + encoded, 0);
                // The slice is as long as the encoding.
                let _ = BASE64.encode_slice(bytes, &mut self.out[start..]);
                self.out.extend_from_slice(b"\"}");
            }
        }
        Ok(())
    }

    fn integer(&mut self, value: i64) {
        match self.integers {
            Integers::Number => number(&mut self.out, value),
            Integers::String => {
                self.out.push(b'"');
                number(&mut self.out, value);
                self.out.push(b'"');
            }
        }
    }
}

/// serde_json writes numbers without a detour (`null` for what is not finite); into a `Vec` it cannot fail.
fn number(out: &mut Vec<u8>, value: impl serde::Serialize) {
    let _ = serde_json::to_writer(out, &value);
}

fn string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::Allowance;

    #[test]
    fn columns_without_rows_are_within_the_plans_bound_too() {
        let (plan, room) = (Plan { result_bytes: 1_000, ..Plan::default() }, Allowance::unbounded());
        let mut answering = Answering::new(Draft::new(&room), &plan, Integers::Number);
        let name = "n".repeat(400);
        assert!(answering.begin_result(&[&name, &name]).is_ok());
        assert!(answering.begin_result(&[&name]).is_err());
    }

    fn written(value: ValueRef<'_>, integers: Integers) -> String {
        let (plan, room) = (Plan::default(), Allowance::unbounded());
        let mut answering = Answering::new(Draft::new(&room), &plan, integers);
        let start = answering.out.len();
        answering.value(value).unwrap();
        String::from_utf8(answering.out[start..].to_vec()).unwrap()
    }

    #[test]
    fn every_value_is_json() {
        let plain = |value| written(value, Integers::Number);
        assert_eq!(plain(ValueRef::Null), "null");
        assert_eq!(plain(ValueRef::Integer(i64::MAX)), "9223372036854775807");
        assert_eq!(written(ValueRef::Integer(-1), Integers::String), "\"-1\"");
        assert_eq!(plain(ValueRef::Real(1.0)), "1.0");
        assert_eq!(plain(ValueRef::Real(f64::INFINITY)), "null");
        assert_eq!(plain(ValueRef::Text("a\"\n\u{1}é".as_bytes())), "\"a\\\"\\n\\u0001é\"");
        assert_eq!(plain(ValueRef::Text(b"\xff")), "\"\u{fffd}\"");
        assert_eq!(plain(ValueRef::Blob(&[0, 255])), "{\"base64\":\"AP8=\"}");
    }
}

//! One statement of a client's: its text, what is bound to it, and how it is run on a connection. What it answers counts
//! in a [`Tally`] against the plan, over all that one HTTP request or one message of a socket asks for.

use std::sync::Arc;
use std::time::Instant;

use super::control::Control;
use super::proto::{Col, NamedArg, RowsDraft, StmtResult, Value};
use super::stream::Context;
use crate::error::Result;
use crate::sqlite::{Prepared, Reader, may_only_read};

#[derive(Debug)]
pub struct Statement {
    pub text: Arc<str>,
    pub args: Vec<Value>,
    pub named_args: Vec<NamedArg>,
    pub want_rows: bool,
    pub kind: Kind,
}

/// What a text is, as far as its words tell.
#[derive(Debug)]
pub enum Kind {
    Control(Control),
    /// Worth asking a reader.
    MayRead,
    Writes,
}

/// What was answered so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub rows: u64,
    pub bytes: u64,
}

impl Statement {
    pub fn new(text: Arc<str>, args: Vec<Value>, named_args: Vec<NamedArg>, want_rows: bool) -> Statement {
        let kind = match Control::parse(&text) {
            Some(control) => Kind::Control(control),
            None if may_only_read(&text) => Kind::MayRead,
            None => Kind::Writes,
        };
        Statement { text, args, named_args, want_rows, kind }
    }

    /// Runs it, under the sandbox and the caller's scopes; `None` where it writes and may not.
    pub fn run(&self, reader: &Reader<'_>, cx: &Context, tally: &mut Tally, may_write: bool) -> Result<Option<StmtResult>> {
        let began = Instant::now();
        let mut prepared = reader.prepare(&self.text)?;
        cx.scopes.permit(prepared.needs())?;
        if !may_write && !prepared.is_readonly() {
            return Ok(None);
        }
        prepared.bind(&self.args, self.named_args.iter().map(|arg| (arg.name.as_str(), &arg.value)))?;
        // Its columns' names are in each answer of a statement, and may be long.
        tally.bytes +=
            columns(&prepared).iter().map(|col| (col.name.len() + col.decltype.as_ref().map_or(0, String::len)) as u64).sum::<u64>();
        cx.plan.admits(tally.rows, tally.bytes)?;
        let mut rows = RowsDraft::new(reader.draft());
        let effect = prepared.run(|cells| {
            if self.want_rows {
                rows.push(cells)?;
                cx.plan.admits(tally.rows + rows.count(), tally.bytes + rows.bytes())?;
            }
            Ok(())
        })?;
        let rows = rows.finish();
        *tally = Tally { rows: tally.rows + rows.count(), bytes: tally.bytes + rows.bytes() };
        Ok(Some(StmtResult {
            cols: columns(&prepared),
            rows_read: rows.count(),
            rows,
            affected_row_count: effect.rows_affected,
            last_insert_rowid: effect.last_insert_rowid,
            rows_written: effect.rows_affected,
            query_duration_ms: began.elapsed().as_secs_f64() * 1_000.0,
        }))
    }
}

pub fn columns(prepared: &Prepared<'_>) -> Vec<Col> {
    prepared.columns_declared(|name, decltype| Col { name: name.to_owned(), decltype: decltype.map(str::to_owned) })
}

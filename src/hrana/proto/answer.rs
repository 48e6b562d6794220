//! What is answered. Rows are JSON from the moment SQLite gives them ([`RowsDraft::push`]): nothing is kept of a value but the
//! bytes that go out.

use base64::Engine as _;
use rusqlite::types::ValueRef;
use serde::Serialize;

use super::BASE64;
use crate::error;
use crate::sqlite::{Cells, Draft, Finished, Taken};

#[derive(Debug)]
pub enum StreamResponse {
    Close,
    Execute(StmtResult),
    Batch(BatchResult),
    Sequence,
    Describe(DescribeResult),
    StoreSql,
    CloseSql,
    GetAutocommit { is_autocommit: bool },
}

#[derive(Debug, Default)]
pub struct StmtResult {
    pub cols: Vec<Col>,
    pub rows: Rows,
    pub affected_row_count: u64,
    pub last_insert_rowid: Option<i64>,
    pub rows_read: u64,
    pub rows_written: u64,
    pub query_duration_ms: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Col {
    pub name: String,
    /// The declared type, where the column comes straight from a table.
    pub decltype: Option<String>,
}

/// Rows, already encoded: each a JSON array and a line of its own. (JSON has no line ends inside strings.)
#[derive(Debug, Default)]
pub struct Rows {
    lines: Finished,
    count: u64,
}

/// Rows being written.
pub struct RowsDraft<'a> {
    lines: Draft<'a>,
    count: u64,
}

/// As long as the batch both; a step that was skipped has neither.
#[derive(Debug, Default)]
pub struct BatchResult {
    pub step_results: Vec<Option<StmtResult>>,
    pub step_errors: Vec<Option<Error>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DescribeResult {
    pub params: Vec<DescribeParam>,
    pub cols: Vec<DescribeCol>,
    pub is_explain: bool,
    pub is_readonly: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DescribeParam {
    /// With its first character; none for `?`.
    pub name: Option<String>,
}

pub type DescribeCol = Col;

/// What clients are told of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Error {
    pub message: String,
    /// SQLite's primary code by its name (`SQLITE_CONSTRAINT`); ours in capitals where SQLite has none (`SQL_DENIED`).
    pub code: String,
    /// SQLite's extended code by its name. The protocol does not have it yet; clients skip it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_code: Option<String>,
}

impl<'a> RowsDraft<'a> {
    pub fn new(lines: Draft<'a>) -> RowsDraft<'a> {
        RowsDraft { lines, count: 0 }
    }

    pub fn push(&mut self, cells: &Cells<'_>) -> error::Result<()> {
        self.push_values(cells.iter())
    }

    pub(super) fn push_values<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) -> error::Result<()> {
        self.lines.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.lines.push(b',');
            }
            match value {
                ValueRef::Text(text) => self.lines.expect(text.len())?,
                ValueRef::Blob(bytes) => self.lines.expect(base64::encoded_len(bytes.len(), true).unwrap_or(0))?,
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => {}
            }
            write_value(&mut self.lines, value);
        }
        self.lines.extend_from_slice(b"]\n");
        self.count += 1;
        self.lines.settle()
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their bytes in the answer.
    pub fn bytes(&self) -> u64 {
        self.lines.len() as u64
    }

    pub fn finish(self) -> Rows {
        Rows { lines: self.lines.finish(), count: self.count }
    }
}

impl Rows {
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their bytes in the answer.
    pub fn bytes(&self) -> u64 {
        self.lines.len() as u64
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.split(|&byte| byte == b'\n').take_while(|line| !line.is_empty())
    }
}

impl StreamResponse {
    /// What its rows have taken of their tenant's allowance.
    pub fn into_taken(self) -> Vec<Taken> {
        match self {
            StreamResponse::Execute(result) => result.rows.lines.taken.into_iter().collect(),
            StreamResponse::Batch(batch) => batch.step_results.into_iter().flatten().filter_map(|step| step.rows.lines.taken).collect(),
            _ => Vec::new(),
        }
    }

    /// Appends its JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match self {
            StreamResponse::Close => "close",
            StreamResponse::Execute(_) => "execute",
            StreamResponse::Batch(_) => "batch",
            StreamResponse::Sequence => "sequence",
            StreamResponse::Describe(_) => "describe",
            StreamResponse::StoreSql => "store_sql",
            StreamResponse::CloseSql => "close_sql",
            StreamResponse::GetAutocommit { .. } => "get_autocommit",
        };
        put(out, "{\"type\":");
        json(out, kind);
        match self {
            StreamResponse::Execute(result) => {
                put(out, ",\"result\":");
                result.write(out);
            }
            StreamResponse::Batch(result) => {
                put(out, ",\"result\":");
                result.write(out);
            }
            StreamResponse::Describe(result) => {
                put(out, ",\"result\":");
                json(out, result);
            }
            StreamResponse::GetAutocommit { is_autocommit } => {
                put(out, ",\"is_autocommit\":");
                json(out, is_autocommit);
            }
            StreamResponse::Close | StreamResponse::Sequence | StreamResponse::StoreSql | StreamResponse::CloseSql => {}
        }
        put(out, "}");
    }
}

impl StmtResult {
    fn write(&self, out: &mut Vec<u8>) {
        put(out, "{\"cols\":");
        json(out, &self.cols);
        put(out, ",\"rows\":");
        list(out, self.rows.iter(), |out, row| out.extend_from_slice(row));
        put(out, ",\"affected_row_count\":");
        json(out, self.affected_row_count);
        put(out, ",\"last_insert_rowid\":");
        json(out, self.last_insert_rowid.map(|rowid| rowid.to_string()));
        put(out, ",\"rows_read\":");
        json(out, self.rows_read);
        put(out, ",\"rows_written\":");
        json(out, self.rows_written);
        put(out, ",\"query_duration_ms\":");
        json(out, self.query_duration_ms);
        put(out, "}");
    }
}

impl BatchResult {
    fn write(&self, out: &mut Vec<u8>) {
        put(out, "{\"step_results\":");
        list(out, self.step_results.iter(), |out, result| match result {
            Some(result) => result.write(out),
            None => put(out, "null"),
        });
        put(out, ",\"step_errors\":");
        json(out, &self.step_errors);
        put(out, "}");
    }

    /// Appends it as the entries of a cursor, each a line.
    pub fn write_entries(&self, out: &mut Vec<u8>) {
        for (step, (result, error)) in self.step_results.iter().zip(&self.step_errors).enumerate() {
            if let Some(result) = result {
                put(out, "{\"type\":\"step_begin\",\"step\":");
                json(out, step);
                put(out, ",\"cols\":");
                json(out, &result.cols);
                put(out, "}\n");
                for row in result.rows.iter() {
                    put(out, "{\"type\":\"row\",\"row\":");
                    out.extend_from_slice(row);
                    put(out, "}\n");
                }
                put(out, "{\"type\":\"step_end\",\"affected_row_count\":");
                json(out, result.affected_row_count);
                put(out, ",\"last_insert_rowid\":");
                json(out, result.last_insert_rowid.map(|rowid| rowid.to_string()));
                put(out, "}\n");
            } else if let Some(error) = error {
                put(out, "{\"type\":\"step_error\",\"step\":");
                json(out, step);
                put(out, ",\"error\":");
                json(out, error);
                put(out, "}\n");
            }
        }
    }
}

impl Error {
    pub fn write(&self, out: &mut Vec<u8>) {
        json(out, self);
    }
}

impl From<&error::Error> for Error {
    fn from(error: &error::Error) -> Error {
        let body = error.body();
        let sqlite = |member: &str| body.details.and_then(|details| details[member].as_str());
        match sqlite("sqlite_name").filter(|name| *name != "SQLITE_OTHER") {
            Some(name) => {
                let code = name.splitn(3, '_').take(2).collect::<Vec<_>>().join("_");
                let extended_code = (code != name).then(|| name.to_owned());
                Error { message: body.message.to_owned(), code, extended_code }
            }
            // A client shows the message only, so the next step goes with it.
            None => {
                let message = body.hint.map_or_else(|| body.message.to_owned(), |hint| format!("{} ({hint})", body.message));
                Error { message, code: body.code.to_ascii_uppercase(), extended_code: None }
            }
        }
    }
}

fn write_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => put(out, "{\"type\":\"null\"}"),
        ValueRef::Integer(value) => {
            put(out, "{\"type\":\"integer\",\"value\":\"");
            json(out, value);
            put(out, "\"}");
        }
        ValueRef::Real(value) => {
            put(out, "{\"type\":\"float\",\"value\":");
            match value {
                // JSON has no infinities, but readers take a number that is too large for one; `null` they refuse.
                f64::INFINITY => put(out, "1e999"),
                f64::NEG_INFINITY => put(out, "-1e999"),
                _ => json(out, value),
            }
            put(out, "}");
        }
        ValueRef::Text(text) => {
            put(out, "{\"type\":\"text\",\"value\":");
            json(out, String::from_utf8_lossy(text));
            put(out, "}");
        }
        ValueRef::Blob(bytes) => {
            put(out, "{\"type\":\"blob\",\"base64\":\"");
            let start = out.len();
            out.resize(start + base64::encoded_len(bytes.len(), true).unwrap_or(0), 0);
            // The slice is as long as the encoding.
            let _ = BASE64.encode_slice(bytes, &mut out[start..]);
            put(out, "\"}");
        }
    }
}

fn list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Into a `Vec`, JSON of these types cannot fail.
fn json(out: &mut Vec<u8>, value: impl Serialize) {
    let _ = serde_json::to_writer(out, &value);
}

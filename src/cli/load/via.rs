//! [`Via`] is the way by which the load asks for rows: each operation is the same work, asked for and answered in
//! another dialect. A [`Question`] is the bytes of one call, with what its answer must hold.

use std::fmt::Write as _;
use std::io::Write as _;
use std::str::FromStr;

use serde_json::Value;

use super::truth::{self, PAGE};
use super::wire::{self, Caller};

/// A dialect of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `POST /v1/sql`.
    Sql,
    /// `POST /v3/pipeline`: a stream that executes one statement and closes.
    Hrana,
    /// `/rest/v1/{table}`.
    Rows,
}

impl Via {
    const ALL: [Via; 3] = [Via::Sql, Via::Hrana, Via::Rows];

    pub const fn name(self) -> &'static str {
        match self {
            Via::Sql => "sql",
            Via::Hrana => "hrana",
            Via::Rows => "rows",
        }
    }

    /// What stands before the columns of an answer with rows, and of one that counts the rows it wrote.
    const fn head(self) -> &'static str {
        match self {
            Via::Sql => r#"{"results":[{"columns":["#,
            Via::Hrana => r#"{"results":[{"type":"ok","response":{"type":"execute","result":{"cols":["#,
            Via::Rows => "[",
        }
    }

    /// What makes the bytes up to the end of the rows JSON, and where in it the columns and the rows are.
    const fn rest(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Via::Sql => (r#""more":null}]}"#, &["/results/0/columns", "/results/0/rows"]),
            Via::Hrana => (r#""more":null}}}]}"#, &["/results/0/response/result/cols", "/results/0/response/result/rows"]),
            Via::Rows => ("", &[""]),
        }
    }

    /// The status of an insert.
    pub const fn created(self) -> u16 {
        if matches!(self, Via::Rows) { 201 } else { 200 }
    }
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Via, String> {
        let named = Via::ALL.into_iter().find(|via| via.name() == text);
        named.ok_or_else(|| format!("`{text}` is none of {}", Via::ALL.map(Via::name).join(", ")))
    }
}

/// A value in a statement's parameters, or in a row.
#[derive(Clone, Copy)]
enum Cell<'a> {
    Int(i64),
    /// Of characters that JSON need not escape.
    Text(&'a str),
}

/// One call. It keeps its allocations for the next one.
pub struct Question {
    via: Via,
    /// The bytes to send.
    pub request: Vec<u8>,
    pub body: Vec<u8>,
    expected: Vec<u8>,
    text: String,
}

impl Question {
    pub fn new(via: Via) -> Question {
        Question { via, request: Vec::new(), body: Vec::new(), expected: Vec::new(), text: String::new() }
    }

    pub fn via(&self) -> Via {
        self.via
    }

    /// One seeded row, by its key.
    pub fn read(&mut self, caller: &Caller, number: usize, row: usize) {
        match self.via {
            Via::Rows => self.get(caller, format_args!("/rest/v1/load_items?select=v&id=eq.{row}")),
            _ => self.statement(caller, "SELECT v FROM load_items WHERE id = ?1", &[Cell::Int(row as i64)]),
        }
        self.expect(&[("v", "TEXT")], std::iter::once((number, row)), |_, text| [Cell::Text(text)]);
    }

    /// The seeded rows behind one, at most [`PAGE`] of `rows`.
    pub fn page(&mut self, caller: &Caller, number: usize, after: usize, rows: usize) {
        match self.via {
            Via::Rows => self.get(caller, format_args!("/rest/v1/load_items?select=id,v&id=gt.{after}&order=id&limit={PAGE}")),
            _ => self.statement(
                caller,
                "SELECT id, v FROM load_items WHERE id > ?1 ORDER BY id LIMIT ?2",
                &[Cell::Int(after as i64), Cell::Int(PAGE as i64)],
            ),
        }
        let seeded = (after + 1..=rows).take(PAGE).map(|row| (number, row));
        self.expect(&[("id", "INTEGER"), ("v", "TEXT")], seeded, |row, text| [Cell::Int(row as i64), Cell::Text(text)]);
    }

    /// A row of the run's own.
    pub fn insert(&mut self, caller: &Caller, id: i64, text: &str) {
        match self.via {
            Via::Rows => {
                self.body.clear();
                let _ = write!(self.body, r#"{{"id":{id},"v":"{text}"}}"#);
                wire::post(&mut self.request, caller, "/rest/v1/load_inserts", &self.body);
            }
            _ => self.statement(caller, "INSERT INTO load_inserts VALUES (?1, ?2)", &[Cell::Int(id), Cell::Text(text)]),
        }
    }

    /// Counts a seeded row up. Rows cannot add: they set what follows `value`, where it is still that.
    pub fn count_up(&mut self, caller: &Caller, row: usize, value: u64) {
        match self.via {
            Via::Rows => {
                self.body.clear();
                let _ = write!(self.body, r#"{{"n":{}}}"#, value + 1);
                self.text.clear();
                let _ = write!(self.text, "/rest/v1/load_items?select=n&id=eq.{row}&n=eq.{value}");
                wire::patch(&mut self.request, caller, &self.text, &self.body);
            }
            _ => self.statement(caller, "UPDATE load_items SET n = n + 1 WHERE id = ?1 RETURNING n", &[Cell::Int(row as i64)]),
        }
    }

    /// Whether an answer holds the rows it must.
    pub fn fits(&self, body: &[u8]) -> bool {
        has_rows(self.via, body, &self.expected)
    }

    pub fn expected(&self) -> &[u8] {
        &self.expected
    }

    /// Whether an insert's answer says that one row was written; rows say so by their status.
    pub fn says_one_row(&self, body: &[u8]) -> bool {
        match self.via {
            Via::Sql => number_at(body, "/results/0/rows_affected", r#"{"results":[{"columns":[],"rows":[],"rows_affected":"#) == Some(1),
            Via::Hrana => {
                let head = r#"{"results":[{"type":"ok","response":{"type":"execute","result":{"cols":[],"rows":[],"affected_row_count":"#;
                number_at(body, "/results/0/response/result/affected_row_count", head) == Some(1)
            }
            Via::Rows => body.is_empty(),
        }
    }

    /// The counter in the answer of [`Question::count_up`].
    pub fn counted(&self, body: &[u8]) -> Option<u64> {
        let (path, head) = match self.via {
            Via::Sql => ("/results/0/rows/0/0", r#"{"results":[{"columns":["n"],"rows":[["#),
            Via::Hrana => (
                "/results/0/response/result/rows/0/0/value",
                r#"{"results":[{"type":"ok","response":{"type":"execute","result":{"cols":[{"name":"n","decltype":"INTEGER"}],"rows":[[{"type":"integer","value":""#,
            ),
            Via::Rows => ("/0/n", r#"[{"n":"#),
        };
        number_at(body, path, head)
    }

    fn get(&mut self, caller: &Caller, path: std::fmt::Arguments<'_>) {
        self.text.clear();
        // Into a string, which takes everything.
        let _ = self.text.write_fmt(path);
        wire::get(&mut self.request, caller, &self.text);
    }

    fn statement(&mut self, caller: &Caller, sql: &str, params: &[Cell<'_>]) {
        let (head, middle, tail, path) = match self.via {
            Via::Hrana => {
                (r#"{"requests":[{"type":"execute","stmt":{"sql":""#, r#"","args":["#, r#"]}},{"type":"close"}]}"#, "/v3/pipeline")
            }
            _ => (r#"{"statements":[{"sql":""#, r#"","params":["#, "]}]}", "/v1/sql"),
        };
        self.body.clear();
        self.body.extend_from_slice([head, sql, middle].concat().as_bytes());
        for (at, param) in params.iter().enumerate() {
            if at > 0 {
                self.body.push(b',');
            }
            cell(&mut self.body, self.via, *param);
        }
        self.body.extend_from_slice(tail.as_bytes());
        wire::post(&mut self.request, caller, path, &self.body);
    }

    /// Writes down the seeded rows that an answer begins with, and their columns with declared types.
    fn expect<const N: usize>(
        &mut self,
        columns: &[(&str, &str); N],
        seeded: impl Iterator<Item = (usize, usize)>,
        cells: impl for<'a> Fn(usize, &'a str) -> [Cell<'a>; N],
    ) {
        let (via, out) = (self.via, &mut self.expected);
        out.clear();
        out.extend_from_slice(via.head().as_bytes());
        for (at, (name, declared)) in columns.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = match via {
                Via::Sql => write!(out, r#"{comma}"{name}""#),
                Via::Hrana => write!(out, r#"{comma}{{"name":"{name}","decltype":"{declared}"}}"#),
                Via::Rows => Ok(()),
            };
        }
        if via != Via::Rows {
            out.extend_from_slice(br#"],"rows":["#);
        }
        let (open, close) = if via == Via::Rows { (b'{', b'}') } else { (b'[', b']') };
        for (nth, (number, row)) in seeded.enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            self.text.clear();
            truth::item(&mut self.text, number, row);
            out.push(open);
            for (at, value) in cells(row, &self.text).into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                if via == Via::Rows {
                    let _ = write!(out, r#""{}":"#, columns[at].0);
                }
                cell(out, via, value);
            }
            out.push(close);
        }
        out.extend_from_slice(if via == Via::Rows { b"]" } else { b"]," });
    }
}

fn cell(out: &mut Vec<u8>, via: Via, cell: Cell<'_>) {
    // Into a vector, which takes everything.
    let _ = match (via, cell) {
        (Via::Hrana, Cell::Int(value)) => write!(out, r#"{{"type":"integer","value":"{value}"}}"#),
        (Via::Hrana, Cell::Text(text)) => write!(out, r#"{{"type":"text","value":"{text}"}}"#),
        (_, Cell::Int(value)) => write!(out, "{value}"),
        (_, Cell::Text(text)) => write!(out, r#""{text}""#),
    };
}

/// Whether a body begins with what is expected, up to the end of the rows; in other words of JSON it may say the same.
fn has_rows(via: Via, body: &[u8], expected: &[u8]) -> bool {
    if body.starts_with(expected) {
        return true;
    }
    let (rest, places) = via.rest();
    let whole = serde_json::from_slice::<Value>(&[expected, rest.as_bytes()].concat());
    let (Ok(whole), Ok(body)) = (whole, serde_json::from_slice::<Value>(body)) else { return false };
    places.iter().all(|place| body.pointer(place).is_some_and(|found| Some(found) == whole.pointer(place)))
}

/// The whole number in a JSON body, found without parsing when it stands behind `head`, else by its place.
fn number_at(body: &[u8], place: &str, head: &str) -> Option<u64> {
    if let Some(rest) = body.strip_prefix(head.as_bytes()) {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        return std::str::from_utf8(&rest[..digits]).ok()?.parse().ok();
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let found = body.pointer(place)?;
    found.as_u64().or_else(|| found.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_as_bytes_and_where_those_differ_as_json() {
        let expected = br#"{"results":[{"columns":["v"],"rows":[["x"]],"#;
        let fits = |body: &[u8]| has_rows(Via::Sql, body, expected);
        assert!(fits(br#"{"results":[{"columns":["v"],"rows":[["x"]],"rows_affected":0}]}"#));
        assert!(fits(br#"{ "results": [ {"rows":[["x"]], "columns":["v"]} ] }"#));
        assert!(!fits(br#"{"results":[{"columns":["v"],"rows":[["y"]],"rows_affected":0}]}"#));
        assert!(!fits(br#"{"results":[{"columns":["v"],"rows":[["x"],["x"]]}]}"#));
        assert!(!fits(b"") && !fits(b"{}"));
    }

    #[test]
    fn what_is_expected_is_json_in_every_dialect_and_another_row_does_not_fit() {
        let caller = Caller::new(&wire::Target::parse("http://127.0.0.1:1").unwrap(), "t");
        for via in Via::ALL {
            let mut question = Question::new(via);
            question.page(&caller, 7, 3, 30);
            let whole = [question.expected(), via.rest().0.as_bytes()].concat();
            let parsed: Value = serde_json::from_slice(&whole).unwrap();
            let rows = parsed.pointer(via.rest().1.last().unwrap()).unwrap();
            assert_eq!(rows.as_array().unwrap().len(), PAGE, "{via:?}");
            assert!(question.fits(&whole) && question.fits(&serde_json::to_vec_pretty(&parsed).unwrap()));
            question.page(&caller, 7, 4, 30);
            assert!(!question.fits(&whole), "{via:?}");
        }
    }

    #[test]
    fn a_number_is_found_with_and_without_parsing() {
        let body = br#"{"results":[{"columns":["n"],"rows":[[17]],"rows_affected":1}]}"#;
        assert_eq!(Question::new(Via::Sql).counted(body), Some(17));
        assert_eq!(number_at(body, "/results/0/rows/0/0", "{}"), Some(17));
        assert_eq!(number_at(br#"{"n":"17"}"#, "/n", "x"), Some(17));
        assert_eq!(number_at(b"{}", "/n", "x"), None);
    }
}

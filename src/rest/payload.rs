//! A [`Payload`] is the rows that a request's body holds: JSON (one object or an array of them), CSV with a line of
//! names, or one form. Values stay as they were sent until a column says what they are.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::Value;
use serde_json::value::RawValue;

use super::refusal;
use super::value::Kind;
use crate::error::{Code, Error, Result};

/// The most rows of one request.
const ROWS_MAX: usize = 100_000;

#[derive(Debug)]
pub struct Payload {
    pub rows: Vec<Row>,
}

/// By column.
pub type Row = BTreeMap<String, Cell>;

#[derive(Debug)]
pub enum Cell {
    Json(Box<RawValue>),
    Text(String),
    Null,
}

impl Cell {
    pub fn read(&self, kind: Kind) -> Result<Value> {
        match self {
            Cell::Json(json) => kind.read_json(json),
            Cell::Text(text) => kind.read(text),
            Cell::Null => Ok(Value::Null),
        }
    }
}

impl Payload {
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Payload> {
        let media_type = content_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let payload = match media_type.as_str() {
            "application/json" | "" | "*/*" => json(body)?,
            "text/csv" => csv(text(body)?)?,
            "application/x-www-form-urlencoded" => form(text(body)?),
            _ => {
                let message = format!("Content-Type not acceptable: {media_type}");
                return Err(Error::new(Code::UnsupportedMediaType, message.clone()).spoken("PGRST102", 400));
            }
        };
        if payload.rows.len() > ROWS_MAX {
            return Err(refusal::too_many("rows in the body", ROWS_MAX));
        }
        Ok(payload)
    }

    /// The columns that are set: those that `chosen` names, or else those of the rows, which then all have the same.
    pub fn columns(&self, chosen: Option<&[String]>) -> Result<Vec<String>> {
        if let Some(chosen) = chosen {
            let mut seen = BTreeSet::new();
            return Ok(chosen.iter().filter(|name| seen.insert(*name)).cloned().collect());
        }
        let Some(first) = self.rows.first() else { return Ok(Vec::new()) };
        match self.rows.iter().all(|row| row.len() == first.len() && row.keys().eq(first.keys())) {
            true => Ok(first.keys().cloned().collect()),
            false => Err(refusal::bad_body("All object keys must match")),
        }
    }
}

fn text(body: &[u8]) -> Result<&str> {
    std::str::from_utf8(body).map_err(|_| refusal::bad_body("The body is not UTF-8"))
}

fn json(body: &[u8]) -> Result<Payload> {
    type Object = BTreeMap<String, Box<RawValue>>;
    let invalid = || refusal::bad_body("Empty or invalid json");
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let objects: Vec<Object> = match first {
        Some(b'{') => vec![serde_json::from_slice(body).map_err(|_| invalid())?],
        Some(_) => serde_json::from_slice(body).map_err(|_| invalid())?,
        None => return Err(invalid()),
    };
    let row = |object: Object| object.into_iter().map(|(name, json)| (name, Cell::Json(json))).collect();
    Ok(Payload { rows: objects.into_iter().map(row).collect() })
}

fn form(body: &str) -> Payload {
    let row = super::pairs(body).into_iter().map(|(name, value)| (name, Cell::Text(value))).collect();
    Payload { rows: vec![row] }
}

/// RFC 4180; the word NULL, not quoted, is NULL.
fn csv(text: &str) -> Result<Payload> {
    let mut lines = records(text)?.into_iter();
    let names: Vec<String> =
        lines.next().ok_or_else(|| refusal::bad_body("The CSV has no line of names"))?.into_iter().map(|(name, _)| name).collect();
    let mut rows = Vec::new();
    for line in lines {
        if line.len() != names.len() {
            return Err(refusal::bad_body("All lines must have same number of fields"));
        }
        let cell = |(text, quoted): (String, bool)| if !quoted && text == "NULL" { Cell::Null } else { Cell::Text(text) };
        rows.push(names.iter().cloned().zip(line.into_iter().map(cell)).collect());
    }
    Ok(Payload { rows })
}

/// Fields, and whether each was quoted.
fn records(text: &str) -> Result<Vec<Vec<(String, bool)>>> {
    let mut records = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut record = Vec::new();
        loop {
            let (field, after) = field(rest)?;
            record.push(field);
            rest = after;
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).unwrap_or(rest);
        records.push(record);
    }
    Ok(records)
}

fn field(text: &str) -> Result<((String, bool), &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let (field, rest) = text.split_at(end);
        let field = if rest.starts_with('\n') { field.strip_suffix('\r').unwrap_or(field) } else { field };
        return Ok(((field.to_owned(), false), rest));
    };
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"').ok_or_else(|| refusal::bad_body("A quoted field of the CSV does not end"))?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None if after.is_empty() || after.starts_with([',', '\n', '\r']) => return Ok(((field, true), after)),
            None => return Err(refusal::bad_body("A quoted field of the CSV goes on after its end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_is_one_object_or_an_array_of_them() {
        assert_eq!(Payload::parse(None, b" {\"a\":1}").unwrap().rows.len(), 1);
        assert_eq!(Payload::parse(None, b"[{},{}]").unwrap().rows.len(), 2);
        for body in ["", "}{ x = 2", "[1]", "\"a\"", "null", "[{}"] {
            assert!(Payload::parse(None, body.as_bytes()).is_err(), "{body}");
        }
        assert!(Payload::parse(Some("text/plain"), b"{}").is_err());
    }

    #[test]
    fn rows_have_the_same_columns_unless_columns_are_chosen() {
        let payload = Payload::parse(None, br#"[{"a":1},{"b":1}]"#).unwrap();
        assert!(payload.columns(None).is_err());
        assert_eq!(payload.columns(Some(&["b".to_owned(), "b".to_owned()])).unwrap(), ["b"]);
    }

    #[test]
    fn csv_is_read_with_its_quotes() {
        let payload = Payload::parse(Some("text/csv; charset=utf-8"), b"a,b\r\n\"x,\"\"y\"\"\n\",NULL\n,\"NULL\"\n").unwrap();
        let read: Vec<_> =
            payload.rows.iter().map(|row| (row["a"].read(Kind::Text).unwrap(), row["b"].read(Kind::Text).unwrap())).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(read, [(text("x,\"y\"\n"), Value::Null), (text(""), text("NULL"))]);
        assert!(Payload::parse(Some("text/csv"), b"a,b\n1").is_err());
        assert!(Payload::parse(Some("text/csv"), b"a\n\"1").is_err());
    }

    proptest! {
        #[test]
        fn any_csv_ends(text in "[a,\"\\r\\n]{0,30}") {
            let _ = Payload::parse(Some("text/csv"), text.as_bytes());
        }
    }
}

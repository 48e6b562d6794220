//! Functions that rows over HTTP are made with. Each takes time that grows with its arguments' lengths, and none
//! can stand in a schema: a tenant's file means the same to any SQLite.
//!
//! | function | gives |
//! | --- | --- |
//! | `tenantry_json(value)` | the value as JSON text; a blob as base64 |
//! | `tenantry_object(member, value, …)` | a JSON object; a member is [`Writing`]'s letter and the name as JSON with its colon |
//! | `tenantry_members(member, value, …)` | the same without braces, with a comma before each: a part of one |
//! | `tenantry_canonical(json)` | the JSON in its one spelling, members sorted; NULL for what is no JSON |
//! | `tenantry_matches(text, pattern, fold)` | whether the regular expression matches, ignoring case where `fold` |
//! | `tenantry_contains(json, json)` | whether the first contains the second, as PostgreSQL's `@>` has it |
//! | `tenantry_overlaps(json, json)` | whether two arrays have an element in common |

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::{Regex, RegexBuilder};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use serde_json::Value;

/// The most memory that one compiled pattern may take, in bytes.
const PATTERN_BYTES: usize = 256 << 10;

pub(super) fn install(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("tenantry_json", 1, flags, |context| Ok(json(context.get_raw(0))))?;
    conn.create_scalar_function("tenantry_object", -1, flags, |context| Ok(text(members(context, b"{", b"}"))))?;
    conn.create_scalar_function("tenantry_members", -1, flags, |context| Ok(text(members(context, b",", b""))))?;
    conn.create_scalar_function("tenantry_canonical", 1, flags, |context| Ok(document(context, 0).map(|json| json.to_string())))?;
    conn.create_scalar_function("tenantry_matches", 3, flags, matches)?;
    conn.create_scalar_function("tenantry_contains", 2, flags, |context| documents(context, contains))?;
    conn.create_scalar_function("tenantry_overlaps", 2, flags, |context| documents(context, overlaps))
}

fn json(value: ValueRef<'_>) -> String {
    let mut out = Vec::with_capacity(24);
    write_json(value, &mut out);
    text(out)
}

fn text(json: Vec<u8>) -> String {
    String::from_utf8(json).unwrap_or_default()
}

/// The arguments as members of an object, between `open` and `close`; nothing between them, and no `open` of a part, where
/// all are left out.
fn members(context: &Context<'_>, open: &[u8], close: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(open);
    let empty = out.len();
    for at in (1..context.len()).step_by(2) {
        let ValueRef::Text([letter, name @ ..]) = context.get_raw(at - 1) else { continue };
        let Some((writing, stripped)) = Writing::of(*letter) else { continue };
        let start = out.len();
        if start > empty {
            out.push(b',');
        }
        out.extend_from_slice(name);
        let begins = out.len();
        writing.write(context.get_raw(at), &mut out);
        if stripped && out[begins..] == *b"null" {
            out.truncate(start);
        }
    }
    if close.is_empty() && out.len() == empty {
        out.clear();
    }
    out.extend_from_slice(close);
    out
}

/// How a column's values become JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// They are JSON, or NULL.
    AsItIs,
    /// 1 is `true`, 0 is `false`.
    Boolean,
    Value,
}

impl Writing {
    /// Writes one of them.
    pub fn write(self, value: ValueRef<'_>, out: &mut Vec<u8>) {
        match (self, value) {
            (Writing::AsItIs, ValueRef::Text(json)) => out.extend_from_slice(json),
            (Writing::Boolean, ValueRef::Integer(1)) => out.extend_from_slice(b"true"),
            (Writing::Boolean, ValueRef::Integer(0)) => out.extend_from_slice(b"false"),
            _ => write_json(value, out),
        }
    }

    /// A member as `tenantry_object` takes it; where `stripped`, one that is left out when it is null.
    pub fn member(self, name_and_colon: &str, stripped: bool) -> String {
        let letter = match self {
            Writing::AsItIs => 'j',
            Writing::Boolean => 'b',
            Writing::Value => 'v',
        };
        let letter = if stripped { letter.to_ascii_uppercase() } else { letter };
        format!("{letter}{name_and_colon}")
    }

    fn of(letter: u8) -> Option<(Writing, bool)> {
        let writing = match letter.to_ascii_lowercase() {
            b'j' => Writing::AsItIs,
            b'b' => Writing::Boolean,
            b'v' => Writing::Value,
            _ => return None,
        };
        Some((writing, letter.is_ascii_uppercase()))
    }
}

/// Writes the value as JSON, as `tenantry_json` gives it.
fn write_json(value: ValueRef<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let written = match value {
        ValueRef::Null => serde_json::to_writer(&mut *out, &()),
        ValueRef::Integer(value) => serde_json::to_writer(&mut *out, &value),
        ValueRef::Real(value) => serde_json::to_writer(&mut *out, &value),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => serde_json::to_writer(&mut *out, text),
            Err(_) => serde_json::to_writer(&mut *out, &*String::from_utf8_lossy(text)),
        },
        ValueRef::Blob(bytes) => serde_json::to_writer(&mut *out, &BASE64.encode(bytes)),
    };
    // Neither a number nor a string fails to be written.
    if written.is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn matches(context: &Context<'_>) -> rusqlite::Result<Option<bool>> {
    let fold = context.get::<bool>(2)?;
    let pattern = context.get_or_create_aux(1, |pattern| {
        RegexBuilder::new(pattern.as_str()?)
            .case_insensitive(fold)
            .size_limit(PATTERN_BYTES)
            .build()
            .map_err(|error| -> Box<dyn std::error::Error + Send + Sync> { format!("invalid regular expression: {error}").into() })
    });
    let pattern: Arc<Regex> = pattern?;
    let text = match context.get_raw(0) {
        ValueRef::Null => return Ok(None),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => json(other),
    };
    Ok(Some(pattern.is_match(&text)))
}

/// NULL where either is no JSON: what a row holds is not an error of the request's.
fn documents(context: &Context<'_>, holds: fn(&Value, &Value) -> bool) -> rusqlite::Result<Option<bool>> {
    Ok(document(context, 0).zip(document(context, 1)).map(|(left, right)| holds(&left, &right)))
}

fn document(context: &Context<'_>, index: usize) -> Option<Value> {
    match context.get_raw(index) {
        ValueRef::Text(text) => serde_json::from_slice(text).ok(),
        // What `->>` makes of a number.
        ValueRef::Integer(value) => Some(value.into()),
        _ => None,
    }
}

fn contains(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            right.iter().all(|(name, wanted)| left.get(name).is_some_and(|value| contains(value, wanted)))
        }
        (Value::Array(left), Value::Array(right)) => right.iter().all(|wanted| left.iter().any(|value| contains(value, wanted))),
        (Value::Array(left), wanted) => left.contains(wanted),
        (left, right) => left == right,
    }
}

fn overlaps(left: &Value, right: &Value) -> bool {
    let (Value::Array(left), Value::Array(right)) = (left, right) else { return false };
    left.iter().any(|value| right.contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<T: rusqlite::types::FromSql>(sql: &str) -> rusqlite::Result<T> {
        let conn = Connection::open_in_memory().unwrap();
        install(&conn).unwrap();
        conn.query_row(sql, [], |row| row.get(0))
    }

    #[test]
    fn every_value_is_json() {
        for (sql, json) in [
            ("NULL", "null"),
            ("9007199254740993", "9007199254740993"),
            ("1.5", "1.5"),
            ("9e999", "null"),
            ("'a\"' || char(1)", "\"a\\\"\\u0001\""),
            ("x'00ff'", "\"AP8=\""),
        ] {
            assert_eq!(asked::<String>(&format!("SELECT tenantry_json({sql})")).unwrap(), json, "{sql}");
        }
    }

    #[test]
    fn an_object_is_written_at_once_or_in_parts() {
        let written = |sql: &str| asked::<String>(&format!("SELECT {sql}")).unwrap();
        let members = r#"'v"a":', 'x', 'b"b":', 1, 'j"c":', '[1]', 'v"d":', NULL"#;
        assert_eq!(written(&format!("tenantry_object({members})")), r#"{"a":"x","b":true,"c":[1],"d":null}"#);
        assert_eq!(written(&format!("tenantry_members({members})")), r#","a":"x","b":true,"c":[1],"d":null"#);
        let stripped = r#"'V"a":', NULL, 'J"b":', 'null', 'B"c":', 0"#;
        assert_eq!(written(&format!("tenantry_object({stripped})")), r#"{"c":false}"#);
        assert_eq!(written(r#"tenantry_members('V"a":', NULL)"#), "");
        assert_eq!(written(r#"tenantry_object('V"a":', NULL)"#), "{}");
        // Whatever a tenant's own SQL gives it.
        assert_eq!(written("tenantry_object()||tenantry_object(1)||tenantry_object(NULL,1,'',2,'?',3,x'00',4)"), "{}{}{}");
    }

    #[test]
    fn documents_contain_and_overlap_as_in_postgresql() {
        let holds = |function: &str, left: &str, right: &str| {
            asked::<Option<bool>>(&format!("SELECT tenantry_{function}('{left}', '{right}')")).unwrap()
        };
        assert_eq!(holds("contains", r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":1}}"#), Some(true));
        assert_eq!(holds("contains", "[1,2,3]", "[3,1]"), Some(true));
        assert_eq!(holds("contains", "[1,2]", "[4]"), Some(false));
        assert_eq!(holds("contains", "no json", "[4]"), None);
        assert_eq!(holds("overlaps", "[1,2]", "[2,9]"), Some(true));
        assert_eq!(holds("overlaps", "[1,2]", "[3]"), Some(false));
    }

    #[test]
    fn json_has_one_spelling() {
        let spelled = |json: &str| asked::<Option<String>>(&format!("SELECT tenantry_canonical('{json}')")).unwrap();
        assert_eq!(spelled(r#"{ "b": [1, 2], "a":null}"#).as_deref(), Some(r#"{"a":null,"b":[1,2]}"#));
        assert_eq!(spelled("no json"), None);
    }

    #[test]
    fn a_pattern_matches_or_is_refused() {
        assert!(asked::<bool>("SELECT tenantry_matches('Abc', '^a', 1)").unwrap());
        assert!(!asked::<bool>("SELECT tenantry_matches('Abc', '^a', 0)").unwrap());
        assert!(asked::<Option<bool>>("SELECT tenantry_matches(NULL, 'a', 0)").unwrap().is_none());
        assert!(asked::<bool>("SELECT tenantry_matches('a', '(', 0)").is_err());
    }

    #[test]
    fn a_schema_cannot_stand_on_them() {
        let conn = Connection::open_in_memory().unwrap();
        install(&conn).unwrap();
        conn.execute_batch("CREATE TABLE t(a)").unwrap();
        assert!(conn.execute_batch("CREATE INDEX i ON t(tenantry_json(a))").is_err());
    }
}

//! A [`Kind`] is what a column's declared type makes of its values: how a filter's or a body's text is bound, and
//! how the value is written in the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::types::Value;
use serde_json::value::RawValue;

use super::refusal;
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    /// Declared with a type that holds integers and fractions.
    Number,
    Boolean,
    Text,
    Json,
    Blob,
    /// No type is declared: whatever the value looks like.
    Any,
}

impl Kind {
    /// By SQLite's own rules for affinity, with BOOLEAN and JSON looked for first, and dates, UUIDs and the like
    /// taken as text.
    pub fn declared(declared: &str) -> Kind {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        match () {
            () if declared.is_empty() || declared == "ANY" => Kind::Any,
            () if has(&["BOOL"]) => Kind::Boolean,
            () if has(&["JSON"]) => Kind::Json,
            () if has(&["INTERVAL", "POINT"]) => Kind::Text,
            () if has(&["INT"]) => Kind::Integer,
            () if has(&["CHAR", "CLOB", "TEXT"]) => Kind::Text,
            () if has(&["BLOB", "BYTEA", "BINARY"]) => Kind::Blob,
            () if has(&["REAL", "FLOA", "DOUB", "NUM", "DEC"]) => Kind::Number,
            () => Kind::Text,
        }
    }

    /// What PostgreSQL means by a type's name, in lower case; `None` if it is not one that there is here.
    pub fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "text" | "varchar" | "character varying" | "char" | "bpchar" | "citext" | "name" | "uuid" => Kind::Text,
            "date" | "time" | "timestamp" | "timestamptz" => Kind::Text,
            "int2" | "int4" | "int8" | "smallint" | "int" | "integer" | "bigint" => Kind::Integer,
            "float4" | "float8" | "real" | "double precision" | "numeric" | "decimal" => Kind::Number,
            "bool" | "boolean" => Kind::Boolean,
            "json" | "jsonb" => Kind::Json,
            "bytea" | "blob" => Kind::Blob,
            _ => return None,
        })
    }

    /// PostgreSQL's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Integer => "bigint",
            Kind::Number => "numeric",
            Kind::Boolean => "boolean",
            Kind::Text | Kind::Any => "text",
            Kind::Json => "json",
            Kind::Blob => "bytea",
        }
    }

    /// What a filter's, form's or CSV's text stands for.
    pub fn read(self, text: &str) -> Result<Value> {
        let wrong = || refusal::bad_value(self.name(), text);
        Ok(match self {
            Kind::Integer => match text.trim().parse::<i64>() {
                Ok(value) => Value::Integer(value),
                Err(error) if matches!(error.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow) => {
                    return Err(refusal::out_of_range(self.name(), text));
                }
                Err(_) => return Err(wrong()),
            },
            Kind::Number => number(text.trim()).ok_or_else(wrong)?,
            Kind::Boolean => match text.trim().to_ascii_lowercase().as_str() {
                "t" | "true" | "y" | "yes" | "on" | "1" => Value::Integer(1),
                "f" | "false" | "n" | "no" | "off" | "0" => Value::Integer(0),
                _ => return Err(wrong()),
            },
            Kind::Text => Value::Text(text.to_owned()),
            Kind::Json => match serde_json::from_str::<&RawValue>(text) {
                Ok(_) => Value::Text(text.to_owned()),
                Err(_) => return Err(refusal::bad_value("json", text)),
            },
            // PostgreSQL's own spelling, which postgrest-py sends, is no base64.
            Kind::Blob => match text.strip_prefix("\\x") {
                Some(digits) => Value::Blob(hexadecimal(digits).ok_or_else(wrong)?),
                None => Value::Blob(BASE64.decode(text).map_err(|_| wrong())?),
            },
            Kind::Any => match number(text) {
                // Only as it would be written: `007` is text.
                Some(Value::Integer(value)) if value.to_string() == text => Value::Integer(value),
                Some(Value::Real(value)) if value.to_string() == text => Value::Real(value),
                _ => Value::Text(text.to_owned()),
            },
        })
    }

    /// What a member of a JSON body stands for.
    pub fn read_json(self, json: &RawValue) -> Result<Value> {
        let text = json.get();
        match (text.as_bytes().first(), self) {
            (Some(b'n'), _) => Ok(Value::Null),
            (_, Kind::Json) => Ok(Value::Text(text.to_owned())),
            (Some(b'"'), _) => self.read(&serde_json::from_str::<String>(text).map_err(|_| refusal::bad_value(self.name(), text))?),
            (Some(b't'), Kind::Any) => Ok(Value::Integer(1)),
            (Some(b'f'), Kind::Any) => Ok(Value::Integer(0)),
            (Some(b'{' | b'['), Kind::Any) => Ok(Value::Text(text.to_owned())),
            // `5.0` is an integer too, as JSON has it.
            (Some(b'-' | b'0'..=b'9'), Kind::Integer) if text.contains(['.', 'e', 'E']) => match text.parse::<f64>() {
                Ok(value) if value.fract() == 0.0 && value.abs() < 9e15 => Ok(Value::Integer(value as i64)),
                _ => Err(refusal::bad_value(self.name(), text)),
            },
            _ => self.read(text),
        }
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn number(text: &str) -> Option<Value> {
    if let Ok(value) = text.parse::<i64>() {
        return Some(Value::Integer(value));
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Value::Real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_what_is_declared() {
        for (declared, kind) in [
            ("INTEGER", Kind::Integer),
            ("bigint", Kind::Integer),
            ("VARCHAR(20)", Kind::Text),
            ("boolean", Kind::Boolean),
            ("JSONB", Kind::Json),
            ("DECIMAL(10,2)", Kind::Number),
            ("double precision", Kind::Number),
            ("TIMESTAMP", Kind::Text),
            ("uuid", Kind::Text),
            ("BLOB", Kind::Blob),
            ("", Kind::Any),
        ] {
            assert_eq!(Kind::declared(declared), kind, "{declared}");
        }
    }

    #[test]
    fn text_is_bound_as_the_column_wants_it() {
        assert_eq!(Kind::Integer.read("9007199254740993").unwrap(), Value::Integer(9_007_199_254_740_993));
        assert_eq!(Kind::Number.read("1.5").unwrap(), Value::Real(1.5));
        assert_eq!(Kind::Boolean.read("true").unwrap(), Value::Integer(1));
        assert_eq!(Kind::Text.read("5").unwrap(), Value::Text("5".into()));
        assert_eq!(Kind::Any.read("007").unwrap(), Value::Text("007".into()));
        assert_eq!(Kind::Blob.read("AP8=").unwrap(), Value::Blob(vec![0, 255]));
        assert_eq!(Kind::Blob.read("\\x00Ff").unwrap(), Value::Blob(vec![0, 255]));
        for (kind, text) in [
            (Kind::Integer, "x"),
            (Kind::Integer, "99999999999999999999"),
            (Kind::Boolean, "2"),
            (Kind::Json, "{"),
            (Kind::Blob, "?"),
            (Kind::Blob, "\\x0"),
            (Kind::Blob, "\\x0g"),
        ] {
            assert!(kind.read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_member_is_bound_as_the_column_wants_it() {
        let read = |kind: Kind, json: &str| kind.read_json(serde_json::from_str(json).unwrap());
        assert_eq!(read(Kind::Json, r#"{"a": 1.10}"#).unwrap(), Value::Text(r#"{"a": 1.10}"#.into()));
        assert_eq!(read(Kind::Text, "5").unwrap(), Value::Text("5".into()));
        assert_eq!(read(Kind::Boolean, "false").unwrap(), Value::Integer(0));
        assert_eq!(read(Kind::Integer, "\"5\"").unwrap(), Value::Integer(5));
        assert_eq!(read(Kind::Integer, "5.0").unwrap(), Value::Integer(5));
        assert_eq!(read(Kind::Json, "null").unwrap(), Value::Null);
        assert!(read(Kind::Integer, "5.5").is_err() && read(Kind::Integer, "{}").is_err());
    }
}

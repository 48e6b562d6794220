//! What clients send, parsed once into types ([`StreamRequest`], [`socket::ClientMsg`]), and what they are answered
//! ([`StreamResponse`]). A value of these types makes sense: a statement has either a text or the id of a
//! stored one, a condition only asks about earlier steps, no list is longer than its bound.
//!
//! Members that the protocol does not have are skipped, as it demands. Nothing is kept of them, and a request is read in
//! one pass: serde's own tagged enums would first copy it whole, at many times its size.

mod answer;
pub mod socket;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

pub use answer::{BatchResult, Col, DescribeCol, DescribeParam, DescribeResult, Error, Rows, RowsDraft, StmtResult, StreamResponse};

/// Requests in one pipeline, and steps in one batch.
pub const STEPS_MAX: usize = 10_000;

/// Base64 in its standard alphabet; read with or without the padding, written with it.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// `POST /v2/pipeline`, `POST /v3/pipeline`.
#[derive(Debug, Deserialize)]
pub struct PipelineReqBody {
    #[serde(default)]
    pub baton: Option<String>,
    #[serde(deserialize_with = "bounded")]
    pub requests: Vec<StreamRequest>,
}

/// `POST /v3/cursor`.
#[derive(Debug, Deserialize)]
pub struct CursorReqBody {
    #[serde(default)]
    pub baton: Option<String>,
    pub batch: Batch,
}

/// One request on a stream.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawRequest")]
pub enum StreamRequest {
    Close,
    Execute(Stmt),
    Batch(Batch),
    Sequence(Sql),
    Describe(Sql),
    StoreSql { id: i32, sql: Arc<str> },
    CloseSql { id: i32 },
    GetAutocommit,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawStmt")]
pub struct Stmt {
    pub sql: Sql,
    /// Bound by position.
    pub args: Vec<Value>,
    /// Bound by name, after `args`: where both name a parameter, these win.
    pub named_args: Vec<NamedArg>,
    /// Otherwise its rows are not answered.
    pub want_rows: bool,
}

/// A statement's text, or the id of one that was stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Sql {
    Text(Arc<str>),
    Stored(i32),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct NamedArg {
    /// With or without its `:`, `@` or `$`.
    pub name: String,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawValue")]
pub enum Value {
    Null,
    Integer(i64),
    Float(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// Steps, run in order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawBatch")]
pub struct Batch {
    pub steps: Vec<BatchStep>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BatchStep {
    /// The step is skipped where this does not hold.
    #[serde(default)]
    pub condition: Option<BatchCond>,
    pub stmt: Stmt,
}

/// Nested no deeper than serde_json reads (128).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawCond")]
pub enum BatchCond {
    /// That step, which stands before this one, was run and succeeded.
    Ok(usize),
    /// That step, which stands before this one, was run and failed.
    Error(usize),
    Not(Box<BatchCond>),
    And(Vec<BatchCond>),
    Or(Vec<BatchCond>),
    /// No transaction is open.
    IsAutocommit,
}

/// The members of every kind of request; which ones there are to be, `type` says.
#[derive(Deserialize)]
struct RawRequest {
    r#type: String,
    stmt: Option<Stmt>,
    batch: Option<Batch>,
    sql: Option<String>,
    sql_id: Option<i32>,
}

#[derive(Deserialize)]
struct RawStmt {
    sql: Option<String>,
    sql_id: Option<i32>,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    named_args: Vec<NamedArg>,
    want_rows: Option<bool>,
}

#[derive(Deserialize)]
struct RawBatch {
    #[serde(deserialize_with = "bounded")]
    steps: Vec<BatchStep>,
}

#[derive(Deserialize)]
struct RawCond {
    r#type: String,
    step: Option<usize>,
    cond: Option<Box<BatchCond>>,
    conds: Option<Vec<BatchCond>>,
}

#[derive(Deserialize)]
struct RawValue {
    r#type: String,
    value: Option<Scalar>,
    base64: Option<String>,
}

enum Scalar {
    Number(f64),
    Text(String),
}

impl TryFrom<RawRequest> for StreamRequest {
    type Error = String;

    fn try_from(raw: RawRequest) -> Result<Self, String> {
        let RawRequest { r#type, stmt, batch, sql, sql_id } = raw;
        Ok(match r#type.as_str() {
            "close" => StreamRequest::Close,
            "execute" => StreamRequest::Execute(stmt.ok_or_else(|| missing("stmt"))?),
            "batch" => StreamRequest::Batch(batch.ok_or_else(|| missing("batch"))?),
            "sequence" => StreamRequest::Sequence(Sql::one_of(sql, sql_id)?),
            "describe" => StreamRequest::Describe(Sql::one_of(sql, sql_id)?),
            "store_sql" => {
                StreamRequest::StoreSql { id: sql_id.ok_or_else(|| missing("sql_id"))?, sql: sql.ok_or_else(|| missing("sql"))?.into() }
            }
            "close_sql" => StreamRequest::CloseSql { id: sql_id.ok_or_else(|| missing("sql_id"))? },
            "get_autocommit" => StreamRequest::GetAutocommit,
            other => return Err(unknown("request", other)),
        })
    }
}

impl TryFrom<RawStmt> for Stmt {
    type Error = String;

    fn try_from(raw: RawStmt) -> Result<Self, String> {
        let sql = Sql::one_of(raw.sql, raw.sql_id)?;
        Ok(Stmt { sql, args: raw.args, named_args: raw.named_args, want_rows: raw.want_rows.unwrap_or(true) })
    }
}

impl Sql {
    fn one_of(text: Option<String>, id: Option<i32>) -> Result<Sql, String> {
        match (text, id) {
            (Some(text), None) => Ok(Sql::Text(text.into())),
            (None, Some(id)) => Ok(Sql::Stored(id)),
            _ => Err("neither or both of \"sql\" and \"sql_id\"".to_owned()),
        }
    }
}

impl TryFrom<RawBatch> for Batch {
    type Error = String;

    fn try_from(raw: RawBatch) -> Result<Self, String> {
        for (index, step) in raw.steps.iter().enumerate() {
            if step.condition.as_ref().is_some_and(|condition| !condition.only_before(index)) {
                return Err(format!("the condition of step {index} is about a step that is not before it"));
            }
        }
        Ok(Batch { steps: raw.steps })
    }
}

impl BatchCond {
    fn only_before(&self, index: usize) -> bool {
        match self {
            BatchCond::Ok(step) | BatchCond::Error(step) => *step < index,
            BatchCond::Not(cond) => cond.only_before(index),
            BatchCond::And(conds) | BatchCond::Or(conds) => conds.iter().all(|cond| cond.only_before(index)),
            BatchCond::IsAutocommit => true,
        }
    }
}

impl TryFrom<RawCond> for BatchCond {
    type Error = String;

    fn try_from(raw: RawCond) -> Result<Self, String> {
        let RawCond { r#type, step, cond, conds } = raw;
        Ok(match r#type.as_str() {
            "ok" => BatchCond::Ok(step.ok_or_else(|| missing("step"))?),
            "error" => BatchCond::Error(step.ok_or_else(|| missing("step"))?),
            "not" => BatchCond::Not(cond.ok_or_else(|| missing("cond"))?),
            "and" => BatchCond::And(conds.ok_or_else(|| missing("conds"))?),
            "or" => BatchCond::Or(conds.ok_or_else(|| missing("conds"))?),
            "is_autocommit" => BatchCond::IsAutocommit,
            other => return Err(unknown("condition", other)),
        })
    }
}

impl TryFrom<RawValue> for Value {
    type Error = String;

    fn try_from(raw: RawValue) -> Result<Self, String> {
        Ok(match (raw.r#type.as_str(), raw.value, raw.base64) {
            ("null", _, _) => Value::Null,
            ("integer", Some(Scalar::Text(digits)), _) => {
                Value::Integer(digits.parse().map_err(|_| "an integer that is not a 64-bit signed decimal number".to_owned())?)
            }
            ("float", Some(Scalar::Number(value)), _) => Value::Float(value),
            ("text", Some(Scalar::Text(value)), _) => Value::Text(value),
            ("blob", _, Some(base64)) => Value::Blob(BASE64.decode(base64).map_err(|_| "a blob that is not base64".to_owned())?),
            ("integer", ..) => return Err("an integer has its digits as a string in \"value\"".to_owned()),
            ("float", ..) => return Err("a float has a number in \"value\"".to_owned()),
            ("text", ..) => return Err("a text has a string in \"value\"".to_owned()),
            ("blob", ..) => return Err("a blob has a string in \"base64\"".to_owned()),
            (other, ..) => return Err(unknown("value", other)),
        })
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Float(value) => ValueRef::Real(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
            Value::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneScalar;

        impl Visitor<'_> for OneScalar {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Scalar, E> {
                Ok(Scalar::Text(value))
            }
        }

        deserializer.deserialize_any(OneScalar)
    }
}

/// A list of at most [`STEPS_MAX`]; read no further than that.
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an array of at most {STEPS_MAX}")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == STEPS_MAX {
                    return Err(de::Error::custom(format_args!("more than {STEPS_MAX} requests or steps at once")));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Bounded(std::marker::PhantomData))
}

fn missing(member: &str) -> String {
    format!("\"{member}\" is missing")
}

/// What is not known is not repeated in full.
fn unknown(what: &str, kind: &str) -> String {
    format!("there is no {what} of type {:?}", kind.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests;

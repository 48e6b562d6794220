//! A written row's key as JSON, in which bytes are `{"bytes": hex}`; [`by_key`](super::super::render::by_key) finds the
//! row again.

use rusqlite::types::ValueRef;
use serde_json::json;

use super::super::schema::Shape;
use crate::sqlite::Cells;

/// Of the first `width` columns; of a rowid, the one value.
pub fn key(cells: &Cells<'_>, width: usize, shape: Shape) -> serde_json::Value {
    let value = |value| as_json(value, |bytes| json!({ "bytes": hex(bytes) }));
    match shape {
        Shape::WithoutRowid => cells.iter().take(width).map(value).collect(),
        _ => cells.iter().next().map_or(json!(null), value),
    }
}

/// A value, `bytes` saying what those are.
pub fn as_json(value: ValueRef<'_>, bytes: impl Fn(&[u8]) -> serde_json::Value) -> serde_json::Value {
    match value {
        ValueRef::Integer(value) => json!(value),
        ValueRef::Real(value) => json!(value),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(blob) => bytes(blob),
        ValueRef::Null => json!(null),
    }
}

/// A count; what is none is not reached by any.
pub fn as_count(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(count) => count,
        _ => -1,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

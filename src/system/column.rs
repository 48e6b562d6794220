//! A column read back as the type it was written from. A value that does not parse means that somebody else
//! wrote the file; it surfaces as SQLite's conversion error with the column's place.

use rusqlite::types::Type;
use rusqlite::{Error, Row};
use uuid::Uuid;

pub fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    parsed(row, column, |text| Uuid::parse_str(text).ok())
}

/// A number that counts something.
pub fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.max(0).unsigned_abs())
}

/// A text column read through `parse`.
pub fn parsed<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| Error::FromSqlConversionFailure(column, Type::Text, format!("unexpected value {text:?}").into()))
}

//! A column read back as the type it was written from. A value that does not parse means that somebody else
//! wrote the file; it surfaces as SQLite's conversion error with the column's place.

use rusqlite::types::Type;
use rusqlite::{Error, Row};
use uuid::Uuid;

pub fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    parsed(row, column, |text| Uuid::parse_str(text).ok())
}

pub fn uuid_or_null(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| Uuid::parse_str(&text).map_err(|e| Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))).transpose()
}

/// A text column read through `parse`.
pub fn parsed<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| Error::FromSqlConversionFailure(column, Type::Text, format!("unexpected value {text:?}").into()))
}

//! Reading a [`Schema`] out of a database: tables, views and FTS5 tables, not SQLite's own nor Tenantry's. What
//! SQLite itself cannot describe (a view over a table that is gone) is left out.

use rusqlite::types::Type;
use sha2::{Digest, Sha256};

use super::super::policy::rules::{Access, Rights};
use super::super::value::Kind;
use super::constraints;
use super::{Column, ForeignKey, Schema, Shape, Table, views};
use crate::error::{Code, Result};
use crate::sqlite::Reader;

const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// Of all that makes the schema what it is.
pub fn hash(reader: &Reader<'_>) -> Result<[u8; 32]> {
    let sql = "SELECT coalesce(sql, name) FROM main.sqlite_schema ORDER BY rowid";
    let mut hasher = Sha256::new();
    reader.rows(sql, [], |row| {
        let text = row.get_ref(0)?;
        let text = text.as_bytes().map_err(|_| rusqlite::Error::InvalidColumnType(0, "sql".to_owned(), Type::Text))?;
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
        Ok(())
    })?;
    Ok(hasher.finalize().into())
}

/// A foreign key as SQLite lists it: (id, table, from, to).
type Listed = (i64, String, String, Option<String>);

pub fn schema(reader: &Reader<'_>) -> Result<Schema> {
    let sql = "SELECT l.name, l.type, l.wr, coalesce(m.sql, '') FROM pragma_table_list l \
               JOIN main.sqlite_schema m ON m.name = l.name AND m.type IN ('table', 'view') \
               WHERE l.schema = 'main' AND l.type IN ('table', 'view', 'virtual') AND substr(lower(l.name), 1, 7) <> 'sqlite_' \
               AND substr(lower(l.name), 1, 10) <> '_tenantry_' ORDER BY m.rowid";
    let listed = reader
        .rows(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?, row.get::<_, String>(3)?)))?;
    let mut tables = Vec::with_capacity(listed.len());
    let mut keys = Vec::with_capacity(listed.len());
    for (name, shape, without_rowid, sql) in listed {
        let full_text = shape == "virtual" && is_full_text(&sql);
        if shape == "virtual" && !full_text {
            continue;
        }
        let Some((columns, key)) = columns(reader, &name)? else { continue };
        let shape = match shape.as_str() {
            "view" => Shape::View,
            _ if full_text => Shape::FullText,
            _ if without_rowid => Shape::WithoutRowid,
            _ => match ROWID_NAMES.into_iter().find(|name| columns.iter().all(|column| !column.name.eq_ignore_ascii_case(name))) {
                Some(rowid) => Shape::Rowid(rowid),
                None => continue,
            },
        };
        let (indexes, mut unique) = indexes(reader, &name, &columns)?;
        if !key.is_empty() {
            unique.push(key.clone());
        }
        keys.push((foreign_keys(reader, &name)?, constraints::names(&sql)));
        let replaces = shape != Shape::View && constraints::replaces(&sql);
        let access = Access::default();
        tables.push(Table { name, shape, columns, key, unique, indexes, foreign_keys: Vec::new(), replaces, access });
    }
    for (id, (listed, names)) in keys.into_iter().enumerate() {
        let found = resolve(&tables, id, &listed, &names);
        tables[id].foreign_keys = found;
    }
    views::trace(reader, &mut tables)?;
    views::inherit(&mut tables);
    Ok(Schema::of(tables))
}

fn is_full_text(sql: &str) -> bool {
    sql.to_ascii_lowercase().split_once("using").is_some_and(|(_, module)| module.trim_start().starts_with("fts5"))
}

/// The columns, and which of them are the primary key; `None` where SQLite cannot say.
fn columns(reader: &Reader<'_>, table: &str) -> Result<Option<(Vec<Column>, Vec<usize>)>> {
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid";
    let mut key = Vec::new();
    let mut at = 0;
    let read = reader.rows(sql, [table], |row| {
        let (declared, place): (String, i64) = (row.get(1)?, row.get(4)?);
        if place > 0 {
            key.push((place, at));
        }
        at += 1;
        let kind = Kind::declared(&declared);
        Ok(Column {
            name: row.get(0)?,
            declared,
            kind,
            not_null: row.get::<_, bool>(2)?,
            default: row.get(3)?,
            generated: row.get::<_, i64>(5)? > 1,
            origin: None,
            rights: Rights::default(),
        })
    });
    let mut columns = match read {
        Ok(columns) if columns.is_empty() => return Ok(None),
        Ok(columns) => columns,
        Err(error) if error.code() == Code::SqlError => return Ok(None),
        Err(error) => return Err(error),
    };
    key.sort_unstable();
    let key: Vec<usize> = key.into_iter().map(|(_, column)| column).collect();
    // An INTEGER PRIMARY KEY is the rowid, which is never null and makes itself.
    if let [only] = key[..]
        && columns[only].declared.eq_ignore_ascii_case("integer")
    {
        columns[only].not_null = true;
        columns[only].default = Some("NULL".to_owned());
    }
    Ok(Some((columns, key)))
}

/// The columns of all indexes, and of the unique ones. Partial ones do not count.
#[allow(clippy::type_complexity)]
fn indexes(reader: &Reader<'_>, table: &str, columns: &[Column]) -> Result<(Vec<Vec<usize>>, Vec<Vec<usize>>)> {
    let sql = "SELECT i.name, i.\"unique\", c.name FROM pragma_index_list(?1) i, pragma_index_info(i.name) c \
               WHERE NOT i.partial ORDER BY i.seq, c.seqno";
    let listed =
        reader.rows(sql, [table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<String>>(2)?)))?;
    let (mut all, mut unique) = (Vec::new(), Vec::new());
    for index in listed.chunk_by(|a, b| a.0 == b.0) {
        // An index on an expression names no column.
        let found: Option<Vec<usize>> =
            index.iter().map(|(_, _, name)| columns.iter().position(|column| Some(&column.name) == name.as_ref())).collect();
        let Some(found) = found else { continue };
        if index[0].1 { unique.push(found) } else { all.push(found) }
    }
    Ok((all, unique))
}

fn foreign_keys(reader: &Reader<'_>, table: &str) -> Result<Vec<Listed>> {
    let sql = "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id DESC, seq";
    reader.rows(sql, [table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
}

/// The foreign keys in the order of their declaration, each with its name. Those that lead nowhere are left out.
fn resolve(tables: &[Table], from: usize, listed: &[Listed], names: &[Option<String>]) -> Vec<ForeignKey> {
    let table = &tables[from];
    let position = |table: &Table, name: &str| table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    let declared: Vec<&[Listed]> = listed.chunk_by(|a, b| a.0 == b.0).collect();
    // Names count only where each key was found in the text.
    let named = names.len() == declared.len();
    let keys = declared.into_iter().enumerate().filter_map(|(at, parts)| {
        let to = tables.iter().position(|table| table.name.eq_ignore_ascii_case(&parts[0].1))?;
        let columns: Vec<usize> = parts.iter().map(|part| position(table, &part.2)).collect::<Option<_>>()?;
        let to_columns: Vec<usize> = if parts.iter().all(|part| part.3.is_none()) {
            tables[to].key.clone()
        } else {
            parts.iter().map(|part| position(&tables[to], part.3.as_ref()?)).collect::<Option<_>>()?
        };
        if columns.len() != to_columns.len() {
            return None;
        }
        let name = names.get(at).filter(|_| named).cloned().flatten();
        let name = name.unwrap_or_else(|| ForeignKey::default_name(table, &columns));
        let in_key = columns.iter().all(|column| table.key.contains(column));
        Some(ForeignKey { name, unique: table.is_unique(&columns), in_key, reflexive: from == to, columns, to, to_columns })
    });
    keys.collect()
}

//! A key index is one that Tenantry makes, because a foreign key of a tenant's table has none that serves it. It is of the
//! file, and of nobody's schema: migrations begin by dropping those that are there, as one would bar a change of its
//! columns, and two files that differ in them only have the same [`Shape`](super::Shape).

use rusqlite::Connection;

use super::reader::WriteTx;
use crate::error::Result;

/// What their names begin with. Tenants may drop them, and cannot make one.
pub const PREFIX: &str = "_tenantry_fk_";

pub fn is_one(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX))
}

/// Those that the file has are dropped.
pub fn drop_all(conn: &Connection) -> rusqlite::Result<()> {
    let drops = "SELECT group_concat(format('DROP INDEX main.\"%w\";', name), '') FROM main.sqlite_schema \
                 WHERE type = 'index' AND substr(lower(name), 1, length(?1)) = ?1";
    match conn.query_row(drops, [PREFIX], |row| row.get::<_, Option<String>>(0))? {
        Some(drops) => conn.execute_batch(&drops),
        None => Ok(()),
    }
}

impl WriteTx<'_> {
    /// Makes the index of these columns of a table, if it has at most `rows` rows; whether it has.
    pub fn index_key(&self, table: &str, columns: &[String], rows: u64) -> Result<bool> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let first = i64::try_from(rows).unwrap_or(i64::MAX);
        let past = format!("SELECT 1 FROM main.{} LIMIT 1 OFFSET {first}", quoted(table));
        if self.session.conn.prepare(&past)?.exists([])? {
            return Ok(false);
        }
        let name = quoted(&format!("{PREFIX}{table}_{}", columns.join("_")));
        let columns: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
        self.batch(&format!("CREATE INDEX IF NOT EXISTS main.{name} ON {} ({})", quoted(table), columns.join(",")))?;
        Ok(true)
    }
}

//! A key index is one that Tenantry makes, because a foreign key of a tenant's table has none that serves it. It is of the
//! file, and of nobody's schema: migrations begin by dropping those that are there, and a
//! tenant's ALTER TABLE by dropping the table's, as one would bar a change of its columns. Two files that differ in them only have the same [`Shape`](super::Shape).

use rusqlite::{Connection, ToSql};
use sha2::{Digest, Sha256};

use super::migrate::hex;
use super::reader::WriteTx;
use crate::error::Result;

/// What their names begin with. Tenants may drop them, and cannot make one.
pub const PREFIX: &str = "_tenantry_fk_";

pub fn is_one(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX))
}

/// Those that the file has are dropped.
pub fn drop_all(conn: &Connection) -> rusqlite::Result<()> {
    drop_those(conn, "", &[&PREFIX])
}

/// Those of one table are dropped: each may bar a change of its columns.
pub fn drop_of(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    drop_those(conn, "AND tbl_name = ?2 COLLATE NOCASE", &[&PREFIX, &table])
}

impl WriteTx<'_> {
    /// Has an index begin with these columns of a table: makes one where none does and the table has at most `rows` rows.
    /// Whether one does.
    pub fn index_key(&self, table: &str, columns: &[String], rows: u64) -> Result<bool> {
        if self.has_index(table, columns)? {
            return Ok(true);
        }
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let first = i64::try_from(rows).unwrap_or(i64::MAX);
        let past = format!("SELECT 1 FROM main.{} LIMIT 1 OFFSET {first}", quoted(table));
        if self.session.conn.prepare(&past)?.exists([])? {
            return Ok(false);
        }
        let name = quoted(&name(table, columns));
        let columns_quoted: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
        // What has its name serves a table that was renamed since.
        self.batch(&format!(
            "DROP INDEX IF EXISTS main.{name}; CREATE INDEX main.{name} ON {} ({})",
            quoted(table),
            columns_quoted.join(",")
        ))?;
        self.has_index(table, columns)
    }

    fn has_index(&self, table: &str, columns: &[String]) -> Result<bool> {
        let of_table = "SELECT name FROM pragma_index_list(?1, 'main') WHERE NOT partial";
        let begins = "SELECT name FROM pragma_index_info(?1, 'main') ORDER BY seqno";
        for index in self.rows(of_table, [table], |row| row.get::<_, String>(0))? {
            let has: Vec<Option<String>> = self.rows(begins, [index], |row| row.get(0))?;
            let same = |(has, wanted): (&Option<String>, &String)| has.as_ref().is_some_and(|has| has.eq_ignore_ascii_case(wanted));
            if has.len() >= columns.len() && has.iter().zip(columns).all(same) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Of one table's columns: the names alone, joined, may be those of others'.
fn name(table: &str, columns: &[String]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(table).chain(columns.iter().map(String::as_str)) {
        hash.update(part);
        hash.update([0]);
    }
    format!("{PREFIX}{table}_{}_{}", columns.join("_"), &hex(&hash.finalize())[..8])
}

fn drop_those(conn: &Connection, which: &str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
    let drops = format!(
        "SELECT group_concat(format('DROP INDEX main.\"%w\";', name), '') FROM main.sqlite_schema \
         WHERE type = 'index' AND substr(lower(name), 1, length(?1)) = ?1 {which}"
    );
    match conn.query_row(&drops, values, |row| row.get::<_, Option<String>>(0))? {
        Some(drops) => conn.execute_batch(&drops),
        None => Ok(()),
    }
}

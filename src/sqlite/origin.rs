//! An [`Origin`] is the table's column that a column of a SELECT is, through however many views: its values are that
//! column's as they are stored. What is computed has none.

use super::reader::Reader;
use crate::error::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub table: String,
    /// `rowid`, where the table has no other name for it.
    pub column: String,
}

impl Reader<'_> {
    /// Of each column of `select`, which has no parameters. None has an origin where rows of several SELECTs are put
    /// together (UNION and the like, WITH RECURSIVE): SQLite knows that of one of them.
    pub fn origins(&self, select: &str) -> Result<Vec<Option<Origin>>> {
        let conn = &self.session.conn;
        self.session.gather();
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {select}"))?;
        let steps: Vec<String> = plan.query_map([], |row| row.get("detail"))?.collect::<rusqlite::Result<_>>()?;
        let compound = |step: &String| ["COMPOUND QUERY", "MERGE (", "RECURSIVE STEP"].iter().any(|begin| step.starts_with(begin));
        let is_compound = steps.iter().any(compound);
        let origin = |column: &rusqlite::ColumnMetadata<'_>| {
            let (table, column) = (column.table_name()?, column.origin_name()?);
            (!is_compound).then(|| Origin { table: table.to_owned(), column: column.to_owned() })
        };
        Ok(conn.prepare(select)?.columns_with_metadata().iter().map(origin).collect())
    }
}

//! What views have of their tables' foreign keys. A view whose columns show all columns of a key, or all that a key
//! refers to, is related as the table itself is: to the tables at the key's other end, and to the views of those. A view
//! that shows a column several times, of one row or of several that it joins, has the key as often.

use std::collections::BTreeMap;

use super::super::expression::identifier;
use super::{ForeignKey, Shape, Table, TableId};
use crate::error::{Code, Result};
use crate::sqlite::Reader;

/// Keys that all views of a schema have together; the others are not theirs.
const INHERITED_MAX: usize = 10_000;

/// Each column of a table with the views that show it, in the order of views and of columns.
type Shown = BTreeMap<(TableId, usize), Vec<(TableId, usize)>>;

/// Finds which tables' columns the views' are.
pub fn trace(reader: &Reader<'_>, tables: &mut [Table]) -> Result<()> {
    for view in 0..tables.len() {
        if tables[view].shape != Shape::View {
            continue;
        }
        let origins = match reader.origins(&format!("SELECT * FROM {}", identifier(&tables[view].name))) {
            Ok(origins) if origins.len() == tables[view].columns.len() => origins,
            Ok(_) => continue,
            Err(error) if error.code() == Code::SqlError => continue,
            Err(error) => return Err(error),
        };
        for (at, origin) in origins.into_iter().enumerate() {
            tables[view].columns[at].origin = origin.and_then(|origin| {
                let table = tables.iter().position(|table| table.name.eq_ignore_ascii_case(&origin.table))?;
                let column = tables[table].columns.iter().position(|column| column.name.eq_ignore_ascii_case(&origin.column))?;
                (tables[table].shape != Shape::View).then_some((table, column))
            });
        }
    }
    Ok(())
}

/// Gives each view the keys that it shows, and each key the views that show what it refers to.
pub fn inherit(tables: &mut [Table]) {
    let mut shown = Shown::new();
    for (id, table) in tables.iter().enumerate() {
        for (at, column) in table.columns.iter().enumerate() {
            column.origin.iter().for_each(|origin| shown.entry(*origin).or_default().push((id, at)));
        }
    }
    let mut inherited = Vec::new();
    for (from, table) in tables.iter().enumerate() {
        for key in &table.foreign_keys {
            let ends = ends(&shown, key.to, &key.to_columns);
            for (child, columns) in self::ends(&shown, from, &key.columns) {
                let keys = ends.iter().filter(|(parent, _)| (child, *parent) != (from, key.to));
                inherited.extend(keys.map(|(to, to_columns)| {
                    (child, ForeignKey { columns: columns.clone(), to: *to, to_columns: to_columns.clone(), ..key.clone() })
                }));
                if inherited.len() > INHERITED_MAX {
                    tracing::warn!("views show more than {INHERITED_MAX} foreign keys: no rows are embedded over the others");
                    inherited.truncate(INHERITED_MAX);
                    return give(tables, inherited);
                }
            }
        }
    }
    give(tables, inherited);
}

fn give(tables: &mut [Table], inherited: Vec<(TableId, ForeignKey)>) {
    for (table, key) in inherited {
        tables[table].foreign_keys.push(key);
    }
}

/// These columns of `table`, and where views show all of them: the first time each with the first of the others.
fn ends(shown: &Shown, table: TableId, columns: &[usize]) -> Vec<(TableId, Vec<usize>)> {
    let views_of = |column: usize| shown.get(&(table, column)).map_or(&[][..], Vec::as_slice);
    let mut ends = vec![(table, columns.to_vec())];
    let Some((&first, others)) = columns.split_first() else { return ends };
    for of_view in views_of(first).chunk_by(|a, b| a.0 == b.0) {
        for (time, &(view, column)) in of_view.iter().enumerate() {
            let same_time = |&other: &usize| views_of(other).iter().filter(|(one, _)| *one == view).nth(time).map(|(_, column)| *column);
            let all: Option<Vec<usize>> = std::iter::once(Some(column)).chain(others.iter().map(same_time)).collect();
            ends.extend(all.map(|all| (view, all)));
        }
    }
    ends
}

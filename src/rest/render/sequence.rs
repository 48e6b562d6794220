//! In which order rows are answered, and from where to where.

use rusqlite::types::Value;

use super::super::expression::{identifier, json_path};
use super::super::order::Term;
use super::super::page::Page;
use super::super::plan::Node;
use super::super::query::Rows;
use super::super::refusal;
use super::super::schema::Shape;
use super::super::select::Path;
use super::{Renderer, Slot, alias};
use crate::error::Result;

impl Renderer<'_> {
    /// The request's order; else `otherwise`; else the order of the key, so that pages do not overlap.
    pub(super) fn order(&mut self, node: &Node<'_>, otherwise: Option<String>) -> Result<String> {
        let terms = node.rows.map_or(&[][..], |rows| &rows.order);
        let mut by = Vec::with_capacity(terms.len());
        for term in terms {
            by.push(self.term(node, term)?);
        }
        let table = self.table(node);
        match (by.is_empty(), otherwise, table.shape) {
            (true, Some(otherwise), _) => by.push(otherwise),
            (true, None, _) if node.is_aggregate() || self.is_given(node) => {}
            (true, None, Shape::Rowid(rowid)) => by.push(format!("{}.{rowid}", alias(node))),
            (true, None, Shape::WithoutRowid) => {
                by.extend(table.key.iter().map(|&key| format!("{}.{}", alias(node), identifier(&table.columns[key].name))));
            }
            _ => {}
        }
        Ok(if by.is_empty() { String::new() } else { format!(" ORDER BY {}", by.join(",")) })
    }

    fn term(&mut self, node: &Node<'_>, term: &Term) -> Result<String> {
        let sql = match &term.relation {
            None => self.ordered(node, &term.path)?,
            Some(relation) => {
                let child = node.child(relation).ok_or_else(|| refusal::not_embedded(relation))?;
                if !child.is_to_one() {
                    return Err(refusal::not_to_one(&self.table(node).name, relation));
                }
                let value = self.ordered(child, &term.path)?;
                self.single(child, &value)?
            }
        };
        let direction = if term.descending { "DESC" } else { "ASC" };
        Ok(format!("{sql} {direction} NULLS {}", if term.nulls_first { "FIRST" } else { "LAST" }))
    }

    /// Where the root's rows begin and end. A sum, since SQLite compiles a statement whose limit is a parameter anew
    /// each time that is bound.
    pub(super) fn page(&mut self, page: Page) -> String {
        let mut limit = || self.binder.bind_from(Slot::Limit, Value::Integer(page.limit_bound().unwrap_or(-1)));
        match (page.limit, page.offset) {
            (None, 0) => String::new(),
            (_, 0) => format!(" LIMIT {}+0", limit()),
            _ => format!(" LIMIT {}+0 OFFSET {}+0", limit(), self.binder.bind_from(Slot::Offset, Value::Integer(page.offset_bound()))),
        }
    }

    /// The same of embedded rows.
    pub(super) fn part(&self, rows: Option<&Rows>) -> String {
        let (limit, offset) = rows.map_or((None, None), |rows| (rows.limit, rows.offset));
        match (limit, offset.unwrap_or(0)) {
            (None, 0) => String::new(),
            (limit, 0) => format!(" LIMIT {}", limit.unwrap_or(-1)),
            (limit, offset) => format!(" LIMIT {} OFFSET {offset}", limit.unwrap_or(-1)),
        }
    }

    fn ordered(&mut self, node: &Node<'_>, path: &Path) -> Result<String> {
        if path.steps.is_empty() || path.as_text {
            return Ok(self.path(node, path)?.sql);
        }
        let column = Path { steps: Vec::new(), ..path.clone() };
        let column = self.path(node, &column)?;
        let steps = self.binder.bind_common(json_path(&path.steps));
        Ok(column.ordered_within(&steps).sql)
    }
}

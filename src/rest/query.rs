//! A [`Query`] is a request's query string, read: what is asked for, and for the root and each embedded table which
//! rows, in which order, from where to where.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::filter::{self, Logic};
use super::order::{self, Term};
use super::outline::literal;
use super::select::{self, Item};
use crate::error::Result;

/// The most parameters of one request.
const PARAMETERS_MAX: usize = 200;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Everything, if it does not say.
    pub items: Option<Vec<Item>>,
    /// By the path of embeds that leads to the table; the root's is empty.
    pub rows: BTreeMap<Vec<String>, Rows>,
    pub columns: Option<Vec<String>>,
    pub on_conflict: Option<Vec<String>>,
}

/// Which rows of one table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub filters: Vec<Logic>,
    pub order: Vec<Term>,
    pub limit: Option<i64>,
    pub offset: Option<i64>,
}

impl Query {
    /// Reads `name=value` pairs, already decoded.
    pub fn parse(pairs: &[(String, String)]) -> Result<Query> {
        if pairs.len() > PARAMETERS_MAX {
            return Err(super::refusal::too_many("query parameters", PARAMETERS_MAX));
        }
        let mut query = Query::default();
        for (number, (name, value)) in pairs.iter().enumerate() {
            match name.as_str() {
                // Twice the same is read once: the last one, as PostgREST does for all but filters.
                "select" if value.is_empty() => query.items = Some(Vec::new()),
                "select" => query.items = Some(select::parse(value)?),
                "columns" => query.columns = Some(select::names("columns parameter", value)?),
                "on_conflict" => query.on_conflict = Some(select::names("on_conflict parameter", value)?),
                _ => query.parameter(name, value, literal(name, value).map(|_| number))?,
            }
        }
        Ok(query)
    }

    /// The root's rows.
    pub fn root(&self) -> Option<&Rows> {
        self.rows.get(&[] as &[String])
    }

    fn parameter(&mut self, name: &str, value: &str, literal: Option<usize>) -> Result<()> {
        let (mut path, last) = tree_path(name)?;
        match (last.as_str(), last.contains("->")) {
            ("order", _) => self.at(path).order = order::parse(value)?,
            ("limit", _) => self.at(path).limit = value.parse().ok(),
            ("offset", _) => self.at(path).offset = value.parse().ok(),
            ("and" | "or", _) => {
                let negated = path.last().is_some_and(|before| before == "not");
                if negated {
                    path.pop();
                }
                let tree = filter::parse_tree(negated, last == "or", value)?;
                self.at(path).filters.push(tree);
            }
            _ => {
                let mut cursor = Cursor::new("tree path", &last);
                let column = select::path(&mut cursor)?;
                cursor.end("\"->\" or end of input")?;
                let filter = filter::parse(column, value, literal)?;
                self.at(path).filters.push(Logic::Filter(filter));
            }
        }
        Ok(())
    }

    fn at(&mut self, path: Vec<String>) -> &mut Rows {
        self.rows.entry(path).or_default()
    }
}

/// `a.b.c->d` → (`a`, `b`), `c->d`
fn tree_path(name: &str) -> Result<(Vec<String>, String)> {
    let mut cursor = Cursor::new("tree path", name);
    let mut path = Vec::new();
    loop {
        let rest = cursor.rest().to_owned();
        let segment = cursor.name()?;
        if !cursor.eat(".") {
            return Ok((path, rest));
        }
        path.push(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Query> {
        Query::parse(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn a_parameter_goes_to_the_table_it_names() {
        let query = read(&[
            ("select", "id,child(id,grand(id))"),
            ("id", "eq.1"),
            ("id", "lt.9"),
            ("child.data->a->>b", "eq.x"),
            ("child.grand.order", "id.desc"),
            ("child.not.or", "(a.eq.1,b.eq.2)"),
            ("limit", "5"),
        ])
        .unwrap();
        let root = query.root().unwrap();
        assert_eq!((root.filters.len(), root.limit, root.offset), (2, Some(5), None));
        let child = &query.rows[&vec!["child".to_owned()]];
        assert!(matches!(&child.filters[0], Logic::Filter(filter) if filter.path.steps.len() == 2));
        assert!(matches!(&child.filters[1], Logic::Group { negated: true, any: true, .. }));
        assert_eq!(query.rows[&vec!["child".to_owned(), "grand".to_owned()]].order.len(), 1);
    }

    #[test]
    fn a_name_with_a_dot_is_quoted() {
        let query = read(&[("\"a.b\"", "eq.1")]).unwrap();
        assert!(matches!(&query.root().unwrap().filters[0], Logic::Filter(filter) if filter.path.column == "a.b"));
        assert!(read(&[("a..b", "eq.1")]).is_err());
    }
}

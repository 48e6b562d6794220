//! A [`Plan`] is a query placed on a schema: a tree of tables, each with the relation that leads to it, what is asked
//! of it and which of its rows. Every table's reference has a number, by which SQL calls it.

use std::borrow::Cow;

use rusqlite::types::Value;

use super::access::Command;
use super::indexes::{Index, Lacking};
use super::query::{Query, Rows};
use super::refusal;
use super::relation::{self, Relation};
use super::schema::{Schema, Table, TableId};
use super::select::{Aggregate, Embed, Field, Item, Path};
use crate::error::Result;

/// Tables embedded in one another.
const DEPTH_MAX: usize = 8;

/// Tables in one request, so that one statement stays within SQLite's bounds.
const TABLES_MAX: usize = 64;

pub struct Plan<'q> {
    pub root: Node<'q>,
    /// What stands in the place of the root's table, if something does.
    pub given: Option<Given>,
}

/// Rows that a query of ours gives, like a table's. They are the caller's to see.
pub struct Given {
    pub sql: String,
    /// What `sql` is bound to: the statement's first parameters.
    pub values: Vec<Value>,
}

pub struct Node<'q> {
    pub table: TableId,
    /// Of the reference; a junction's is the next one.
    pub number: usize,
    /// The number of the table it is embedded in.
    pub parent: Option<usize>,
    pub relation: Option<Relation>,
    pub embed: Option<&'q Embed>,
    pub items: Cow<'q, [Item]>,
    pub rows: Option<&'q Rows>,
    /// In the order of their items.
    pub children: Vec<Node<'q>>,
}

const EVERYTHING: &[Item] = &[Item::Star];

/// A table and how it was come to.
struct Reached<'q> {
    table: TableId,
    parent: Option<usize>,
    relation: Option<Relation>,
    embed: Option<&'q Embed>,
    items: &'q [Item],
}

struct Planner<'q> {
    schema: &'q Schema,
    query: &'q Query,
    lacking: &'q Lacking,
    numbers: usize,
    reached: Vec<Vec<String>>,
}

impl<'q> Plan<'q> {
    pub fn new(schema: &'q Schema, query: &'q Query, root: TableId, lacking: &'q Lacking) -> Result<Plan<'q>> {
        let mut planner = Planner { schema, query, lacking, numbers: 0, reached: Vec::new() };
        let items = query.items.as_deref().unwrap_or(EVERYTHING);
        let root = planner.node(Reached { table: root, parent: None, relation: None, embed: None, items }, &mut Vec::new())?;
        // What is said of a table that is not asked for is a mistake of somebody who would wonder about the answer.
        match query.rows.keys().find(|path| !planner.reached.contains(path)) {
            Some(path) => Err(refusal::not_embedded(path.first().map_or("", String::as_str))),
            None => Ok(Plan { root, given: None }),
        }
    }
}

impl<'q> Planner<'q> {
    fn node(&mut self, reached: Reached<'q>, path: &mut Vec<String>) -> Result<Node<'q>> {
        let Reached { table, parent, relation, embed, items } = reached;
        if path.len() > DEPTH_MAX {
            return Err(refusal::too_deep(DEPTH_MAX));
        }
        let number = self.numbers;
        // Two, as it may need one for its junction.
        self.numbers += 2;
        if self.numbers > 2 * TABLES_MAX {
            return Err(refusal::too_many("embedded tables", TABLES_MAX));
        }
        self.reached.push(path.clone());
        let rows = self.query.rows.get(path);
        let mut children = Vec::new();
        for item in items {
            let Item::Embed(embed) = item else { continue };
            let relation = relation::find(self.schema, table, embed)?;
            self.is_indexed(&relation)?;
            path.push(embed.key().to_owned());
            let reached =
                Reached { table: relation.target, parent: Some(number), relation: Some(relation), embed: Some(embed), items: &embed.items };
            children.push(self.node(reached, path)?);
            path.pop();
        }
        let items = with_counts(self.schema.table(table), items);
        Ok(Node { table, number, parent, relation, embed, items, rows, children })
    }

    fn is_indexed(&self, relation: &Relation) -> Result<()> {
        if self.lacking.is_fine() {
            return Ok(());
        }
        let (reached, columns) = match &relation.junction {
            None => (relation.target, &relation.near),
            Some(junction) => (junction.table, &relation.near),
        };
        let columns: Vec<usize> = columns.iter().map(|pair| pair.1).collect();
        let (origin, target) = (&self.schema.table(relation.origin).name, &self.schema.table(relation.target).name);
        let (stored, columns) = self.schema.stored(reached, &columns);
        let table = self.schema.table(stored);
        if table.is_indexed(&columns) {
            return Ok(());
        }
        let is_known = self.schema.find(&table.name).is_some() && columns.iter().all(|&at| table.columns[at].rights.has(Command::Select));
        let names = columns.iter().map(|&column| table.columns[column].name.clone()).collect();
        let index = Index { table: table.name.clone(), columns: names };
        Err(self.lacking.refuse(origin, target, index, is_known))
    }
}

/// `count` is `count()` in a table without a column of that name: PostgreSQL reads it so, and clients are told to write
/// it.
fn with_counts<'q>(table: &Table, items: &'q [Item]) -> Cow<'q, [Item]> {
    let is_count = |path: &Path| path.column == Aggregate::Count.name() && path.steps.is_empty();
    let counts = |item: &Item| matches!(item, Item::Field(Field { path: Some(path), aggregate: None, .. }) if is_count(path));
    if table.column(Aggregate::Count.name()).is_some() || !items.iter().any(counts) {
        return Cow::Borrowed(items);
    }
    let counted = |item: &Item| match item {
        Item::Field(field) if counts(item) => {
            let (alias, aggregate_cast) = (field.alias.clone(), field.cast.clone());
            Item::Field(Field { alias, path: None, cast: None, aggregate: Some(Aggregate::Count), aggregate_cast })
        }
        other => other.clone(),
    };
    Cow::Owned(items.iter().map(counted).collect())
}

impl<'q> Node<'q> {
    /// The embedded table that the request calls `key`.
    pub fn child(&self, key: &str) -> Option<&Node<'q>> {
        self.children.iter().find(|child| child.embed.is_some_and(|embed| embed.key() == key))
    }

    pub fn is_to_one(&self) -> bool {
        self.relation.as_ref().is_none_or(Relation::is_to_one)
    }

    /// Whether its rows are grouped.
    pub fn is_aggregate(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Field(field) if field.aggregate.is_some()))
    }
}

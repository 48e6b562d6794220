//! A [`Relation`] is the way from one table to another: over a foreign key in one of the two directions, or through
//! a junction, a table whose primary key holds a foreign key to each of them. Views are tables here, with the keys that
//! they show of theirs; as a junction, only where there is no table that is one, or where a hint names it.

use serde_json::{Value, json};

use super::refusal;
use super::schema::{ForeignKey, Schema, Shape, TableId};
use super::select::Embed;
use crate::error::Result;

#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    pub origin: TableId,
    pub target: TableId,
    pub cardinality: Cardinality,
    /// Columns of the origin with those of the target, or of the junction, that they equal.
    pub near: Vec<(usize, usize)>,
    pub junction: Option<Junction>,
    /// Of the foreign key; of the junction's two.
    names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Junction {
    pub table: TableId,
    /// Its columns with those of the target that they equal.
    pub far: Vec<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    ManyToOne,
    OneToMany,
    OneToOne,
    ManyToMany,
}

impl Cardinality {
    const fn name(self) -> &'static str {
        match self {
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToMany => "many-to-many",
        }
    }
}

impl Relation {
    /// Answered as an object, not an array.
    pub fn is_to_one(&self) -> bool {
        matches!(self.cardinality, Cardinality::ManyToOne | Cardinality::OneToOne)
    }
}

/// The one relation that `embed` means in a row of `origin`.
pub fn find(schema: &Schema, origin: TableId, embed: &Embed) -> Result<Relation> {
    let hint = embed.hint.as_deref();
    let is_view = |id: TableId| schema.table(id).shape == Shape::View;
    let mut found: Vec<Relation> = all(schema, origin).filter(|relation| is_meant(schema, relation, &embed.name, hint)).collect();
    if found.len() > 1 {
        let (by_tables, over_views): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|one| one.junction.as_ref().is_none_or(|by| !is_view(by.table)));
        found = if by_tables.is_empty() { over_views } else { by_tables };
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let error = refusal::no_relation(&schema.table(origin).name, &embed.name, hint);
            let over_view = is_view(origin) || schema.find(&embed.name).is_some_and(is_view);
            let shows = "A view has its tables' foreign keys where it shows all of a key's columns as they are, and is no UNION.";
            Err(if over_view { error.hint(shows) } else { error })
        }
        _ => {
            let choices = found.iter().map(|relation| (hint_for(schema, relation), describe(schema, relation))).collect();
            Err(refusal::ambiguous(&schema.table(origin).name, &embed.name, choices))
        }
    }
}

/// Every relation from `origin`.
fn all(schema: &Schema, origin: TableId) -> impl Iterator<Item = Relation> {
    let own = schema.table(origin).foreign_keys.iter().map(move |key| outward(origin, key));
    let others = schema.foreign_keys().filter(move |(_, key)| key.to == origin);
    own.chain(others.flat_map(move |(from, key)| {
        let junctions = schema.table(from).foreign_keys.iter().filter_map(move |far| through(origin, from, key, far));
        std::iter::once(inward(origin, from, key)).chain(junctions)
    }))
}

fn outward(origin: TableId, key: &ForeignKey) -> Relation {
    Relation {
        origin,
        target: key.to,
        cardinality: if key.unique { Cardinality::OneToOne } else { Cardinality::ManyToOne },
        near: pairs(&key.columns, &key.to_columns),
        junction: None,
        names: vec![key.name.clone()],
    }
}

fn inward(origin: TableId, from: TableId, key: &ForeignKey) -> Relation {
    Relation {
        origin,
        target: from,
        cardinality: if key.unique { Cardinality::OneToOne } else { Cardinality::OneToMany },
        near: pairs(&key.to_columns, &key.columns),
        junction: None,
        names: vec![key.name.clone()],
    }
}

fn through(origin: TableId, junction: TableId, near: &ForeignKey, far: &ForeignKey) -> Option<Relation> {
    let is_junction = near.name != far.name && near.in_key && far.in_key;
    is_junction.then(|| Relation {
        origin,
        target: far.to,
        cardinality: Cardinality::ManyToMany,
        near: pairs(&near.to_columns, &near.columns),
        junction: Some(Junction { table: junction, far: pairs(&far.columns, &far.to_columns) }),
        names: vec![near.name.clone(), far.name.clone()],
    })
}

fn pairs(from: &[usize], to: &[usize]) -> Vec<(usize, usize)> {
    from.iter().copied().zip(to.iter().copied()).collect()
}

/// A relation is named by its target; one to a single row of a table also by its foreign key or that key's only column.
/// A hint tells those of one name apart. A table's relation to itself is towards the many by the table's name, and
/// towards the one by the key.
fn is_meant(schema: &Schema, relation: &Relation, name: &str, hint: Option<&str>) -> bool {
    let target = schema.table(relation.target);
    let (by_table, is_view) = (target.name == name, target.shape == Shape::View);
    let own = own_key(schema, relation);
    let back_to_itself = own.is_some_and(|key| key.reflexive);
    match hint {
        None => (by_table && !back_to_itself) || (own.is_some() && !is_view && is_by_key(schema, relation, name)),
        Some(hint) => by_table && !back_to_itself && is_by_hint(schema, relation, hint),
    }
}

/// The foreign key, if it is the origin's.
fn own_key<'s>(schema: &'s Schema, relation: &Relation) -> Option<&'s ForeignKey> {
    let is_it = |key: &&ForeignKey| {
        key.to == relation.target && key.name == relation.names[0] && pairs(&key.columns, &key.to_columns) == relation.near
    };
    schema.table(relation.origin).foreign_keys.iter().find(is_it).filter(|_| relation.junction.is_none())
}

fn is_by_key(schema: &Schema, relation: &Relation, name: &str) -> bool {
    let column = |(near, _): &(usize, usize)| schema.table(relation.origin).columns[*near].name == name;
    relation.names[0] == name || matches!(&relation.near[..], [only] if column(only))
}

/// By a foreign key's name, the junction's, or a column at either end.
fn is_by_hint(schema: &Schema, relation: &Relation, hint: &str) -> bool {
    if let Some(junction) = &relation.junction {
        return schema.table(junction.table).name == hint || relation.names.iter().any(|name| name == hint);
    }
    let named = |table: TableId, column: usize| schema.table(table).columns[column].name == hint;
    relation.names[0] == hint || matches!(relation.near[..], [(near, far)] if named(relation.origin, near) || named(relation.target, far))
}

/// What to write after `!` to mean this one.
fn hint_for(schema: &Schema, relation: &Relation) -> String {
    relation.junction.as_ref().map_or_else(|| relation.names[0].clone(), |junction| schema.table(junction.table).name.clone())
}

fn describe(schema: &Schema, relation: &Relation) -> Value {
    let (origin, target) = (schema.table(relation.origin), schema.table(relation.target));
    let of = |table: &super::schema::Table, columns: &mut dyn Iterator<Item = usize>| {
        let names: Vec<_> = columns.map(|column| table.columns[column].name.as_str()).collect();
        format!("({})", names.join(", "))
    };
    let relationship = match &relation.junction {
        None => {
            let (near, far) =
                (of(origin, &mut relation.near.iter().map(|pair| pair.0)), of(target, &mut relation.near.iter().map(|pair| pair.1)));
            format!("{} using {}{near} and {}{far}", relation.names[0], origin.name, target.name)
        }
        Some(junction) => {
            let table = schema.table(junction.table);
            let (near, far) =
                (of(table, &mut relation.near.iter().map(|pair| pair.1)), of(table, &mut junction.far.iter().map(|pair| pair.0)));
            format!("{} using {}{near} and {}{far}", table.name, relation.names[0], relation.names[1])
        }
    };
    json!({
        "cardinality": relation.cardinality.name(),
        "relationship": relationship,
        "embedding": format!("{} with {}", origin.name, target.name),
    })
}

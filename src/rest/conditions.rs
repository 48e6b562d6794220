//! Filters as SQL conditions. A value is bound as its column's type wants it; a row whose value is no JSON, or is
//! NULL, meets no filter on its JSON, and never makes an error.

use rusqlite::types::Value;

use super::expression::{Expression, identifier};
use super::filter::{Comparison, Filter, Is, Logic, Operand, Search, Test};
use super::plan::Node;
use super::reading::{self, Reading};
use super::refusal;
use super::render::{Renderer, alias, rowid};
use super::schema::Shape;
use super::value::Kind;
use crate::error::Result;

/// Patterns to half of this, in bytes, are never too long for SQLite, also with what is escaped in them.
const PATTERN_SAFE: usize = 80;

pub fn logic(renderer: &mut Renderer<'_>, node: &Node<'_>, tree: &Logic) -> Result<String> {
    match tree {
        Logic::Filter(filter) => condition(renderer, node, filter),
        Logic::Group { negated, any, of } => {
            let mut parts = Vec::with_capacity(of.len());
            for part in of {
                parts.push(logic(renderer, node, part)?);
            }
            Ok(negate(*negated, parts.join(if *any { " OR " } else { " AND " })))
        }
    }
}

fn negate(negated: bool, sql: String) -> String {
    if negated { format!("NOT ({sql})") } else { format!("({sql})") }
}

fn condition(renderer: &mut Renderer<'_>, node: &Node<'_>, filter: &Filter) -> Result<String> {
    renderer.spend()?;
    if filter.path.steps.is_empty()
        && let Some(child) = node.child(&filter.path.column)
    {
        let there = match filter.test {
            Test::Is(Is::Null) => filter.negated,
            Test::Is(Is::NotNull) => !filter.negated,
            // The name is the column's too, over which the row was embedded.
            _ if renderer.table(node).column(&filter.path.column).is_some() => return compared(renderer, node, filter),
            _ => return Err(refusal::not_a_null_test(&filter.path.column)),
        };
        let exists = renderer.exists(child)?;
        return Ok(if there { exists } else { format!("NOT {exists}") });
    }
    compared(renderer, node, filter)
}

/// A filter on a column, or on what is within it.
fn compared(renderer: &mut Renderer<'_>, node: &Node<'_>, filter: &Filter) -> Result<String> {
    if let Test::Search(how, words) = &filter.test {
        return search(renderer, node, filter, *how, words).map(|sql| negate(filter.negated, sql));
    }
    let value = renderer.path(node, &filter.path)?;
    test(renderer, &value, filter).map(|sql| negate(filter.negated, sql))
}

fn test(renderer: &mut Renderer<'_>, value: &Expression, filter: &Filter) -> Result<String> {
    let sql = &value.sql;
    let compared = comparable(value);
    let kind = value.kind();
    Ok(match &filter.test {
        Test::Compare(comparison, Operand::One(text)) => compare(renderer, value, *comparison, text, filter.literal)?,
        Test::Compare(comparison, Operand::Any(texts)) => each(renderer, value, *comparison, texts, " OR ", "0")?,
        Test::Compare(comparison, Operand::All(texts)) => each(renderer, value, *comparison, texts, " AND ", "1")?,
        Test::In(texts) => {
            let list = renderer.bind(filter.literal, Reading::List(kind), reading::list(kind, texts)?);
            format!("{compared} IN (SELECT value FROM json_each({list}))")
        }
        Test::Is(Is::True | Is::False | Is::Unknown) if !matches!(value.kind(), Kind::Boolean | Kind::Any) => {
            return Err(refusal::not_boolean(value.kind().name()));
        }
        Test::Is(Is::Null | Is::Unknown) => format!("{sql} IS NULL"),
        Test::Is(Is::NotNull) => format!("{sql} IS NOT NULL"),
        Test::Is(Is::True) => format!("{sql} IS TRUE"),
        Test::Is(Is::False) => format!("{sql} IS FALSE"),
        Test::Distinct(text) => {
            format!("{compared} IS NOT {}", renderer.read(filter.literal, Reading::Value(kind), text)?)
        }
        Test::Contains(text) => format!("tenantry_contains({sql},{})", document(renderer, value, text, filter.literal)?),
        Test::Contained(text) => format!("tenantry_contains({},{sql})", document(renderer, value, text, filter.literal)?),
        Test::Overlaps(text) => format!("tenantry_overlaps({sql},{})", document(renderer, value, text, filter.literal)?),
        Test::Foreign(operator) => return Err(refusal::not_here(&format!("ranges: the operator {operator}"))),
        Test::Search(..) => return Err(refusal::not_here("full text search within JSON")),
    })
}

fn each(
    renderer: &mut Renderer<'_>,
    value: &Expression,
    comparison: Comparison,
    texts: &[String],
    between: &str,
    of_none: &str,
) -> Result<String> {
    let mut parts = Vec::with_capacity(texts.len());
    for text in texts {
        parts.push(compare(renderer, value, comparison, text, None)?);
    }
    Ok(if parts.is_empty() { of_none.to_owned() } else { parts.join(between) })
}

/// Whether a pattern may be longer than SQLite takes, once it is spelled as SQLite reads it.
pub fn is_long(pattern: &str) -> bool {
    2 * pattern.len() > PATTERN_SAFE
}

fn compare(renderer: &mut Renderer<'_>, value: &Expression, comparison: Comparison, text: &str, literal: Option<usize>) -> Result<String> {
    let sql = &value.sql;
    let is_pattern = matches!(comparison, Comparison::Like | Comparison::Ilike | Comparison::Match | Comparison::Imatch);
    if is_pattern && matches!(value.kind(), Kind::Integer | Kind::Number | Kind::Boolean | Kind::Blob) {
        return Err(refusal::no_operator(value.kind().name()));
    }
    // A pattern that is none, or too long, is told by the first row it is compared with.
    if matches!(comparison, Comparison::Match | Comparison::Imatch) || (is_pattern && is_long(text)) {
        renderer.may_raise();
    }
    let operator = match comparison {
        Comparison::Eq => "=",
        Comparison::Neq => "<>",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
        Comparison::Like => return Ok(format!("{sql} GLOB {}", renderer.read(literal, Reading::Like, text)?)),
        Comparison::Ilike => return Ok(format!("{sql} LIKE {} ESCAPE '\\'", renderer.read(literal, Reading::Ilike, text)?)),
        Comparison::Match => return Ok(format!("tenantry_matches({sql},{},0)", renderer.read(literal, Reading::Text, text)?)),
        Comparison::Imatch => return Ok(format!("tenantry_matches({sql},{},1)", renderer.read(literal, Reading::Text, text)?)),
    };
    if value.kind() == Kind::Json && !matches!(comparison, Comparison::Eq | Comparison::Neq) {
        return within_order(renderer, value, operator, text);
    }
    let other = renderer.read(literal, Reading::Value(value.kind()), text)?;
    Ok(format!("{}{operator}{other}", comparable(value)))
}

/// JSON is compared in its one spelling.
fn comparable(value: &Expression) -> String {
    match value.kind() {
        Kind::Json => format!("tenantry_canonical({})", value.sql),
        _ => value.sql.clone(),
    }
}

/// Numbers in JSON have an order, and texts; nothing is more or less than what is of another kind.
fn within_order(renderer: &mut Renderer<'_>, value: &Expression, operator: &str, text: &str) -> Result<String> {
    let (kinds, other) = match serde_json::from_str(text) {
        Ok(serde_json::Value::Number(number)) => ("'integer','real'", Kind::Number.read(&number.to_string())?),
        Ok(serde_json::Value::String(text)) => ("'text'", Value::Text(text)),
        _ => return Err(refusal::not_here("more or less than JSON that is no number and no text")),
    };
    let whole = value.whole();
    // The literal has its say in what the statement is.
    let other = renderer.binder.bind(other);
    Ok(format!("CASE WHEN json_type({whole}) IN ({kinds}) THEN ({whole})->>'$'{operator}{other} END"))
}

/// A JSON document or PostgreSQL's array literal, as JSON.
fn document(renderer: &mut Renderer<'_>, value: &Expression, text: &str, literal: Option<usize>) -> Result<String> {
    if value.kind() != Kind::Json {
        return Err(refusal::not_here("cs, cd and ov on a column that is not JSON"));
    }
    renderer.read(literal, Reading::Document, text)
}

/// Full text search: of an FTS5 table's column, or of all of them by the table's name.
fn search(renderer: &mut Renderer<'_>, node: &Node<'_>, filter: &Filter, how: Search, words: &str) -> Result<String> {
    let table = renderer.table(node);
    if table.shape != Shape::FullText || renderer.is_given(node) || !filter.path.steps.is_empty() {
        return Err(refusal::not_here("full text search on what is no column of an FTS5 table"));
    }
    let column = &filter.path.column;
    let whole = *column == table.name && table.readable().count() == table.columns.len();
    if table.column(column).is_none() && !whole {
        return Err(refusal::unknown_column(&table.name, column));
    }
    let (name, column, rowid) = (identifier(&table.name), identifier(column), rowid(table.shape));
    // It is SQLite that reads the expression.
    renderer.may_raise();
    let words = renderer.read(filter.literal, Reading::Words(how), words)?;
    Ok(format!("{}.{rowid} IN (SELECT {rowid} FROM {name} WHERE {column} MATCH {words})", alias(node)))
}

//! Filters as SQL conditions. A value is bound as its column's type wants it; a row whose value is no JSON, or is
//! NULL, meets no filter on its JSON, and never makes an error.

use rusqlite::types::Value;
use serde_json::json;

use super::expression::{Expression, identifier};
use super::filter::{Comparison, Filter, Is, Logic, Operand, Search, Test, array};
use super::plan::Node;
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
            _ => return Err(refusal::not_a_null_test(&filter.path.column)),
        };
        let exists = renderer.exists(child)?;
        return Ok(if there { exists } else { format!("NOT {exists}") });
    }
    if let Test::Search(how, words) = &filter.test {
        return search(renderer, node, filter, *how, words).map(|sql| negate(filter.negated, sql));
    }
    let value = renderer.path(node, &filter.path)?;
    test(renderer, &value, &filter.test).map(|sql| negate(filter.negated, sql))
}

fn test(renderer: &mut Renderer<'_>, value: &Expression, test: &Test) -> Result<String> {
    let sql = &value.sql;
    let compared = comparable(value);
    Ok(match test {
        Test::Compare(comparison, Operand::One(text)) => compare(renderer, value, *comparison, text)?,
        Test::Compare(comparison, Operand::Any(texts)) => each(renderer, value, *comparison, texts, " OR ", "0")?,
        Test::Compare(comparison, Operand::All(texts)) => each(renderer, value, *comparison, texts, " AND ", "1")?,
        Test::In(texts) => {
            let mut list = Vec::with_capacity(texts.len());
            for text in texts {
                list.push(match read(value, text)? {
                    Value::Integer(value) => json!(value),
                    Value::Real(value) => json!(value),
                    Value::Text(text) => json!(text),
                    Value::Null | Value::Blob(_) => return Err(refusal::not_here("in.(…) on a column of bytes")),
                });
            }
            // One parameter, so that lists of different lengths are one statement.
            let list = renderer.binder.bind(serde_json::Value::Array(list).to_string());
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
            let other = read(value, text)?;
            format!("{compared} IS NOT {}", renderer.binder.bind(other))
        }
        Test::Contains(text) => format!("tenantry_contains({sql},{})", document(renderer, value, text)?),
        Test::Contained(text) => format!("tenantry_contains({},{sql})", document(renderer, value, text)?),
        Test::Overlaps(text) => format!("tenantry_overlaps({sql},{})", document(renderer, value, text)?),
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
        parts.push(compare(renderer, value, comparison, text)?);
    }
    Ok(if parts.is_empty() { of_none.to_owned() } else { parts.join(between) })
}

fn compare(renderer: &mut Renderer<'_>, value: &Expression, comparison: Comparison, text: &str) -> Result<String> {
    let sql = &value.sql;
    let is_pattern = matches!(comparison, Comparison::Like | Comparison::Ilike | Comparison::Match | Comparison::Imatch);
    if is_pattern && matches!(value.kind(), Kind::Integer | Kind::Number | Kind::Boolean | Kind::Blob) {
        return Err(refusal::no_operator(value.kind().name()));
    }
    // A pattern that is none, or too long, is told by the first row it is compared with.
    if matches!(comparison, Comparison::Match | Comparison::Imatch) || (is_pattern && 2 * text.len() > PATTERN_SAFE) {
        renderer.may_raise();
    }
    let operator = match comparison {
        Comparison::Eq => "=",
        Comparison::Neq => "<>",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
        // SQLite's LIKE does not tell cases apart; GLOB does.
        Comparison::Like => return Ok(format!("{sql} GLOB {}", renderer.binder.bind(glob(text)))),
        Comparison::Ilike => return Ok(format!("{sql} LIKE {} ESCAPE '\\'", renderer.binder.bind(text.replace('*', "%")))),
        Comparison::Match => return Ok(format!("tenantry_matches({sql},{},0)", renderer.binder.bind(text.to_owned()))),
        Comparison::Imatch => return Ok(format!("tenantry_matches({sql},{},1)", renderer.binder.bind(text.to_owned()))),
    };
    let other = read(value, text)?;
    if value.kind() == Kind::Json && !matches!(comparison, Comparison::Eq | Comparison::Neq) {
        return within_order(renderer, value, operator, text);
    }
    Ok(format!("{}{operator}{}", comparable(value), renderer.binder.bind(other)))
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
    let other = renderer.binder.bind(other);
    Ok(format!("CASE WHEN json_type({whole}) IN ({kinds}) THEN ({whole})->>'$'{operator}{other} END"))
}

/// What `text` is compared as.
fn read(value: &Expression, text: &str) -> Result<Value> {
    match value.kind() {
        Kind::Json => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(json) => Ok(Value::Text(json.to_string())),
            Err(_) => Err(refusal::bad_value("json", text)),
        },
        kind => kind.read(text),
    }
}

/// A JSON document or PostgreSQL's array literal, as JSON.
fn document(renderer: &mut Renderer<'_>, value: &Expression, text: &str) -> Result<String> {
    if value.kind() != Kind::Json {
        return Err(refusal::not_here("cs, cd and ov on a column that is not JSON"));
    }
    let json = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(json) => json,
        Err(_) => {
            let elements = array(text).ok_or_else(|| refusal::bad_value("json", text))?;
            let element = |text: String| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
            elements.into_iter().map(element).collect()
        }
    };
    Ok(renderer.binder.bind(json.to_string()))
}

/// LIKE's pattern as GLOB's.
fn glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len() + 8);
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' | '*' => glob.push('*'),
            '_' => glob.push('?'),
            '\\' => characters.next().into_iter().for_each(|escaped| literally(&mut glob, escaped)),
            other => literally(&mut glob, other),
        }
    }
    glob
}

fn literally(glob: &mut String, character: char) {
    match character {
        '*' | '?' | '[' => glob.extend(['[', character, ']']),
        other => glob.push(other),
    }
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
    let words = renderer.binder.bind(match_expression(how, words));
    Ok(format!("{}.{rowid} IN (SELECT {rowid} FROM {name} WHERE {column} MATCH {words})", alias(node)))
}

/// FTS5's expression. Words are quoted, so that none is taken for syntax.
fn match_expression(how: Search, text: &str) -> String {
    let quoted = |word: &str| format!("\"{}\"", word.replace('"', "\"\""));
    let all = |words: &mut dyn Iterator<Item = &str>| words.map(quoted).collect::<Vec<_>>().join(" AND ");
    match how {
        Search::Plain => all(&mut text.split_whitespace()),
        Search::Phrase => quoted(text),
        Search::Query => query_expression(text, &quoted),
        Search::Web => web_expression(text, &quoted),
    }
}

/// `a & (b | !c)`; what is excluded stands behind what is wanted, as FTS5 has it.
fn query_expression(text: &str, quoted: &dyn Fn(&str) -> String) -> String {
    let mut out = Vec::new();
    let spaced = ["&", "|", "!", "(", ")"].iter().fold(text.to_owned(), |text, sign| text.replace(sign, &format!(" {sign} ")));
    for word in spaced.split_whitespace() {
        match word {
            "&" => out.push("AND".to_owned()),
            "|" => out.push("OR".to_owned()),
            "!" => {
                if out.last().is_some_and(|last| last == "AND") {
                    out.pop();
                }
                out.push("NOT".to_owned());
            }
            "(" | ")" => out.push(word.to_owned()),
            word => out.push(match word.strip_suffix(":*") {
                Some(prefix) => format!("{}*", quoted(prefix)),
                None => quoted(word.trim_matches('\'')),
            }),
        }
    }
    out.join(" ")
}

/// `a "b c" or d -e`
fn web_expression(text: &str, quoted: &dyn Fn(&str) -> String) -> String {
    let (mut wanted, mut unwanted) = (String::new(), Vec::new());
    let mut or = false;
    for (at, part) in text.split('"').enumerate() {
        let phrases: Vec<&str> = if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() };
        for word in phrases {
            match word.strip_prefix('-') {
                Some(word) if at % 2 == 0 && !word.is_empty() => unwanted.push(quoted(word)),
                _ if at % 2 == 0 && word.eq_ignore_ascii_case("or") => or = !wanted.is_empty(),
                _ => {
                    if !wanted.is_empty() {
                        wanted.push_str(if std::mem::take(&mut or) { " OR " } else { " AND " });
                    }
                    wanted.push_str(&quoted(word));
                }
            }
        }
    }
    if unwanted.is_empty() { wanted } else { format!("({wanted}) NOT ({})", unwanted.join(" OR ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_to_glob_what_it_means_to_like() {
        assert_eq!(glob("*a_b%"), "*a?b*");
        assert_eq!(glob(r"100\%[?]"), "100%[[][?]]");
    }

    #[test]
    fn words_are_never_syntax() {
        assert_eq!(match_expression(Search::Plain, "fat \"cat\" NEAR"), "\"fat\" AND \"\"\"cat\"\"\" AND \"NEAR\"");
        assert_eq!(match_expression(Search::Phrase, "fat cat"), "\"fat cat\"");
        assert_eq!(match_expression(Search::Query, "fat & (cat | ra:*) & !dog"), "\"fat\" AND ( \"cat\" OR \"ra\"* ) NOT \"dog\"");
        assert_eq!(match_expression(Search::Web, "\"fat cat\" or rat -dog"), "(\"fat cat\" OR \"rat\") NOT (\"dog\")");
    }
}

//! A [`Reading`] is what a filter's literal is taken for: how its text becomes the value that is bound.

use rusqlite::types::Value;
use serde_json::json;

use super::filter::{self, Search, array};
use super::refusal;
use super::value::Kind;
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A value of this kind; JSON in its one spelling.
    Value(Kind),
    /// `(a,b)` of this kind, as a JSON array: so lists of different lengths are one statement.
    List(Kind),
    Text,
    /// LIKE's pattern, for GLOB: SQLite's LIKE does not tell cases apart.
    Like,
    Ilike,
    /// A JSON document, or PostgreSQL's array literal, as JSON.
    Document,
    /// Words to look for, as FTS5's expression.
    Words(Search),
}

impl Reading {
    pub fn read(self, text: &str) -> Result<Value> {
        match self {
            Reading::Value(Kind::Json) => match serde_json::from_str::<serde_json::Value>(text) {
                Ok(json) => Ok(Value::Text(json.to_string())),
                Err(_) => Err(refusal::bad_value("json", text)),
            },
            Reading::Value(kind) => kind.read(text),
            Reading::List(kind) => list(kind, &filter::values(text)?),
            Reading::Text => Ok(Value::Text(text.to_owned())),
            Reading::Like => Ok(Value::Text(glob(text))),
            Reading::Ilike => Ok(Value::Text(text.replace('*', "%"))),
            Reading::Document => document(text),
            Reading::Words(how) => Ok(Value::Text(match_expression(how, text))),
        }
    }
}

/// Values as one JSON array.
pub fn list(kind: Kind, texts: &[String]) -> Result<Value> {
    let one = |text: &String| {
        Ok(match Reading::Value(kind).read(text)? {
            Value::Integer(value) => json!(value),
            Value::Real(value) => json!(value),
            Value::Text(text) => json!(text),
            Value::Null | Value::Blob(_) => return Err(refusal::not_here("in.(…) on a column of bytes")),
        })
    };
    let values = texts.iter().map(one).collect::<Result<Vec<_>>>()?;
    Ok(Value::Text(serde_json::Value::Array(values).to_string()))
}

fn document(text: &str) -> Result<Value> {
    let json = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(json) => json,
        Err(_) => {
            let elements = array(text).ok_or_else(|| refusal::bad_value("json", text))?;
            let element = |text: String| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
            elements.into_iter().map(element).collect()
        }
    };
    Ok(Value::Text(json.to_string()))
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

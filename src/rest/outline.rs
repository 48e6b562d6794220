//! An [`Outline`] is a request's query string with the literals taken out of its filters: `id=eq.5` is `id=eq.` and `5`.
//! What a request is made of, but for its literals and where its page begins, is in the outline's key, and two requests
//! with the same key become the same statement.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::media::Media;
use super::page::Page;

/// Operators whose value is one literal to the end of the parameter, and has no say in what the statement is.
const LITERAL: [&str; 19] = [
    "eq",
    "neq",
    "gt",
    "gte",
    "lt",
    "lte",
    "like",
    "ilike",
    "match",
    "imatch",
    "in",
    "isdistinct",
    "cs",
    "cd",
    "ov",
    "fts",
    "plfts",
    "phfts",
    "wfts",
];

/// What a parameter's last name is, if it is no filter.
const NO_FILTERS: [&str; 8] = ["select", "columns", "on_conflict", "order", "limit", "offset", "and", "or"];

#[derive(Debug, Default)]
pub struct Outline {
    pub pairs: Vec<(String, String)>,
    key: Vec<u8>,
}

impl Outline {
    pub fn new(pairs: Vec<(String, String)>) -> Outline {
        Outline { pairs, key: Vec::new() }
    }

    /// With its key, as that of a read of `table`.
    pub fn of_read(pairs: Vec<(String, String)>, table: &str, media: Media, page: &Page) -> Outline {
        let mut key = Vec::with_capacity(64 + pairs.iter().map(|(name, _)| name.len() + 24).sum::<usize>());
        let mut put = |text: &str| {
            key.extend_from_slice(&(text.len() as u32).to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        };
        put(table);
        put(media.content_type());
        put(match (page.limit, page.offset) {
            (None, 0) => "",
            (_, 0) => "limit",
            _ => "offset",
        });
        for (name, value) in &pairs {
            // The page has them.
            if name == "limit" || name == "offset" {
                continue;
            }
            put(name);
            put(literal(name, value).map_or(value, |at| &value[..at]));
        }
        Outline { pairs, key }
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Tells requests of different outlines apart, mostly.
    pub fn kind(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        hasher.finish()
    }

    /// The literal of the pair of this number.
    pub fn literal(&self, number: usize) -> &str {
        self.pairs.get(number).map_or("", |(name, value)| &value[literal(name, value).unwrap_or(0)..])
    }

    /// The last value of a parameter.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Where the literal of a filter begins in its value, in bytes; `None` if all of it says what the statement is.
pub fn literal(name: &str, value: &str) -> Option<usize> {
    let last = name.rsplit('.').next().unwrap_or(name);
    if NO_FILTERS.contains(&last) || name.contains('"') {
        return None;
    }
    let negated = if value.starts_with("not.") { 4 } else { 0 };
    let (operator, _) = value[negated..].split_once('.')?;
    LITERAL.contains(&operator).then_some(negated + operator.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pairs: &[(&str, &str)], limit: Option<u64>, offset: u64) -> Vec<u8> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Outline::of_read(pairs, "t", Media::Csv, &Page { offset, limit }).key
    }

    #[test]
    fn only_literals_and_where_the_page_begins_are_not_in_the_key() {
        let one = key(&[("select", "id"), ("id", "eq.5"), ("a->>b", "not.in.(1,2)"), ("limit", "3")], Some(3), 0);
        assert_eq!(one, key(&[("select", "id"), ("id", "eq.x.y"), ("a->>b", "not.in.()"), ("limit", "7")], Some(7), 0));
        for other in [
            key(&[("select", "id,x"), ("id", "eq.5"), ("a->>b", "not.in.(1,2)")], Some(3), 0),
            key(&[("select", "id"), ("id", "neq.5"), ("a->>b", "not.in.(1,2)")], Some(3), 0),
            key(&[("select", "id"), ("id", "eq.5"), ("a->>c", "not.in.(1,2)")], Some(3), 0),
            key(&[("select", "id"), ("id", "eq.5"), ("a->>b", "in.(1,2)")], Some(3), 0),
            key(&[("select", "id"), ("id", "eq.5"), ("a->>b", "not.in.(1,2)")], None, 0),
            key(&[("select", "id"), ("id", "eq.5"), ("a->>b", "not.in.(1,2)")], Some(3), 1),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_says_what_the_statement_is_is_no_literal() {
        for (name, value) in [
            ("id", "is.null"),
            ("id", "gt(any).{1,2}"),
            ("t", "fts(english).a"),
            ("or", "(id.eq.1)"),
            ("a.not.and", "(id.eq.1)"),
            ("a.order", "eq.desc"),
            ("a.limit", "eq.1"),
            ("\"a.or\"", "eq.1"),
            ("id", "5"),
        ] {
            assert_eq!(literal(name, value), None, "{name}={value}");
        }
        assert_eq!((literal("a.id", "eq."), literal("id", "not.like.x.y")), (Some(3), Some(9)));
    }
}

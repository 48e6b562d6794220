//! The [`Shape`] of a file: its tables, indexes, views and triggers by their canonical text, which spaces, comments and
//! case outside quotes do not change. Two files that went the same way have the same shape. What SQLite keeps for
//! itself, our own record of migrations and our indexes of foreign keys are not part of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::migrate::{Applied, Course, Failure, Migrations, bring, hex, unwatched};
use crate::error::{Error, Result};

/// Names in one list of a difference.
const NAMED_MAX: usize = 20;

/// By kind and name, the canonical text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(BTreeMap<String, String>);

/// How a shape differs from what it should be: `table notes`, at most 20 of each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    pub missing: Vec<String>,
    pub extra: Vec<String>,
    pub different: Vec<String>,
}

impl Shape {
    pub(super) fn of(conn: &Connection) -> rusqlite::Result<Shape> {
        let mut all = conn.prepare(
            "SELECT type || ' ' || name, sql FROM main.sqlite_schema
             WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_tenantry\\_migration%' ESCAPE '\\'
             AND name NOT LIKE '\\_tenantry\\_fk\\_%' ESCAPE '\\'",
        )?;
        let rows = all.query_map([], |row| Ok((row.get(0)?, canonical(&row.get::<_, String>(1)?))))?;
        Ok(Shape(rows.collect::<rusqlite::Result<_>>()?))
    }

    /// Of a new file that these migrations brought to `at`.
    pub fn reference(sets: &[Arc<Migrations>], at: &[Applied]) -> Result<Shape> {
        let version = |set: &str| at.iter().find(|one| one.set == set).map_or(0, |one| one.version);
        let sets: Vec<_> = sets.iter().map(|set| Arc::new(set.capped(version(&set.set)))).collect();
        let build = || -> Result<Shape, Failure> {
            let conn = Connection::open_in_memory()?;
            bring(&conn, &sets, Course::Up, None, &unwatched)?;
            Ok(Shape::of(&conn)?)
        };
        build().map_err(|failure| match failure {
            Failure::Sqlite(error) => Error::internal("the schema of the migrations cannot be made", &error),
            Failure::Refused(error) => error,
        })
    }

    /// SHA-256, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for (name, text) in &self.0 {
            hash.update(name);
            hash.update([0]);
            hash.update(text);
            hash.update([0]);
        }
        hex(&hash.finalize())
    }

    /// How this one differs from what it should be, if it does.
    pub fn drift(&self, should: &Shape) -> Option<Drift> {
        let names = |names: &mut dyn Iterator<Item = &String>| names.take(NAMED_MAX).cloned().collect::<Vec<_>>();
        let drift = Drift {
            missing: names(&mut should.0.keys().filter(|name| !self.0.contains_key(*name))),
            extra: names(&mut self.0.keys().filter(|name| !should.0.contains_key(*name))),
            different: names(
                &mut self.0.iter().filter(|(name, text)| should.0.get(*name).is_some_and(|other| other != *text)).map(|(name, _)| name),
            ),
        };
        (self != should).then_some(drift)
    }
}

/// The text in lower case, without comments and with spaces only where words would run together; what is quoted stays.
fn canonical(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql.chars().peekable();
    let mut space = false;
    while let Some(c) = rest.next() {
        match c {
            '-' if rest.peek() == Some(&'-') => {
                rest.find(|&c| c == '\n');
                space = true;
            }
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                rest.next();
                rest.find(|&c| std::mem::replace(&mut last, c) == '*' && c == '/');
                space = true;
            }
            c if c.is_whitespace() => space = true,
            '\'' | '"' | '`' | '[' => {
                out.push(c);
                let end = if c == '[' { ']' } else { c };
                for c in rest.by_ref() {
                    out.push(c);
                    if c == end {
                        break;
                    }
                }
                space = false;
            }
            c => {
                let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                if std::mem::take(&mut space) && word(c) && out.chars().next_back().is_some_and(word) {
                    out.push(' ');
                }
                out.extend(c.to_lowercase());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(sql: &str) -> Shape {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        Shape::of(&conn).unwrap()
    }

    #[test]
    fn how_a_text_is_written_does_not_change_the_shape_and_what_it_says_does() {
        let one = shape("CREATE TABLE t (a INTEGER, b TEXT DEFAULT 'A  b') STRICT");
        let same = shape("create table t(\n a integer , -- the first\n b text /* the * second */ default 'A  b')strict");
        assert_eq!((&one, one.hash()), (&same, same.hash()));
        for other in [
            "CREATE TABLE t (a INTEGER, b TEXT DEFAULT 'a  b') STRICT",
            "CREATE TABLE t (a INTEGER, b TEXT DEFAULT 'A b') STRICT",
            "CREATE TABLE t (b TEXT DEFAULT 'A  b', a INTEGER) STRICT",
        ] {
            assert_ne!(one.hash(), shape(other).hash(), "{other}");
        }
    }

    #[test]
    fn a_column_that_came_and_went_leaves_no_trace() {
        let before = shape("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)");
        let after = shape("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); ALTER TABLE t ADD COLUMN c TEXT; ALTER TABLE t DROP COLUMN c");
        assert_eq!(before, after);
    }

    #[test]
    fn a_drift_names_what_differs() {
        let should = shape("CREATE TABLE a(x); CREATE TABLE b(x)");
        assert_eq!(should.drift(&should), None);
        let drift = shape("CREATE TABLE b(y); CREATE INDEX i ON b(y); CREATE TABLE _tenantry_migrations(x)").drift(&should).unwrap();
        assert_eq!(drift, Drift { missing: vec!["table a".into()], extra: vec!["index i".into()], different: vec!["table b".into()] });
    }
}

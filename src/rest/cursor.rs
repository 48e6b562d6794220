//! A [`Cursor`] reads one parameter's text from left to right. What it cannot read is an error with the place and
//! what was expected there, worded as PostgREST words it.

use super::refusal;
use crate::error::{Error, Result};

/// The deepest nesting of parentheses in one parameter.
const DEPTH_MAX: usize = 16;

pub struct Cursor<'t> {
    /// What is read, for errors: `order`, `select parameter`.
    what: &'static str,
    text: &'t str,
    /// In bytes, at a character's start.
    at: usize,
    depth: usize,
}

impl<'t> Cursor<'t> {
    pub fn new(what: &'static str, text: &'t str) -> Cursor<'t> {
        Cursor { what, text, at: 0, depth: 0 }
    }

    pub fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn is_done(&self) -> bool {
        self.at == self.text.len()
    }

    pub fn eat(&mut self, literal: &str) -> bool {
        let eats = self.rest().starts_with(literal);
        if eats {
            self.at += literal.len();
        }
        eats
    }

    pub fn expect(&mut self, literal: &'static str) -> Result<()> {
        if self.eat(literal) { Ok(()) } else { Err(self.fail(&format!("\"{literal}\""))) }
    }

    pub fn end(&self, expecting: &str) -> Result<()> {
        if self.is_done() { Ok(()) } else { Err(self.fail(expecting)) }
    }

    pub fn spaces(&mut self) {
        self.take_while(char::is_whitespace);
    }

    pub fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'t str {
        let rest = self.rest();
        self.at = self.text.len();
        rest
    }

    /// What `read` reads, or nothing read at all.
    pub fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let at = self.at;
        let read = read(self);
        if read.is_none() {
            self.at = at;
        }
        read
    }

    /// Goes one level deeper while `read` runs.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEPTH_MAX {
            return Err(self.fail(&format!("at most {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// `"…"`, in which a backslash takes the next character as it is.
    pub fn quoted(&mut self) -> Option<String> {
        self.attempt(|cursor| {
            if !cursor.eat("\"") {
                return None;
            }
            let mut text = String::new();
            let mut characters = cursor.rest().char_indices();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        cursor.at += at + 1;
                        return Some(text);
                    }
                    '\\' => text.push(characters.next()?.1),
                    other => text.push(other),
                }
            }
            None
        })
    }

    /// A column's or table's name: quoted, or words with `-` and spaces inside, trimmed.
    pub fn name(&mut self) -> Result<String> {
        self.spaces();
        if let Some(name) = self.quoted() {
            return Ok(name);
        }
        let start = self.at;
        loop {
            self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | ' '));
            // A dash belongs to the name unless it is an arrow's.
            if self.rest().starts_with('-') && !self.rest().starts_with("->") {
                self.at += 1;
            } else {
                break;
            }
        }
        match self.text[start..self.at].trim() {
            "" => Err(self.fail("field name (* or [a..z0..9_$])")),
            name => Ok(name.to_owned()),
        }
    }

    /// `first , second , …` until something else comes.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = vec![item(self)?];
        loop {
            self.spaces();
            if !self.eat(",") {
                return Ok(items);
            }
            self.spaces();
            items.push(item(self)?);
        }
    }

    pub fn fail(&self, expecting: &str) -> Error {
        let column = self.text[..self.at].chars().count() + 1;
        let unexpected = self.peek().map_or("end of input".to_owned(), |c| format!("'{c}'"));
        refusal::unreadable(self.what, self.text, column, &format!("unexpected {unexpected} expecting {expecting}"))
    }
}

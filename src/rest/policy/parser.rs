//! A [`Parser`] stands before the next token of a text and takes it, or says what was expected in its place.

use std::sync::Arc;

use super::lexer::{Fault, Kind, Token, tokens};
use super::tree::Function;

/// Parentheses within one another.
const DEPTH_MAX: usize = 32;

/// Parts of one condition.
const PARTS_MAX: usize = 1_000;

/// Words that are no names.
const RESERVED: [&str; 42] = [
    "and",
    "or",
    "not",
    "is",
    "in",
    "like",
    "ilike",
    "glob",
    "between",
    "null",
    "true",
    "false",
    "select",
    "from",
    "where",
    "join",
    "inner",
    "left",
    "cross",
    "on",
    "as",
    "exists",
    "case",
    "when",
    "then",
    "else",
    "end",
    "cast",
    "distinct",
    "using",
    "with",
    "check",
    "to",
    "for",
    "order",
    "group",
    "having",
    "limit",
    "union",
    "except",
    "intersect",
    "natural",
];

pub struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    parts: usize,
    /// Those defined before.
    pub functions: &'t [Arc<Function>],
}

impl<'t> Parser<'t> {
    /// Of the text from `start` to `end`.
    pub fn new(text: &'t str, start: usize, end: usize, functions: &'t [Arc<Function>]) -> Result<Parser<'t>, Fault> {
        Ok(Parser { text, tokens: tokens(text, start, end)?, next: 0, depth: 0, parts: 0, functions })
    }

    pub fn peek(&self) -> &Kind {
        &self.tokens[self.next].kind
    }

    pub fn after(&self, more: usize) -> &Kind {
        &self.tokens[(self.next + more).min(self.tokens.len() - 1)].kind
    }

    /// Where the next token begins.
    pub fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    pub fn advance(&mut self) -> Kind {
        let kind = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        kind
    }

    pub fn skip(&mut self, tokens: usize) {
        self.next = (self.next + tokens).min(self.tokens.len() - 1);
    }

    pub fn is_done(&self) -> bool {
        *self.peek() == Kind::End
    }

    pub fn end(&self) -> Result<(), Fault> {
        if self.is_done() { Ok(()) } else { Err(self.expected("the end")) }
    }

    pub fn eat(&mut self, sign: &str) -> bool {
        let eats = matches!(self.peek(), Kind::Sign(found) if *found == sign);
        self.next += usize::from(eats);
        eats
    }

    pub fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.eat(sign) { Ok(()) } else { Err(self.expected(&format!("\"{sign}\""))) }
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Kind::Word(found) if found.eq_ignore_ascii_case(word))
    }

    /// The words, if they come next.
    pub fn eat_words(&mut self, words: &[&str]) -> bool {
        let come =
            words.iter().enumerate().all(|(at, word)| matches!(self.after(at), Kind::Word(found) if found.eq_ignore_ascii_case(word)));
        self.next += if come { words.len() } else { 0 };
        come
    }

    pub fn expect_word(&mut self, word: &str) -> Result<(), Fault> {
        if self.eat_words(&[word]) { Ok(()) } else { Err(self.expected(word)) }
    }

    pub fn expected(&self, what: &str) -> Fault {
        let found = match self.peek() {
            Kind::End => "the end".to_owned(),
            _ => {
                let rest = &self.text[self.at()..];
                let shown: String = rest.chars().take_while(|c| !c.is_whitespace()).take(30).collect();
                format!("{shown:?}")
            }
        };
        Fault::new(self.at(), format!("{found} where {what} is expected"))
    }

    pub fn is_name(&self) -> bool {
        match self.peek() {
            Kind::Quoted(name) => !name.is_empty(),
            Kind::Word(word) => !RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved)),
            _ => false,
        }
    }

    /// A name: quoted, or a word that means nothing else.
    pub fn name(&mut self, what: &str) -> Result<String, Fault> {
        if !self.is_name() {
            return Err(self.expected(what));
        }
        match self.advance() {
            Kind::Quoted(name) | Kind::Word(name) => Ok(name),
            _ => Err(self.expected(what)),
        }
    }

    /// A table's name, whose schema may be said to be `public`.
    pub fn table(&mut self) -> Result<String, Fault> {
        let at = self.at();
        let name = self.name("a table")?;
        if !self.eat(".") {
            return Ok(name);
        }
        if name != "public" {
            return Err(
                Fault::new(at, format!("there is no schema {name:?}")).hint("A tenant's tables are in one schema; leave its name out.")
            );
        }
        self.name("a table")
    }

    /// `item, item, …`
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let mut items = vec![item(self)?];
        while self.eat(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// One level deeper.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == DEPTH_MAX {
            return Err(Fault::new(self.at(), format!("a condition nests at most {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// One more part.
    pub fn count(&mut self) -> Result<(), Fault> {
        self.parts += 1;
        if self.parts > PARTS_MAX { Err(Fault::new(self.at(), format!("a condition has at most {PARTS_MAX} parts"))) } else { Ok(()) }
    }
}

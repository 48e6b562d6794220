//! A [`Parser`] stands before the next token of a text and takes it, or says what was expected in its place: a [`Fault`].

use super::lexer::{Kind, Token, tokens};
use super::value;

/// What is wrong with a text, and where.
#[derive(Debug)]
pub struct Fault {
    /// In bytes.
    pub at: usize,
    pub message: String,
    pub hint: Option<&'static str>,
}

impl Fault {
    pub fn new(at: usize, message: impl Into<String>) -> Fault {
        Fault { at, message: message.into(), hint: None }
    }

    pub fn hint(self, hint: &'static str) -> Fault {
        Fault { hint: Some(hint), ..self }
    }
}

/// Line and column of a place in bytes, from 1, columns in characters.
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// Parentheses within one another.
const DEPTH_MAX: usize = 32;

/// Parts of one condition.
const PARTS_MAX: usize = 1_000;

pub struct Parser<'t, C> {
    /// The last is the end.
    tokens: Vec<Token<'t>>,
    next: usize,
    depth: usize,
    parts: usize,
    /// Words that are no names.
    reserved: &'static [&'static str],
    /// What the grammar looks things up in.
    pub context: C,
}

impl<'t, C> Parser<'t, C> {
    /// Of the text from `start` to `end`.
    pub fn new(text: &'t str, (start, end): (usize, usize), reserved: &'static [&'static str], context: C) -> Result<Parser<'t, C>, Fault> {
        let mut all = Vec::new();
        for token in tokens(&text[start..end]).filter(|token| token.kind != Kind::Blank) {
            let token = Token { at: start + token.at, ..token };
            if token.kind == Kind::Open || matches!(token.kind, Kind::Text | Kind::Quoted) && token.text.contains('\0') {
                return Err(Fault::new(token.at, "this does not end"));
            }
            all.push(token);
        }
        all.push(Token { kind: Kind::End, at: end, text: "" });
        Ok(Parser { tokens: all, next: 0, depth: 0, parts: 0, reserved, context })
    }

    pub fn peek(&self) -> Token<'t> {
        self.after(0)
    }

    pub fn after(&self, more: usize) -> Token<'t> {
        self.tokens[(self.next + more).min(self.tokens.len() - 1)]
    }

    /// Where the next token begins.
    pub fn at(&self) -> usize {
        self.peek().at
    }

    pub fn advance(&mut self) -> Token<'t> {
        let token = self.peek();
        self.skip(1);
        token
    }

    pub fn skip(&mut self, tokens: usize) {
        self.next = (self.next + tokens).min(self.tokens.len() - 1);
    }

    pub fn is_done(&self) -> bool {
        self.peek().kind == Kind::End
    }

    pub fn end(&self) -> Result<(), Fault> {
        if self.is_done() { Ok(()) } else { Err(self.expected("the end")) }
    }

    pub fn eat(&mut self, sign: &str) -> bool {
        let eats = self.peek().is_sign(sign);
        self.next += usize::from(eats);
        eats
    }

    pub fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.eat(sign) { Ok(()) } else { Err(self.expected(&format!("\"{sign}\""))) }
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.peek().is_word(word)
    }

    /// The words, if they come next.
    pub fn eat_words(&mut self, words: &[&str]) -> bool {
        let come = words.iter().enumerate().all(|(at, word)| self.after(at).is_word(word));
        self.next += if come { words.len() } else { 0 };
        come
    }

    pub fn expect_word(&mut self, word: &str) -> Result<(), Fault> {
        if self.eat_words(&[word]) { Ok(()) } else { Err(self.expected(&word.to_uppercase())) }
    }

    pub fn expected(&self, what: &str) -> Fault {
        let found = match self.peek() {
            Token { kind: Kind::End, .. } => "the end".to_owned(),
            Token { text, .. } => format!("{:?}", text.chars().take(30).collect::<String>()),
        };
        Fault::new(self.at(), format!("{found} where {what} is expected"))
    }

    pub fn is_name(&self) -> bool {
        let Token { kind, text, .. } = self.peek();
        match kind {
            Kind::Quoted => text.len() > 2,
            Kind::Word => !self.reserved.iter().any(|reserved| text.eq_ignore_ascii_case(reserved)),
            _ => false,
        }
    }

    /// A name: quoted, or a word that means nothing else.
    pub fn name(&mut self, what: &str) -> Result<String, Fault> {
        if self.is_name() { Ok(self.advance().plain()) } else { Err(self.expected(what)) }
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

    /// A type's name, which may be of several words, and the numbers after it, which say nothing to SQLite.
    pub fn type_name(&mut self) -> Result<(String, value::Kind), Fault> {
        let at = self.at();
        let mut name = self.name("a type")?.to_ascii_lowercase();
        if (name == "double" && self.eat_words(&["precision"])) || (name == "character" && self.eat_words(&["varying"])) {
            name = if name == "double" { "double precision".to_owned() } else { "character varying".to_owned() };
        }
        if self.eat("(") {
            while self.peek().kind == Kind::Number || self.peek().is_sign(",") {
                self.advance();
            }
            self.expect(")")?;
        }
        let kind = value::Kind::named(&name).ok_or_else(|| Fault::new(at, format!("type \"{name}\" does not exist")))?;
        Ok((name, kind))
    }

    /// What `read` reads, or nothing read at all.
    pub fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Option<T> {
        let next = self.next;
        read(self).inspect_err(|_| self.next = next).ok()
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

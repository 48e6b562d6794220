//! SQL as text, read only as far as it takes to see where a statement ends ([`statements`]) and what its first words are
//! ([`Tokens`]). Nothing is decided on it that SQLite would decide otherwise: a text that is not understood here is left
//! to SQLite.

use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'t> {
    /// A keyword, a bare name or a number.
    Word(&'t str),
    /// A name or a text, without its quotes.
    Quoted(Cow<'t, str>),
    Semicolon,
    Other(char),
}

impl Token<'_> {
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// The tokens of a text, without white space and comments.
#[derive(Clone)]
pub struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Tokens<'t> {
    pub fn of(text: &'t str) -> Tokens<'t> {
        Tokens { rest: text }
    }

    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
            if self.rest.starts_with("--") {
                self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
            } else if self.rest.starts_with("/*") {
                self.rest = self.rest[2..].find("*/").map_or("", |end| &self.rest[end + 4..]);
            } else {
                return;
            }
        }
    }

    /// What stands between `quote`s, which are doubled to stand inside.
    fn quoted(&mut self, quote: char) -> Token<'t> {
        let body = &self.rest[1..];
        let (mut end, mut doubled) = (0, false);
        while let Some(at) = body[end..].find(quote) {
            end += at;
            if !body[end + 1..].starts_with(quote) {
                self.rest = &body[end + 1..];
                return Token::Quoted(unquoted(&body[..end], quote, doubled));
            }
            (end, doubled) = (end + 2, true);
        }
        self.rest = "";
        Token::Quoted(unquoted(body, quote, doubled))
    }
}

fn unquoted(body: &str, quote: char, doubled: bool) -> Cow<'_, str> {
    if doubled { body.replace(&format!("{quote}{quote}"), &quote.to_string()).into() } else { body.into() }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        if in_word(first) {
            let (word, rest) = self.rest.split_at(self.rest.find(|c| !in_word(c)).unwrap_or(self.rest.len()));
            self.rest = rest;
            return Some(Token::Word(word));
        }
        match first {
            '\'' | '"' | '`' => return Some(self.quoted(first)),
            '[' => {
                let (name, rest) = self.rest[1..].split_once(']').unwrap_or((&self.rest[1..], ""));
                self.rest = rest;
                return Some(Token::Quoted(name.into()));
            }
            _ => self.rest = &self.rest[first.len_utf8()..],
        }
        Some(if first == ';' { Token::Semicolon } else { Token::Other(first) })
    }
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The statements of a text; a text with none of them has none. The rules are `sqlite3_complete`'s: a CREATE TRIGGER goes
/// on to its `END;`.
pub fn statements(text: &str) -> impl Iterator<Item = &str> {
    let mut tokens = Tokens::of(text);
    std::iter::from_fn(move || {
        loop {
            let start = tokens.rest;
            let mut state = State::Start;
            while state != State::Complete {
                match tokens.next() {
                    Some(token) => state = state.after(&token),
                    None if state == State::Start => return None,
                    None => return Some(start),
                }
            }
            let statement = &start[..start.len() - tokens.rest.len()];
            if Tokens::of(statement).next() != Some(Token::Semicolon) {
                return Some(statement);
            }
        }
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Normal,
    Explain,
    Create,
    Trigger,
    /// In a trigger, after a semicolon.
    TriggerStep,
    /// In a trigger, after `; END`.
    TriggerEnd,
    Complete,
}

impl State {
    fn after(self, token: &Token<'_>) -> State {
        match (self, token) {
            (State::Trigger | State::TriggerStep, Token::Semicolon) => State::TriggerStep,
            (_, Token::Semicolon) => State::Complete,
            (State::Start, token) if token.is("explain") => State::Explain,
            (State::Start | State::Explain, token) if token.is("create") => State::Create,
            // QUERY PLAN
            (State::Explain, Token::Word(_)) => State::Explain,
            (State::Create, token) if token.is("temp") || token.is("temporary") => State::Create,
            (State::Create, token) if token.is("trigger") => State::Trigger,
            (State::TriggerStep, token) if token.is("end") => State::TriggerEnd,
            (State::Trigger | State::TriggerStep | State::TriggerEnd, _) => State::Trigger,
            _ => State::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<&str> {
        statements(text).map(str::trim).collect()
    }

    #[test]
    fn a_statement_ends_at_its_semicolon_and_nowhere_else() {
        assert_eq!(split("SELECT 1; SELECT 2"), ["SELECT 1;", "SELECT 2"]);
        assert_eq!(
            split("SELECT ';'; -- a;b\n SELECT \"x;y\" /* ; */, [;], `;`;"),
            ["SELECT ';';", "-- a;b\n SELECT \"x;y\" /* ; */, [;], `;`;"]
        );
        assert_eq!(split("SELECT 'it''s;'; SELECT 2;"), ["SELECT 'it''s;';", "SELECT 2;"]);
        assert_eq!(split(" ;; -- nothing\n ; /* nor here"), [""; 0]);
    }

    #[test]
    fn a_trigger_is_one_statement() {
        let trigger = "CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM t; END;";
        let text = format!("{trigger} SELECT 1; EXPLAIN {trigger}");
        assert_eq!(split(&text), [trigger, "SELECT 1;", &format!("EXPLAIN {trigger}")]);
        assert_eq!(split("CREATE TABLE trigger_x(a); SELECT 1"), ["CREATE TABLE trigger_x(a);", "SELECT 1"]);
    }

    proptest! {
        /// Cut as SQLite cuts, statement for statement, wherever SQLite can read the text.
        #[test]
        fn texts_are_cut_where_sqlite_cuts_them(parts in prop::collection::vec(prop::sample::select(vec![
            "SELECT 1", "SELECT 'a;''b'", "SELECT \";\"\"\" AS [;]", "-- c;\n", "/* ; */", ";", " ", "\n", "SELECT x'00'", "VALUES(1,`;`)",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "EXPLAIN QUERY PLAN SELECT 2", "CREATE VIEW v AS SELECT 1",
        ]), 0..12)) {
            let text = parts.concat();
            let conn = rusqlite::Connection::open_in_memory().unwrap();
            conn.execute_batch("CREATE TABLE t(\";\" , \";\"\"\")").unwrap();
            // SQLite leaves semicolons and comments where they are; what counts is the words.
            let words = |sql: &str| Tokens::of(sql).filter(|token| *token != Token::Semicolon).map(|token| format!("{token:?}")).collect::<Vec<_>>();
            let mut batch = rusqlite::Batch::new(&conn, &text);
            let mut theirs = Vec::new();
            loop {
                use rusqlite::fallible_iterator::FallibleIterator;
                match batch.next() {
                    Ok(Some(statement)) => theirs.push(words(&statement.expanded_sql().unwrap())),
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            let ours: Vec<_> = statements(&text).map(words).collect();
            prop_assert_eq!(ours, theirs, "{:?}", text);
        }
    }
}

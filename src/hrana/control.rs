//! What a stream does itself, because it is about its transaction and not about rows: [`Control`]. It is recognised by
//! its words; tenants' SQL is never compiled with the right to begin or to end a transaction.

use super::text::{Token, Tokens};
use crate::sqlite::{self, is_vacuum};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Begin(sqlite::Begin),
    Commit,
    Rollback,
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    /// `PRAGMA foreign_keys = …`, for the stream's transactions to come.
    ForeignKeys(bool),
    Vacuum,
}

impl Control {
    /// `None` for everything else, and for what SQLite would not understand either: its message is the better one.
    pub fn parse(sql: &str) -> Option<Control> {
        let words = &mut Words(Tokens::of(sql));
        let control = if words.take("begin") {
            Control::Begin(words.begin()?)
        } else if words.take("commit") || words.take("end") {
            words.transaction();
            Control::Commit
        } else if words.take("rollback") {
            words.transaction();
            if words.take("to") { Control::RollbackTo(words.savepoint()?) } else { Control::Rollback }
        } else if words.take("savepoint") {
            Control::Savepoint(words.name()?)
        } else if words.take("release") {
            Control::Release(words.savepoint()?)
        } else if words.take("pragma") {
            Control::ForeignKeys(words.foreign_keys()?)
        } else if is_vacuum(sql) {
            return Some(Control::Vacuum);
        } else {
            return None;
        };
        words.0.all(|token| token == Token::Semicolon).then_some(control)
    }
}

struct Words<'t>(Tokens<'t>);

impl Words<'_> {
    fn take(&mut self, keyword: &str) -> bool {
        let mut ahead = self.0.clone();
        let taken = ahead.next().is_some_and(|token| token.is(keyword));
        if taken {
            self.0 = ahead;
        }
        taken
    }

    fn name(&mut self) -> Option<String> {
        match self.0.next()? {
            Token::Word(name) if !name.starts_with(|c: char| c.is_ascii_digit() || c == '$') => Some(name.to_owned()),
            Token::Quoted(name) => Some(name.into_owned()),
            _ => None,
        }
    }

    /// `[DEFERRED | IMMEDIATE | EXCLUSIVE | READONLY] [TRANSACTION [READONLY]]`; READONLY is libSQL's.
    fn begin(&mut self) -> Option<sqlite::Begin> {
        use sqlite::Begin::*;
        // With a write-ahead log EXCLUSIVE keeps no reader out: it is the same as IMMEDIATE.
        let begin = if self.take("immediate") || self.take("exclusive") {
            Immediate
        } else if self.take("readonly") {
            ReadOnly
        } else {
            self.take("deferred");
            Deferred
        };
        self.take("transaction");
        Some(if begin == Deferred && self.take("readonly") { ReadOnly } else { begin })
    }

    fn transaction(&mut self) {
        self.take("transaction");
    }

    fn savepoint(&mut self) -> Option<String> {
        self.take("savepoint");
        self.name()
    }

    fn foreign_keys(&mut self) -> Option<bool> {
        if !self.take("foreign_keys") {
            return None;
        }
        let bracket = match self.0.next()? {
            Token::Other('=') => false,
            Token::Other('(') => true,
            _ => return None,
        };
        let on = match self.name_or_number()?.to_ascii_lowercase().as_str() {
            "on" | "yes" | "true" | "1" => true,
            "off" | "no" | "false" | "0" => false,
            _ => return None,
        };
        (!bracket || self.0.next()? == Token::Other(')')).then_some(on)
    }

    fn name_or_number(&mut self) -> Option<String> {
        match self.0.next()? {
            Token::Word(word) => Some(word.to_owned()),
            Token::Quoted(text) => Some(text.into_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::Begin::*;

    #[test]
    fn transaction_control_is_told_by_its_words() {
        let name = |name: &str| name.to_owned();
        for (sql, control) in [
            ("BEGIN", Control::Begin(Deferred)),
            (" begin deferred transaction ;", Control::Begin(Deferred)),
            ("/* x */ BEGIN IMMEDIATE", Control::Begin(Immediate)),
            ("BEGIN EXCLUSIVE TRANSACTION", Control::Begin(Immediate)),
            ("BEGIN TRANSACTION READONLY", Control::Begin(ReadOnly)),
            ("BEGIN READONLY", Control::Begin(ReadOnly)),
            ("COMMIT;", Control::Commit),
            ("END TRANSACTION -- done", Control::Commit),
            ("ROLLBACK", Control::Rollback),
            ("ROLLBACK TRANSACTION TO SAVEPOINT a", Control::RollbackTo(name("a"))),
            ("ROLLBACK TO \"a\"\"b\"", Control::RollbackTo(name("a\"b"))),
            ("SAVEPOINT [x y]", Control::Savepoint(name("x y"))),
            ("RELEASE SAVEPOINT 'a'", Control::Release(name("a"))),
            ("RELEASE a", Control::Release(name("a"))),
            ("PRAGMA foreign_keys=off", Control::ForeignKeys(false)),
            ("pragma Foreign_Keys ( 1 )", Control::ForeignKeys(true)),
            ("VACUUM", Control::Vacuum),
        ] {
            assert_eq!(Control::parse(sql), Some(control), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_left_to_sqlite() {
        for sql in [
            "",
            ";",
            "SELECT 1",
            "BEGIN; SELECT 1",
            "BEGIN IMMEDIATE READONLY",
            "BEGINNING",
            "COMMIT x y",
            "SAVEPOINT",
            "SAVEPOINT 1",
            "\"BEGIN\"",
            "ROLLBACK TO",
            "PRAGMA foreign_keys",
            "PRAGMA foreign_keys = maybe",
            "PRAGMA foreign_keys(1",
            "VACUUM INTO 'x'",
            "BEGIN \u{e9}",
        ] {
            assert_eq!(Control::parse(sql), None, "{sql}");
        }
    }
}

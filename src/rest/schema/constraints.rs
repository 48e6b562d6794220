//! What SQLite keeps of constraints only in the text of `CREATE TABLE`: the names of foreign keys, and whether rows
//! replace others.

/// For each `REFERENCES` of the text, in order, the name that `CONSTRAINT` gave it, if one did.
pub fn names(sql: &str) -> Vec<Option<String>> {
    let mut names = Vec::new();
    let mut pending = None;
    let mut depth = 0_usize;
    let mut tokens = Tokens { rest: sql };
    while let Some(token) = tokens.next() {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth = depth.saturating_sub(1),
            // The next column or constraint of the table begins.
            Token::Sign(',') if depth == 1 => pending = None,
            Token::Word(word) if word.eq_ignore_ascii_case("constraint") => {
                pending = match tokens.next() {
                    Some(Token::Word(name) | Token::Quoted(name)) => Some(name),
                    _ => None,
                };
            }
            Token::Word(word) if word.eq_ignore_ascii_case("references") => names.push(pending.take()),
            // A name is of the one constraint that follows it.
            Token::Word(word)
                if ["not", "unique", "check", "default", "collate", "primary"].iter().any(|other| word.eq_ignore_ascii_case(other)) =>
            {
                pending = None;
            }
            _ => {}
        }
    }
    names
}

/// Whether a constraint deletes what is in a row's way.
pub fn replaces(sql: &str) -> bool {
    let words: Vec<String> = Tokens { rest: sql }
        .map(|token| match token {
            Token::Word(word) => word.to_ascii_lowercase(),
            Token::Quoted(_) | Token::Sign(_) => String::new(),
        })
        .collect();
    words.windows(3).any(|words| words == ["on", "conflict", "replace"])
}

enum Token {
    Word(String),
    /// `"…"`, `[…]` or `` `…` ``
    Quoted(String),
    Sign(char),
}

struct Tokens<'s> {
    rest: &'s str,
}

impl Tokens<'_> {
    /// Takes up to and with `end`, doubled ends being part of it.
    fn until(&mut self, end: char) -> String {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            if character != end {
                text.push(character);
            } else if end != ']' && characters.peek().is_some_and(|&(_, next)| next == end) {
                text.push(end);
                characters.next();
            } else {
                self.rest = &self.rest[at + end.len_utf8()..];
                return text;
            }
        }
        self.rest = "";
        text
    }

    fn skip_past(&mut self, end: &str) {
        self.rest = self.rest.split_once(end).map_or("", |(_, rest)| rest);
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.rest = self.rest.trim_start();
            let first = self.rest.chars().next()?;
            if self.rest.starts_with("--") {
                self.skip_past("\n");
                continue;
            }
            if self.rest.starts_with("/*") {
                self.skip_past("*/");
                continue;
            }
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            if is_word(first) {
                let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(length);
                self.rest = rest;
                return Some(Token::Word(word.to_owned()));
            }
            self.rest = &self.rest[first.len_utf8()..];
            return Some(match first {
                '"' | '`' => Token::Quoted(self.until(first)),
                '[' => Token::Quoted(self.until(']')),
                '\'' => {
                    self.until('\'');
                    Token::Sign('\'')
                }
                sign => Token::Sign(sign),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_reference_has_its_name_or_none() {
        let sql = r#"CREATE TABLE "t" (
            a INTEGER CONSTRAINT nn NOT NULL REFERENCES x(id), -- CONSTRAINT no REFERENCES
            b INTEGER CONSTRAINT "to y" REFERENCES y,
            c TEXT DEFAULT 'CONSTRAINT c REFERENCES', /* REFERENCES */
            CONSTRAINT [two] FOREIGN KEY (a, b) REFERENCES z(a, b) ON DELETE CASCADE,
            FOREIGN KEY (c) REFERENCES w
        )"#;
        assert_eq!(names(sql), [None, Some("to y".to_owned()), Some("two".to_owned()), None]);
    }

    proptest! {
        #[test]
        fn any_text_ends(sql in "[a-z ()\"'\\[`,/*-]{0,60}") {
            names(&sql);
        }
    }
}

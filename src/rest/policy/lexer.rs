//! A policy file's text as [`Token`]s, each with its place. Comments and spaces are left out.

/// What is wrong with a text, and where.
#[derive(Debug)]
pub struct Fault {
    /// In bytes.
    pub at: usize,
    pub message: String,
    pub hint: &'static str,
}

impl Fault {
    pub fn new(at: usize, message: impl Into<String>) -> Fault {
        Fault { at, message: message.into(), hint: "docs/policies.md has the grammar." }
    }

    pub fn hint(self, hint: &'static str) -> Fault {
        Fault { hint, ..self }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: Kind,
    /// Where it begins, in bytes.
    pub at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// As it is written.
    Word(String),
    /// `"…"`: a name, never a keyword.
    Quoted(String),
    /// `'…'`
    Text(String),
    /// `$$…$$`: where its inside begins and ends.
    Body(usize, usize),
    /// `$1`
    Argument(usize),
    Integer(i64),
    Real(f64),
    Sign(&'static str),
    End,
}

/// Longer ones before their beginnings.
const SIGNS: [&str; 28] = [
    "->>", "->", "::", "||", "<>", "!=", "<=", ">=", "==", "(", ")", ",", ";", ".", "=", "<", ">", "+", "-", "*", "/", "%", "&", "|", "?",
    "[", "]", "~",
];

/// The tokens of `text` from `start` to `end`, with one of [`Kind::End`] behind them.
pub fn tokens(text: &str, start: usize, end: usize) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { text: &text[..end], at: start };
    let mut tokens = Vec::new();
    loop {
        lexer.skip()?;
        let at = lexer.at;
        let kind = lexer.token()?;
        let ends = kind == Kind::End;
        tokens.push(Token { kind, at });
        if ends {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Spaces and comments.
    fn skip(&mut self) -> Result<(), Fault> {
        loop {
            self.at = self.text.len() - self.rest().trim_start().len();
            if self.rest().starts_with("--") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if self.rest().starts_with("/*") {
                let length = self.rest().find("*/").ok_or_else(|| Fault::new(self.at, "this comment does not end"))?;
                self.at += length + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Kind, Fault> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Kind::End) };
        match first {
            '\'' => self.quoted('\'').map(Kind::Text),
            '"' => self.quoted('"').map(Kind::Quoted),
            '$' => self.dollar(),
            '0'..='9' => self.number(),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            first if first.is_alphabetic() || first == '_' => Ok(Kind::Word(self.take(|c| c.is_alphanumeric() || c == '_').to_owned())),
            first => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| Fault::new(self.at, format!("{first:?} means nothing here")))?;
                self.at += sign.len();
                Ok(Kind::Sign(sign))
            }
        }
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// What stands between two of `mark`; a doubled one is itself.
    fn quoted(&mut self, mark: char) -> Result<String, Fault> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            text.push_str(self.take(|c| c != mark && c != '\0'));
            if !self.rest().starts_with(mark) {
                return Err(Fault::new(start, "this text does not end"));
            }
            self.at += 1;
            if !self.rest().starts_with(mark) {
                return Ok(text);
            }
            text.push(mark);
            self.at += 1;
        }
    }

    /// `$1`, or `$tag$…$tag$`.
    fn dollar(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        self.at += 1;
        let digits = self.take(|c| c.is_ascii_digit());
        if !digits.is_empty() {
            return digits.parse().map(Kind::Argument).map_err(|_| Fault::new(start, "there is no such argument"));
        }
        self.take(|c| c.is_alphanumeric() || c == '_');
        if !self.rest().starts_with('$') {
            return Err(Fault::new(start, "'$' means nothing here"));
        }
        self.at += 1;
        let mark = &self.text[start..self.at];
        let inside = self.at;
        let length = self.rest().find(mark).ok_or_else(|| Fault::new(start, format!("the body does not end with {mark}")))?;
        self.at += length + mark.len();
        Ok(Kind::Body(inside, inside + length))
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        self.take(|c| c.is_ascii_digit() || c == '.');
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            if self.rest().starts_with(['+', '-']) {
                self.at += 1;
            }
            self.take(|c| c.is_ascii_digit());
        }
        let text = &self.text[start..self.at];
        let wrong = || Fault::new(start, format!("{text} is no number that SQLite holds"));
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Kind::Integer).map_err(|_| wrong());
        }
        text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Kind::Real).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        tokens(text, 0, text.len()).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn a_text_is_taken_apart() {
        let text = "a.\"B\"\"c\" ->> 'it''s' -- no\n/* no */ 1 2.5e3 <> $1 $f$ x $f$";
        let wanted = [
            Kind::Word("a".into()),
            Kind::Sign("."),
            Kind::Quoted("B\"c".into()),
            Kind::Sign("->>"),
            Kind::Text("it's".into()),
            Kind::Integer(1),
            Kind::Real(2500.0),
            Kind::Sign("<>"),
            Kind::Argument(1),
            Kind::Body(53, 56),
            Kind::End,
        ];
        assert_eq!(kinds(text), wanted);
    }

    #[test]
    fn what_does_not_end_is_refused_where_it_begins() {
        for (text, at) in [("a 'b", 2), ("/* b", 0), ("$$ b", 0), ("a #", 2), ("99999999999999999999", 0), ("'a\0'", 0)] {
            assert_eq!(tokens(text, 0, text.len()).unwrap_err().at, at, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in "[a-z0-9'\"$*/ .é-]{0,40}") {
            let _ = tokens(&text, 0, text.len());
        }
    }
}

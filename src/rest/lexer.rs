//! A [`Token`] of a text in SQL, as migrations, functions and policies are written in. Every byte of the text is in one
//! token.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// White space, or a comment.
    Blank,
    Word,
    /// `"…"`, `[…]` or `` `…` ``
    Quoted,
    /// `'…'`
    Text,
    /// `$$…$$` or `$tag$…$tag$`
    Dollars,
    /// Without its sign.
    Number,
    /// `:name` or `$1`
    Parameter,
    /// One of [`SIGNS`], or one character that means nothing.
    Sign,
    /// A string, a name or a comment without its end.
    Open,
    /// What a parser stands before when there is no more.
    End,
}

/// Those of several characters.
const SIGNS: [&str; 9] = ["->>", "->", "::", "||", "<>", "!=", "<=", ">=", "=="];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'t> {
    pub kind: Kind,
    /// Where it begins, in bytes.
    pub at: usize,
    /// With its quotes.
    pub text: &'t str,
}

impl Token<'_> {
    pub fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// What it names, or says, without its quotes.
    pub fn plain(&self) -> String {
        let text = self.text;
        match self.kind {
            Kind::Quoted | Kind::Text => {
                let inside = &text[1..text.len() - 1];
                match text.as_bytes()[0] {
                    b'[' => inside.to_owned(),
                    quote => inside.replace(&String::from_utf8_lossy(&[quote, quote]).into_owned(), &char::from(quote).to_string()),
                }
            }
            Kind::Dollars => {
                let tag = self.inside() - self.at;
                text[tag..text.len() - tag].to_owned()
            }
            _ => text.to_owned(),
        }
    }

    /// Where what stands between its dollars begins.
    pub fn inside(&self) -> usize {
        self.at + dollar_tag(self.text).map_or(0, str::len)
    }
}

pub struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        let (kind, length) = read(rest, first);
        let token = Token { kind, at: self.at, text: &rest[..length] };
        self.at += length;
        Some(token)
    }
}

/// The kind and length of the token that `rest` begins with.
fn read(rest: &str, first: char) -> (Kind, usize) {
    let up_to = |kind: Kind, from: usize, end: &str| match rest[from..].find(end) {
        Some(found) => (kind, from + found + end.len()),
        None => (Kind::Open, rest.len()),
    };
    let while_ = |from: usize, wanted: fn(char) -> bool| rest[from..].find(|c| !wanted(c)).map_or(rest.len(), |length| from + length);
    match first {
        _ if first.is_whitespace() => (Kind::Blank, while_(0, char::is_whitespace)),
        '-' if rest.starts_with("--") => (Kind::Blank, rest.find('\n').unwrap_or(rest.len())),
        '/' if rest.starts_with("/*") => up_to(Kind::Blank, 2, "*/"),
        '[' => up_to(Kind::Quoted, 1, "]"),
        '\'' => doubled(rest, first).map_or((Kind::Open, rest.len()), |length| (Kind::Text, length)),
        '"' | '`' => doubled(rest, first).map_or((Kind::Open, rest.len()), |length| (Kind::Quoted, length)),
        '$' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (Kind::Parameter, while_(1, |c| c.is_ascii_digit())),
        '$' => match dollar_tag(rest) {
            Some(tag) => up_to(Kind::Dollars, tag.len(), tag),
            None => (Kind::Sign, 1),
        },
        ':' if rest[1..].starts_with(begins_word) => (Kind::Parameter, while_(1, is_in_word)),
        '0'..='9' => (Kind::Number, number(rest)),
        '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (Kind::Number, number(rest)),
        _ if begins_word(first) => (Kind::Word, while_(0, is_in_word)),
        _ => (Kind::Sign, SIGNS.iter().find(|sign| rest.starts_with(**sign)).map_or(first.len_utf8(), |sign| sign.len())),
    }
}

/// The length of digits, point and exponent.
fn number(rest: &str) -> usize {
    let digits = |from: usize| rest[from..].find(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(rest.len(), |length| from + length);
    let end = digits(0);
    let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) else { return end };
    let signed = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let begins = rest.len() - signed.len();
    if signed.starts_with(|c: char| c.is_ascii_digit()) { digits(begins) } else { end }
}

fn begins_word(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The length of what is quoted, where a doubled quote is part of it.
fn doubled(rest: &str, quote: char) -> Option<usize> {
    let mut at = 1;
    loop {
        at += rest[at..].find(quote)? + 1;
        if !rest[at..].starts_with(quote) {
            return Some(at);
        }
        at += 1;
    }
}

/// `$$` or `$tag$`
fn dollar_tag(rest: &str) -> Option<&str> {
    let inside = rest.strip_prefix('$')?;
    let length = inside.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inside.len());
    inside[length..].starts_with('$').then(|| &rest[..length + 2])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        tokens(text).filter(|token| token.kind != Kind::Blank).map(|token| (token.kind, token.text)).collect()
    }

    #[test]
    fn strings_and_comments_hide_what_is_in_them() {
        use Kind::*;
        assert_eq!(
            kinds("a:b 'it''s :c' \"x\"\"y\" [z] /* ; */ ; -- :d\n1.5e-3 .5 2e a::b ->>$1 $q$ $$ ; $q$"),
            [
                (Word, "a"),
                (Parameter, ":b"),
                (Text, "'it''s :c'"),
                (Quoted, "\"x\"\"y\""),
                (Quoted, "[z]"),
                (Sign, ";"),
                (Number, "1.5e-3"),
                (Number, ".5"),
                (Number, "2"),
                (Word, "e"),
                (Word, "a"),
                (Sign, "::"),
                (Word, "b"),
                (Sign, "->>"),
                (Parameter, "$1"),
                (Dollars, "$q$ $$ ; $q$"),
            ]
        );
        assert_eq!(tokens("'it''s'\"a\"\"b\"[c]$$d$$").map(|token| token.plain()).collect::<Vec<_>>(), ["it's", "a\"b", "c", "d"]);
        assert_eq!(kinds("'open"), [(Open, "'open")]);
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_token(text in "[a:$'\"`\\[\\];/*\\- \n1e.+>é]{0,40}") {
            let all: String = tokens(&text).map(|token| { token.plain(); token.text }).collect();
            prop_assert_eq!(all, text);
        }
    }
}

//! What SQLite keeps of constraints only in the text of `CREATE TABLE`: the names of foreign keys, and whether rows
//! replace others.

use super::super::lexer::{self, Kind};

/// For each `REFERENCES` of the text, in order, the name that `CONSTRAINT` gave it, if one did.
pub fn names(sql: &str) -> Vec<Option<String>> {
    let mut names = Vec::new();
    let mut pending = None;
    let mut depth = 0_usize;
    let mut tokens = lexer::tokens(sql).filter(|token| token.kind != Kind::Blank);
    while let Some(token) = tokens.next() {
        match token.kind {
            Kind::Sign if token.is_sign("(") => depth += 1,
            Kind::Sign if token.is_sign(")") => depth = depth.saturating_sub(1),
            // The next column or constraint of the table begins.
            Kind::Sign if token.is_sign(",") && depth == 1 => pending = None,
            Kind::Word if token.is_word("constraint") => {
                let name = tokens.next().filter(|name| matches!(name.kind, Kind::Word | Kind::Quoted));
                pending = name.map(|name| name.plain());
            }
            Kind::Word if token.is_word("references") => names.push(pending.take()),
            // A name is of the one constraint that follows it.
            Kind::Word if ["not", "unique", "check", "default", "collate", "primary"].iter().any(|other| token.is_word(other)) => {
                pending = None;
            }
            _ => {}
        }
    }
    names
}

/// Whether a constraint deletes what is in a row's way.
pub fn replaces(sql: &str) -> bool {
    let words: Vec<_> = lexer::tokens(sql).filter(|token| token.kind != Kind::Blank).collect();
    words.windows(3).any(|words| words.iter().zip(["on", "conflict", "replace"]).all(|(token, word)| token.is_word(word)))
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

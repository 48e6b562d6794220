//! Which rows: `column=operator.value` parameters and the trees of `and=(…)` and `or=(…)`.
//!
//! ```text
//! test    = ["not."] operator ["(any)" / "(all)" / "(" language ")"] "." value
//! tree    = ["not."] ("and" / "or") "(" tree *("," tree) ")" / path "." test
//! ```
//!
//! Alone, a value goes to the end of the parameter; in a tree it ends at `,` or `)` unless it is quoted or in braces.

use super::cursor::Cursor;
use super::select::{self, Path};
use crate::error::Result;

/// The most values of one `(any)`, `(all)`; `in` is bounded by the request's size.
const QUANTIFIED_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub enum Logic {
    Group { negated: bool, any: bool, of: Vec<Logic> },
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub path: Path,
    pub negated: bool,
    pub test: Test,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Compare(Comparison, Operand),
    In(Vec<String>),
    Is(Is),
    Distinct(String),
    Contains(String),
    Contained(String),
    Overlaps(String),
    Search(Search, String),
    /// Known, but nothing SQLite can do.
    Foreign(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    Ilike,
    Match,
    Imatch,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    One(String),
    Any(Vec<String>),
    All(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// How the words of a full text search are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// With `&`, `|` and `!`.
    Query,
    /// All of them.
    Plain,
    /// One phrase.
    Phrase,
    /// As search engines take them: quotes, `or`, `-`.
    Web,
}

const COMPARISONS: [(&str, Comparison); 10] = [
    ("eq", Comparison::Eq),
    ("neq", Comparison::Neq),
    ("gte", Comparison::Gte),
    ("gt", Comparison::Gt),
    ("lte", Comparison::Lte),
    ("lt", Comparison::Lt),
    ("like", Comparison::Like),
    ("ilike", Comparison::Ilike),
    ("match", Comparison::Match),
    ("imatch", Comparison::Imatch),
];

const SEARCHES: [(&str, Search); 4] = [("fts", Search::Query), ("plfts", Search::Plain), ("phfts", Search::Phrase), ("wfts", Search::Web)];

const FOREIGN: [&str; 5] = ["sl", "sr", "nxr", "nxl", "adj"];

const STATES: [(&str, Is); 5] =
    [("not_null", Is::NotNull), ("null", Is::Null), ("true", Is::True), ("false", Is::False), ("unknown", Is::Unknown)];

/// Where a value ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    WithTheText,
    InATree,
}

/// The test of a parameter of its own.
pub fn parse(path: Path, text: &str) -> Result<Filter> {
    let mut cursor = Cursor::new("filter", text);
    let (negated, test) = test(&mut cursor, Ends::WithTheText)?;
    cursor.end("end of input")?;
    Ok(Filter { path, negated, test })
}

/// Whether a value reads as a test.
pub fn is_test(text: &str) -> bool {
    test(&mut Cursor::new("filter", text), Ends::WithTheText).is_ok()
}

/// The tree of an `and=` or `or=` parameter, which is in parentheses.
pub fn parse_tree(negated: bool, any: bool, text: &str) -> Result<Logic> {
    let mut cursor = Cursor::new("logic tree", text);
    let of = group(&mut cursor)?;
    cursor.end("end of input")?;
    Ok(Logic::Group { negated, any, of })
}

fn group(cursor: &mut Cursor<'_>) -> Result<Vec<Logic>> {
    cursor.spaces();
    cursor.expect("(")?;
    let of = cursor.nested(|cursor| cursor.list(tree))?;
    cursor.spaces();
    cursor.expect(")")?;
    cursor.spaces();
    Ok(of)
}

fn tree(cursor: &mut Cursor<'_>) -> Result<Logic> {
    cursor.spaces();
    let operator = cursor.attempt(|cursor| {
        let negated = cursor.eat("not.");
        let any = if cursor.eat("and") { false } else { cursor.eat("or").then_some(true)? };
        cursor.spaces();
        cursor.rest().starts_with('(').then_some((negated, any))
    });
    if let Some((negated, any)) = operator {
        return Ok(Logic::Group { negated, any, of: group(cursor)? });
    }
    let path = select::path(cursor)?;
    cursor.expect(".")?;
    let (negated, test) = test(cursor, Ends::InATree)?;
    Ok(Logic::Filter(Filter { path, negated, test }))
}

fn test(cursor: &mut Cursor<'_>, ends: Ends) -> Result<(bool, Test)> {
    let negated = cursor.eat("not.");
    Ok((negated, operation(cursor, ends)?))
}

fn operation(cursor: &mut Cursor<'_>, ends: Ends) -> Result<Test> {
    if cursor.eat("in.") {
        return list(cursor).map(Test::In);
    }
    if cursor.eat("isdistinct.") {
        return Ok(Test::Distinct(value(cursor, ends)));
    }
    if cursor.eat("is.") {
        return state(cursor, ends);
    }
    if let Some(search) = cursor.attempt(search) {
        return Ok(Test::Search(search, value(cursor, ends)));
    }
    for (name, test) in [("cs.", Test::Contains as fn(String) -> Test), ("cd.", Test::Contained), ("ov.", Test::Overlaps)] {
        if cursor.eat(name) {
            return Ok(test(value(cursor, ends)));
        }
    }
    for name in FOREIGN {
        if cursor.attempt(|cursor| (cursor.eat(name) && cursor.eat(".")).then_some(())).is_some() {
            value(cursor, ends);
            return Ok(Test::Foreign(name));
        }
    }
    let Some((comparison, quantifier)) = cursor.attempt(comparison) else {
        return Err(cursor.fail("operator (eq, gt, ...)"));
    };
    let text = value(cursor, ends);
    let operand = match quantifier {
        None => Operand::One(text),
        Some(all) => {
            let values = array(&text).ok_or_else(|| cursor.fail("an array such as {1,2}"))?;
            if values.len() > QUANTIFIED_MAX {
                return Err(cursor.fail(&format!("at most {QUANTIFIED_MAX} values")));
            }
            if all { Operand::All(values) } else { Operand::Any(values) }
        }
    };
    Ok(Test::Compare(comparison, operand))
}

/// The operator, and whether it is of all values, if it is of several.
fn comparison(cursor: &mut Cursor<'_>) -> Option<(Comparison, Option<bool>)> {
    let (_, comparison) = COMPARISONS.into_iter().find(|(name, _)| cursor.eat(name))?;
    let quantifiable = comparison != Comparison::Neq;
    let quantifier = match () {
        () if quantifiable && cursor.eat("(any)") => Some(false),
        () if quantifiable && cursor.eat("(all)") => Some(true),
        () => None,
    };
    cursor.eat(".").then_some((comparison, quantifier))
}

/// The language in parentheses is taken and not used: an FTS5 table has its tokenizer.
fn search(cursor: &mut Cursor<'_>) -> Option<Search> {
    let (_, search) = SEARCHES.into_iter().find(|(name, _)| cursor.eat(name))?;
    if cursor.eat("(") {
        cursor.take_while(|c| c.is_alphanumeric() || c == '_');
        cursor.eat(")").then_some(())?;
    }
    cursor.eat(".").then_some(search)
}

fn state(cursor: &mut Cursor<'_>, ends: Ends) -> Result<Test> {
    let known = cursor.attempt(|cursor| {
        let word = cursor.take_while(|c| c.is_ascii_alphabetic() || c == '_');
        let (_, state) = STATES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word))?;
        (cursor.is_done() || (ends == Ends::InATree && cursor.rest().starts_with([',', ')', ' ']))).then_some(state)
    });
    known.map(Test::Is).ok_or_else(|| cursor.fail("isVal: (null, not_null, true, false, unknown)"))
}

fn value(cursor: &mut Cursor<'_>, ends: Ends) -> String {
    match ends {
        Ends::WithTheText => cursor.take_rest().to_owned(),
        Ends::InATree => {
            let braced = cursor.attempt(|cursor| {
                let start = cursor.rest();
                cursor.eat("{").then_some(())?;
                let inside = cursor.take_while(|c| !matches!(c, '{' | '}'));
                cursor.eat("}").then(|| start[..inside.len() + 2].to_owned())
            });
            braced.unwrap_or_else(|| element(cursor))
        }
    }
}

/// `(a,"b,c",d)`
fn list(cursor: &mut Cursor<'_>) -> Result<Vec<String>> {
    cursor.spaces();
    cursor.expect("(")?;
    let mut values = Vec::new();
    loop {
        cursor.spaces();
        values.push(element(cursor));
        if !cursor.eat(",") {
            break;
        }
    }
    cursor.expect(")")?;
    if values == [""] {
        values.clear();
    }
    Ok(values)
}

fn element(cursor: &mut Cursor<'_>) -> String {
    let quoted = cursor.attempt(|cursor| {
        let text = cursor.quoted()?;
        (cursor.is_done() || cursor.rest().starts_with([',', ')'])).then_some(text)
    });
    quoted.unwrap_or_else(|| cursor.take_while(|c| !matches!(c, ',' | ')')).to_owned())
}

/// PostgreSQL's array literal of one dimension: `{a,"b,c"}`.
pub fn array(text: &str) -> Option<Vec<String>> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut cursor = Cursor::new("array", inside);
    let mut values = Vec::new();
    if inside.is_empty() {
        return Some(values);
    }
    loop {
        values.push(match cursor.quoted() {
            Some(quoted) => quoted,
            None => cursor.take_while(|c| c != ',').to_owned(),
        });
        if cursor.is_done() {
            return Some(values);
        }
        cursor.eat(",").then_some(())?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alone(text: &str) -> Result<(bool, Test)> {
        let path = Path { column: "c".into(), steps: Vec::new(), as_text: false };
        parse(path, text).map(|filter| (filter.negated, filter.test))
    }

    #[test]
    fn every_operator_is_read() {
        let one = |text: &str| Operand::One(text.to_owned());
        for (text, wanted) in [
            ("eq.a,b)", Test::Compare(Comparison::Eq, one("a,b)"))),
            ("gte.5", Test::Compare(Comparison::Gte, one("5"))),
            ("imatch.^x", Test::Compare(Comparison::Imatch, one("^x"))),
            ("gt(all).{4,3}", Test::Compare(Comparison::Gt, Operand::All(vec!["4".into(), "3".into()]))),
            (r#"like(any).{"a,b",c*}"#, Test::Compare(Comparison::Like, Operand::Any(vec!["a,b".into(), "c*".into()]))),
            (r#"in.(1,"a,\"b",c)"#, Test::In(vec!["1".into(), "a,\"b".into(), "c".into()])),
            ("in.()", Test::In(Vec::new())),
            ("is.NoT_NuLl", Test::Is(Is::NotNull)),
            ("isdistinct.5", Test::Distinct("5".into())),
            ("wfts(english).a b", Test::Search(Search::Web, "a b".into())),
            ("cs.{1,2}", Test::Contains("{1,2}".into())),
            ("adj.(1,2)", Test::Foreign("adj")),
        ] {
            assert_eq!(alone(text).unwrap(), (false, wanted.clone()), "{text}");
            assert_eq!(alone(&format!("not.{text}")).unwrap(), (true, wanted), "not.{text}");
        }
    }

    #[test]
    fn a_tree_is_read_to_its_leaves() {
        let Logic::Group { any: true, negated: false, of } =
            parse_tree(false, true, r#"(not.and(a.eq.x y,b.in.(1,2)), c->>d.not.is.null,e.eq."(a,b)",f.cs.{1,2})"#).unwrap()
        else {
            panic!("no group")
        };
        assert!(matches!(&of[0], Logic::Group { negated: true, any: false, of } if of.len() == 2));
        assert!(matches!(&of[1], Logic::Filter(filter) if filter.negated && filter.path.as_text));
        let Logic::Filter(quoted) = &of[2] else { panic!("no filter") };
        assert_eq!(quoted.test, Test::Compare(Comparison::Eq, Operand::One("(a,b)".into())));
        assert!(matches!(&of[3], Logic::Filter(filter) if filter.test == Test::Contains("{1,2}".into())));
    }

    #[test]
    fn what_is_no_test_is_refused_with_its_place() {
        for (text, column) in [("xx.5", 1), ("eq5", 1), ("is.nil", 4), ("in.5", 4), ("in.(5", 6), ("eq(any).5", 10), ("5", 1)] {
            let error = alone(text).unwrap_err();
            assert!(error.message().ends_with(&format!("(line 1, column {column})")), "{text}: {error}");
        }
        for text in ["", "()", "(a)", "(a.eq.1", "(a.eq.1))", "(and(a.eq.1)"] {
            assert!(parse_tree(false, false, text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(not\\.)?(in|eq|is|cs|fts|gt\\(any\\))?[a-c(){},.\"\\\\ é]{0,30}") {
            let _ = alone(&text);
            let _ = parse_tree(false, true, &format!("({text}"));
        }
    }
}

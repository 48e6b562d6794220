//! What a request asks for, as `select=` says it: columns, casts, paths into JSON, aggregates, and other tables'
//! rows embedded.
//!
//! ```text
//! items  = item *("," item)
//! item   = "*" / embed / field
//! embed  = ["..." / [name ":"]] name *("!" name) "(" [items] ")"
//! field  = [name ":"] ("count()" / path ["::" cast] ["." aggregate "()" ["::" cast]])
//! path   = name *(("->" / "->>") key)
//! ```

use super::cursor::Cursor;
use crate::error::Result;

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Star,
    Field(Field),
    Embed(Embed),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub alias: Option<String>,
    /// `None` for `count()` of rows.
    pub path: Option<Path>,
    pub cast: Option<String>,
    pub aggregate: Option<Aggregate>,
    pub aggregate_cast: Option<String>,
}

/// A column, or a place within its JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    pub column: String,
    pub steps: Vec<Step>,
    /// The last arrow is `->>`: the value as text.
    pub as_text: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Key(String),
    /// From the end where negative.
    Index(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Embed {
    pub alias: Option<String>,
    pub name: String,
    pub hint: Option<String>,
    pub inner: bool,
    /// Its columns become its parent's.
    pub spread: bool,
    pub items: Vec<Item>,
}

impl Embed {
    /// Under which it is answered, filtered and ordered.
    pub fn key(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }
}

impl Path {
    /// Under which it is answered: its last key, or else its column.
    pub fn name(&self) -> &str {
        let keys = self.steps.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        keys.unwrap_or(&self.column)
    }
}

impl Aggregate {
    const ALL: [Aggregate; 5] = [Aggregate::Count, Aggregate::Sum, Aggregate::Avg, Aggregate::Min, Aggregate::Max];

    /// Its name in requests and in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Aggregate::Count => "count",
            Aggregate::Sum => "sum",
            Aggregate::Avg => "avg",
            Aggregate::Min => "min",
            Aggregate::Max => "max",
        }
    }
}

pub fn parse(text: &str) -> Result<Vec<Item>> {
    let mut cursor = Cursor::new("select parameter", text);
    let items = cursor.list(item)?;
    cursor.end("\",\" or end of input")?;
    Ok(items)
}

/// `name,name`, of `columns=` and `on_conflict=`.
pub fn names(what: &'static str, text: &str) -> Result<Vec<String>> {
    let mut cursor = Cursor::new(what, text);
    let names = cursor.list(Cursor::name)?;
    cursor.end("\",\" or end of input")?;
    Ok(names)
}

fn item(cursor: &mut Cursor<'_>) -> Result<Item> {
    cursor.spaces();
    if cursor.eat("...") {
        return embed(cursor, None, true).map(Item::Embed);
    }
    if cursor.eat("*") {
        return Ok(Item::Star);
    }
    let alias = cursor.attempt(|cursor| {
        let name = cursor.name().ok()?;
        (cursor.eat(":") && !cursor.rest().starts_with(':')).then_some(name)
    });
    cursor.spaces();
    if is_embed(cursor) {
        return embed(cursor, alias, false).map(Item::Embed);
    }
    field(cursor, alias).map(Item::Field)
}

/// Whether a name, hints and a parenthesis come next. `count()` is no embed.
fn is_embed(cursor: &mut Cursor<'_>) -> bool {
    let mut found = false;
    // Only looks: whatever it reads is given back.
    cursor.attempt(|cursor| -> Option<()> {
        let name = cursor.name().ok()?;
        while cursor.eat("!") {
            cursor.name().ok()?;
        }
        found = cursor.eat("(") && name != Aggregate::Count.name();
        None
    });
    found
}

fn embed(cursor: &mut Cursor<'_>, alias: Option<String>, spread: bool) -> Result<Embed> {
    let name = cursor.name()?;
    let mut embed = Embed { alias, name, hint: None, inner: false, spread, items: Vec::new() };
    while cursor.eat("!") {
        match cursor.name()?.as_str() {
            "inner" => embed.inner = true,
            "left" => embed.inner = false,
            hint => embed.hint = Some(hint.to_owned()),
        }
    }
    cursor.expect("(")?;
    cursor.spaces();
    if !cursor.rest().starts_with(')') {
        embed.items = cursor.nested(|cursor| cursor.list(item))?;
    }
    cursor.spaces();
    cursor.expect(")")?;
    Ok(embed)
}

fn field(cursor: &mut Cursor<'_>, alias: Option<String>) -> Result<Field> {
    let mut field = Field { alias, path: None, cast: None, aggregate: None, aggregate_cast: None };
    if cursor.eat("count()") {
        field.aggregate = Some(Aggregate::Count);
        field.aggregate_cast = cast(cursor)?;
        return end_of_field(cursor, field);
    }
    field.path = Some(path(cursor)?);
    field.cast = cast(cursor)?;
    if cursor.eat(".") {
        let name = cursor.take_while(|c| c.is_ascii_lowercase());
        let known = Aggregate::ALL.into_iter().find(|aggregate| aggregate.name() == name);
        field.aggregate = Some(known.ok_or_else(|| cursor.fail("an aggregate (count(), sum(), avg(), min() or max())"))?);
        cursor.expect("()")?;
        field.aggregate_cast = cast(cursor)?;
    }
    end_of_field(cursor, field)
}

fn end_of_field(cursor: &mut Cursor<'_>, field: Field) -> Result<Field> {
    cursor.spaces();
    match cursor.peek() {
        None | Some(',' | ')') => Ok(field),
        Some(_) => Err(cursor.fail("\"->\", \"::\", \".\", \")\", \",\" or end of input")),
    }
}

fn cast(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    if cursor.eat("::") { cursor.name().map(Some) } else { Ok(None) }
}

/// A column and where within its JSON.
pub fn path(cursor: &mut Cursor<'_>) -> Result<Path> {
    let mut path = Path { column: cursor.name()?, steps: Vec::new(), as_text: false };
    while !path.as_text {
        if cursor.eat("->>") {
            path.as_text = true;
        } else if !cursor.eat("->") {
            break;
        }
        path.steps.push(step(cursor)?);
    }
    Ok(path)
}

fn step(cursor: &mut Cursor<'_>) -> Result<Step> {
    if let Some(key) = cursor.quoted() {
        return Ok(Step::Key(key));
    }
    let index = cursor.attempt(|cursor| {
        let sign = if cursor.eat("-") { "-" } else { "" };
        let digits = cursor.take_while(|c| c.is_ascii_digit());
        let ends = cursor.is_done() || ["->", "::", ".", ",", ")", " "].iter().any(|next| cursor.rest().starts_with(next));
        if ends { format!("{sign}{digits}").parse().ok() } else { None }
    });
    match index {
        Some(index) => Ok(Step::Index(index)),
        None => cursor.name().map(Step::Key),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_asked_for_is_read() {
        let items = parse("myId:id::text, *, data->a->>-1, x.sum()::int, n:count(), c:rel!hint!inner(id, ...up(name)), e()").unwrap();
        let Item::Field(first) = &items[0] else { panic!("{items:?}") };
        assert_eq!((first.alias.as_deref(), first.cast.as_deref()), (Some("myId"), Some("text")));
        assert_eq!(items[1], Item::Star);
        let Item::Field(third) = &items[2] else { panic!("{items:?}") };
        let path = Path { column: "data".into(), steps: vec![Step::Key("a".into()), Step::Index(-1)], as_text: true };
        assert_eq!(third.path, Some(path));
        let Item::Embed(embed) = &items[5] else { panic!("{items:?}") };
        assert_eq!((embed.key(), embed.name.as_str(), embed.hint.as_deref(), embed.inner), ("c", "rel", Some("hint"), true));
        assert!(matches!(&embed.items[1], Item::Embed(up) if up.spread));
        assert!(matches!(&items[6], Item::Embed(empty) if empty.items.is_empty()));
    }

    #[test]
    fn an_error_says_where() {
        for (text, column) in [("a,,b", 3), ("a(b", 4), ("a::", 4), ("a.median()", 9), ("é b)", 4)] {
            let error = parse(text).unwrap_err();
            assert!(error.message().ends_with(&format!("(line 1, column {column})")), "{text}: {error}");
        }
        assert!(parse(&"a(".repeat(100)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c(),.:!*>\" \\-\\\\é]{0,40}") {
            let _ = parse(&text);
        }
    }
}

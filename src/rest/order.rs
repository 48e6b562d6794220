//! In which order: `order=name.desc.nullslast,rel(name),data->>x`.

use super::cursor::Cursor;
use super::select::{self, Path};
use crate::error::Result;

#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The embedded row whose column it is.
    pub relation: Option<String>,
    pub path: Path,
    pub descending: bool,
    pub nulls_first: bool,
}

pub fn parse(text: &str) -> Result<Vec<Term>> {
    let mut cursor = Cursor::new("order", text);
    let terms = cursor.list(term)?;
    cursor.end("\",\" or end of input")?;
    Ok(terms)
}

fn term(cursor: &mut Cursor<'_>) -> Result<Term> {
    let relation = cursor.attempt(|cursor| {
        let name = cursor.name().ok()?;
        cursor.eat("(").then_some(name)
    });
    let path = select::path(cursor)?;
    if relation.is_some() {
        cursor.expect(")")?;
    }
    let descending = cursor.eat(".desc");
    if !descending {
        cursor.eat(".asc");
    }
    // As in PostgreSQL: nulls are larger than everything.
    let nulls_first = match () {
        () if cursor.eat(".nullsfirst") => true,
        () if cursor.eat(".nullslast") => false,
        () => descending,
    };
    cursor.spaces();
    match cursor.peek() {
        None | Some(',') => Ok(Term { relation, path, descending, nulls_first }),
        Some(_) => Err(cursor.fail("\",\" or end of input")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_largest_unless_told_otherwise() {
        let terms = parse("a,b.desc,c.asc.nullsfirst,d.desc.nullslast,e.nullsfirst,up(name).desc,j->x").unwrap();
        let read: Vec<_> = terms.iter().map(|term| (term.path.column.as_str(), term.descending, term.nulls_first)).collect();
        let wanted = [
            ("a", false, false),
            ("b", true, true),
            ("c", false, true),
            ("d", true, false),
            ("e", false, true),
            ("name", true, true),
            ("j", false, false),
        ];
        assert_eq!(read, wanted);
        assert_eq!(terms[5].relation.as_deref(), Some("up"));
    }

    #[test]
    fn an_error_says_where() {
        let error = parse("id.asc.nullslasttt").unwrap_err();
        assert_eq!(error.message(), "\"failed to parse order (id.asc.nullslasttt)\" (line 1, column 17)");
        assert_eq!(error.to_json()["details"], "unexpected 't' expecting \",\" or end of input");
        assert!(parse("").is_err() && parse("a,").is_err() && parse("a.up").is_err());
    }
}

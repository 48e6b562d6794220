//! What goes to the terminal. Text that came from a server or a database is shown with its control characters
//! escaped, so that no stored value can drive the terminal; a reader that goes away (`| head`) is no error.

use std::io::Write;

use serde_json::{Map, Value};

use super::client::Answer;
use crate::error::Error;

/// Writes text and a line's end to stdout.
pub fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A closed pipe means that nobody reads on; there is nobody to tell.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes text and a line's end to stderr: what is about the answer and not the answer.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `error: …`, what it is about, and the next step, on stderr.
pub fn failure(error: &Error) {
    note(&format!("error: {}", printable(error.message())));
    let body = error.to_json();
    if let Some(details) = body.get("details").filter(|details| !details.is_null()) {
        note(&format!("  {details}"));
    }
    if let Some(hint) = body.get("hint").and_then(Value::as_str) {
        note(&format!("  {}", printable(hint)));
    }
}

/// The API's body as it came.
pub fn body(answer: &Answer) {
    line(answer.text().trim_end());
}

/// Aligned columns under their headings, two spaces between them.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let columns = rows.iter().map(Vec::len).chain([headings.len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let one = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count().min(*width)));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![one(&mut headings.iter().copied())];
    lines.extend(rows.iter().map(|row| one(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// One row for each item, one column for each field that is named.
pub fn list(items: &[Value], fields: &[&str]) -> String {
    let headings: Vec<String> = fields.iter().map(|field| field.to_uppercase()).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = items.iter().map(|item| fields.iter().map(|field| cell(&item[*field])).collect()).collect();
    table(&headings, &rows)
}

/// Says how to get the next page, if the answer's `next_cursor` says that there is one.
pub fn more(body: &Value) {
    if let Some(cursor) = body["next_cursor"].as_str() {
        note(&format!("there is more: --after {}", printable(cursor)));
    }
}

/// Any JSON as a page: plain fields first, one to a line; then each object and list under its name.
pub fn document(value: &Value) -> String {
    let mut text = String::new();
    section(&mut text, "", value);
    text.trim_end().to_owned()
}

fn section(text: &mut String, title: &str, value: &Value) {
    let Value::Object(fields) = value else {
        text.push_str(&format!("{title}\n  {}\n\n", cell(value)));
        return;
    };
    let is_plain = |value: &Value| match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.iter().any(Value::is_object),
        _ => true,
    };
    let names = naming_first(fields);
    let plain: Vec<Vec<String>> =
        names.iter().filter(|name| is_plain(&fields[**name])).map(|name| vec![(*name).to_owned(), cell(&fields[*name])]).collect();
    if !title.is_empty() && !plain.is_empty() {
        text.push_str(&format!("{title}\n"));
    }
    if !plain.is_empty() {
        let indent = if title.is_empty() { "" } else { "  " };
        for row in table(&[], &plain).lines().skip(1) {
            text.push_str(&format!("{indent}{row}\n"));
        }
        text.push('\n');
    }
    for (name, value) in fields.iter().filter(|(_, value)| !is_plain(value)) {
        let title = if title.is_empty() { name.clone() } else { format!("{title}.{name}") };
        match value {
            Value::Array(items) => {
                let names: Vec<&str> = match items.first() {
                    Some(Value::Object(first)) => naming_first(first),
                    _ => Vec::new(),
                };
                let rows = list(items, &names);
                text.push_str(&format!("{title}\n"));
                rows.lines().for_each(|row| text.push_str(&format!("  {row}\n")));
                text.push('\n');
            }
            value => section(text, &title, value),
        }
    }
}

/// An object's fields, those that say which thing it is before all others.
fn naming_first(fields: &Map<String, Value>) -> Vec<&str> {
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.sort_by_key(|name| ["id", "slug", "name", "state"].iter().position(|first| first == name).unwrap_or(usize::MAX));
    names
}

/// One value in a table's cell.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_number()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_no_line_ends_in_spaces() {
        let text = table(&["ID", "NAME"], &[vec!["1".into(), "über".into()], vec!["1000".into(), "b".into()]]);
        assert_eq!(text, "ID    NAME\n1     über\n1000  b");
    }

    #[test]
    fn a_stored_value_cannot_drive_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\nc\u{9b}")), "a\\u{1b}[2Jb\\nc\\u{9b}");
        assert_eq!(cell(&Value::Null), "-");
        assert_eq!(cell(&json!(["sql:read", "cache"])), "sql:read cache");
        assert_eq!(cell(&json!(9_007_199_254_740_993_i64)), "9007199254740993");
    }

    #[test]
    fn any_answer_becomes_a_page() {
        let page =
            document(&json!({"ok": true, "pools": {"open": 3, "files": {"wal_bytes": 9}}, "systems": [{"name": "app", "tables": 7}]}));
        assert_eq!(page, "ok  true\n\npools\n  open  3\n\npools.files\n  wal_bytes  9\n\nsystems\n  NAME  TABLES\n  app   7");
    }
}

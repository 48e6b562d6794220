//! What PostgREST and PostgreSQL call the ways in which a request fails: their codes and statuses, in one place.

use rusqlite::ffi;
use serde_json::{Value, json};

use super::function::Function;
use super::schema::{Schema, Table};
use crate::error::{Code, Error};

fn says(code: &'static str, status: u16, message: impl Into<String>) -> Error {
    Error::new(Code::BadRequest, message.into()).spoken(code, status)
}

pub fn unreadable(what: &str, text: &str, column: usize, details: &str) -> Error {
    let message = format!("\"failed to parse {what} ({text})\" (line 1, column {column})");
    says("PGRST100", 400, message).details(details.into())
}

pub fn too_many(what: &str, most: usize) -> Error {
    says("PGRST100", 400, format!("more than {most} {what}"))
}

pub fn bad_body(message: &str) -> Error {
    says("PGRST102", 400, message)
}

pub fn bad_range(details: impl Into<Value>) -> Error {
    says("PGRST103", 416, "Requested range not satisfiable").details(details.into())
}

pub fn put_filters() -> Error {
    says("PGRST105", 405, "Filters must include all and only primary key columns with 'eq' operators")
}

pub fn unknown_profile(name: &str) -> Error {
    says("PGRST106", 406, format!("Invalid schema: {name}")).hint("Only the following schemas are exposed: public")
}

pub fn unacceptable(types: &str) -> Error {
    says("PGRST107", 406, format!("None of these media types are available: {types}"))
}

pub fn not_embedded(name: &str) -> Error {
    says("PGRST108", 400, format!("'{name}' is not an embedded resource in this request"))
        .hint(format!("Verify that '{name}' is included in the 'select' query parameter."))
}

pub fn put_page() -> Error {
    says("PGRST114", 400, "limit/offset querystring parameters are not allowed for PUT")
}

pub fn put_mismatch() -> Error {
    says("PGRST115", 400, "Payload values do not match URL in primary key column(s)")
}

pub fn not_one(rows: u64) -> Error {
    says("PGRST116", 406, "Cannot coerce the result to a single JSON object").details(format!("The result contains {rows} rows").into())
}

pub fn not_to_one(origin: &str, target: &str) -> Error {
    says("PGRST118", 400, format!("A related order on '{target}' is not possible"))
        .details(format!("'{origin}' and '{target}' do not form a many-to-one or one-to-one relationship").into())
}

pub fn not_a_null_test(name: &str) -> Error {
    says("PGRST120", 400, format!("Bad operator on the '{name}' embedded resource"))
        .details("Only is null or not is null filters are allowed on embedded resources".into())
}

pub fn unknown_preferences(names: &[&str]) -> Error {
    says("PGRST122", 400, "Invalid preferences given with handling=strict")
        .details(format!("Invalid preferences: {}", names.join(", ")).into())
}

pub fn too_many_affected(rows: u64) -> Error {
    says("PGRST124", 400, "Query result exceeds max-affected preference constraint")
        .details(format!("The query affects {rows} rows").into())
}

pub fn nothing_to_count() -> Error {
    says("PGRST128", 400, "Invalid preferences given with handling=strict")
        .details("max-affected preference only accepts functions returning SETOF or TABLE".into())
}

pub fn not_here(what: &str) -> Error {
    says("PGRST127", 400, "Feature not implemented").details(what.into()).hint("docs/rest.md lists what SQLite can do.")
}

pub fn no_relation(origin: &str, target: &str, hint: Option<&str>) -> Error {
    let using = hint.map_or(String::new(), |hint| format!(" using the hint '{hint}'"));
    let message = format!("Could not find a relationship between '{origin}' and '{target}' in the schema cache");
    let details = format!(
        "Searched for a foreign key relationship between '{origin}' and '{target}'{using} in the schema 'public', but no matches were found."
    );
    says("PGRST200", 400, message).details(details.into())
}

/// `choices` are what a hint can be, with each one's description.
pub fn ambiguous(origin: &str, target: &str, choices: Vec<(String, Value)>) -> Error {
    let message = format!("Could not embed because more than one relationship was found for '{origin}' and '{target}'");
    let names: Vec<_> = choices.iter().map(|(hint, _)| format!("'{target}!{hint}'")).collect();
    let details = choices.into_iter().map(|(_, described)| described).collect();
    says("PGRST201", 300, message).details(details).hint(format!(
        "Try changing '{target}' to one of the following: {}. Find the desired relationship in the 'details' key.",
        names.join(", ")
    ))
}

pub fn unindexed(origin: &str, target: &str) -> Error {
    says("PGRST127", 400, format!("'{target}' cannot be embedded in '{origin}': no index serves the foreign key"))
        .details("All of its rows would be read for each row.".into())
}

pub fn too_deep(most: usize) -> Error {
    says("PGRST100", 400, format!("tables are embedded more than {most} deep"))
}

pub fn unknown_payload_column(table: &str, column: &str) -> Error {
    says("PGRST204", 400, format!("Could not find the '{column}' column of '{table}' in the schema cache"))
}

pub fn unknown_table(schema: &Schema, name: &str) -> Error {
    let error = says("PGRST205", 404, format!("Could not find the table 'public.{name}' in the schema cache"));
    let near = schema.tables().map(|table| (strsim::jaro_winkler(&table.name, name), table)).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((likeness, table)) if likeness > 0.8 => error.hint(format!("Perhaps you meant the table 'public.{}'", table.name)),
        _ => error,
    }
}

/// `known` are the functions that the caller may call.
pub fn unknown_function<'f>(known: impl Iterator<Item = &'f Function>, name: &str, arguments: &[&str]) -> Error {
    let (called, with) = match arguments {
        [] => (format!("public.{name} without parameters"), String::new()),
        [one] => (format!("public.{name}({one})"), format!(" with parameter {one}")),
        several => (format!("public.{name}({})", several.join(", ")), format!(" with parameters {}", several.join(", "))),
    };
    let searched = if arguments.is_empty() { called.clone() } else { format!("public.{name}{with}") };
    let error = says("PGRST202", 404, format!("Could not find the function {called} in the schema cache"))
        .details(format!("Searched for the function {searched}, but no matches were found in the schema cache.").into());
    let near = known.map(|function| (strsim::jaro_winkler(&function.name, name), function)).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((likeness, function)) if likeness > 0.8 => {
            error.hint(format!("Perhaps you meant to call the function public.{}", function.signature()))
        }
        _ => error.hint("A function is there for a service token, and for the roles that it is granted to."),
    }
}

pub fn not_of_functions(function: &str, method: &str) -> Error {
    says("PGRST101", 405, format!("Cannot use the {method} method on RPC"))
        .hint(format!("{function} is called with POST, or with GET if it only reads."))
}

pub fn not_by_get(function: &str) -> Error {
    says("25006", 405, format!("the function {function} may write, and GET does not"))
        .hint("Call it with POST; declare it STABLE if it only reads.")
}

pub fn unknown_column(table: &str, column: &str) -> Error {
    says("42703", 400, format!("column {table}.{column} does not exist"))
}

pub fn unknown_type(name: &str) -> Error {
    says("42704", 400, format!("type \"{name}\" does not exist"))
}

pub fn no_operator(kind: &str) -> Error {
    says("42883", 404, format!("a pattern matches text, not {kind}")).hint("Cast the column, or compare it.")
}

pub fn not_boolean(kind: &str) -> Error {
    says("42804", 400, format!("argument of IS TRUE, FALSE or UNKNOWN must be type boolean, not type {kind}"))
}

pub fn read_only(table: &Table) -> Error {
    says("55000", 405, format!("\"{}\" cannot be written: it is a view", table.name))
}

pub fn generated(column: &str) -> Error {
    says("428C9", 400, format!("cannot insert a non-DEFAULT value into column \"{column}\""))
        .details(format!("Column \"{column}\" is a generated column.").into())
}

pub fn bad_value(kind: &str, text: &str) -> Error {
    let text: String = text.chars().take(100).collect();
    says("22P02", 400, format!("invalid input syntax for type {kind}: \"{text}\""))
}

pub fn out_of_range(kind: &str, text: &str) -> Error {
    says("22003", 400, format!("value \"{text}\" is out of range for type {kind}"))
}

/// Nobody but a service token gets past this without a policy that lets them.
pub fn denied(table: &str, is_anonymous: bool) -> Error {
    says("42501", if is_anonymous { 401 } else { 403 }, format!("permission denied for table {table}"))
}

/// A row as it was written is none that the caller may write, or see.
pub fn unwritable(table: &Table, is_anonymous: bool) -> Error {
    let message = format!("new row violates row-level security policy for table \"{}\"", table.name);
    says("42501", if is_anonymous { 401 } else { 403 }, message)
}

/// A row that a merge would change is none that the caller may change.
pub fn hidden_conflict(table: &Table, is_anonymous: bool) -> Error {
    let message = format!("new row violates row-level security policy (USING expression) for table \"{}\"", table.name);
    says("42501", if is_anonymous { 401 } else { 403 }, message)
}

/// The same to a caller who is held back: without names that are not in `schema` as the caller sees it, and without
/// SQLite's own words for what we have none for.
pub fn discreet(error: Error, schema: &Schema) -> Error {
    if error.is_spoken() || !matches!(error.code(), Code::ConstraintViolation | Code::SqlError) {
        return error;
    }
    let about = error.message().split_once(": ").map_or("", |(_, about)| about);
    let known = |name: &str| {
        let (table, column) = name.split_once('.')?;
        schema.table(schema.find(table)?).column(column)
    };
    let all_known = about.split(", ").all(|name| known(name).is_some());
    let spoken = translate(error);
    match (spoken.body().code, all_known) {
        ("23505" | "23502", true) | ("23503" | "P0001" | "42P10" | "22003" | "54000" | "2201B", _) => spoken,
        ("23505", false) => says("23505", 409, "duplicate key value violates unique constraint"),
        ("23502", false) => says("23502", 400, "null value violates not-null constraint"),
        ("23514", _) => says("23514", 400, "new row violates check constraint"),
        ("22P02", _) => says("22P02", 400, "a value is not of its column's type"),
        _ => says("XX000", 400, "the statement failed").hint("A service token is told why."),
    }
}

/// SQLite's refusal of a statement of ours in PostgreSQL's words; whatever else failed keeps its own.
pub fn translate(error: Error) -> Error {
    if error.is_spoken() || !matches!(error.code(), Code::ConstraintViolation | Code::SqlError) {
        return error;
    }
    let extended = error.detail_of("sqlite_extended_code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok()).unwrap_or(0);
    let message = error.message().to_owned();
    let about = message.split_once(": ").map_or("", |(_, about)| about);
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let table = about.split('.').next().unwrap_or_default().to_owned();
    match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            let columns: Vec<_> = about.split(", ").map(last).collect();
            let name = match extended {
                ffi::SQLITE_CONSTRAINT_UNIQUE => format!("{table}_{}_key", columns.join("_")),
                _ => format!("{table}_pkey"),
            };
            says("23505", 409, format!("duplicate key value violates unique constraint \"{name}\""))
                .details(format!("Key ({}) already exists.", columns.join(", ")).into())
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => {
            says("23503", 409, "insert, update or delete on a table violates a foreign key constraint").details(message.into())
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => {
            let column = last(about);
            says("23502", 400, format!("null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"))
        }
        ffi::SQLITE_CONSTRAINT_CHECK => says("23514", 400, format!("new row violates check constraint \"{about}\"")),
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH => says("22P02", 400, message),
        ffi::SQLITE_CONSTRAINT_TRIGGER => says("P0001", 400, message),
        ffi::SQLITE_TOOBIG => says("54000", 413, message),
        ffi::SQLITE_ERROR if message.contains("ON CONFLICT clause does not match") => {
            says("42P10", 400, "there is no unique or exclusion constraint matching the ON CONFLICT specification")
        }
        ffi::SQLITE_ERROR if message.contains("regular expression") => says("2201B", 400, message),
        ffi::SQLITE_ERROR if message.contains("integer overflow") => says("22003", 400, message),
        ffi::SQLITE_ERROR if message.contains("fts5") => says("42601", 400, message),
        _ => says("XX000", 400, message).details(json!({ "sqlite_extended_code": extended })),
    }
}

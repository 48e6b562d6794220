//! `tenantry sql`: one statement in one tenant's database, with a token of its own that lives a minute and can
//! only read, unless `--write` was given.

use std::io::Read;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Call, Client};
use super::tenant::{Live, resolve};
use super::{print, token};
use crate::auth::scope::{Scope, Scopes};
use crate::error::{Code, Error, Result};

/// The token's life, in seconds.
const TOKEN_S: u64 = 60;

/// The most bytes of SQL that are read from stdin.
const SQL_MAX: u64 = 64 << 20;

#[derive(Args)]
pub struct Sql {
    /// The tenant whose database it is
    #[arg(long, value_name = "ID|SLUG")]
    tenant: String,
    /// The statement; `-` reads it from stdin
    #[arg(value_name = "SQL")]
    text: String,
    /// A value for ?1, ?2, …: JSON (5, 1.5, null, "text"), anything else is text
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    params: Vec<String>,
    /// Let it write and change the schema
    #[arg(long)]
    write: bool,
    /// Run several statements as one transaction, without parameters or rows (needs --write)
    #[arg(long, requires = "write", conflicts_with = "params")]
    script: bool,
}

impl Sql {
    pub fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        let text = if self.text == "-" { from_stdin()? } else { self.text.clone() };
        let reading = Scopes::of(Scope::SqlRead);
        let (scopes, transaction) =
            if self.write { (reading.with(Scope::SqlWrite).with(Scope::SqlSchema), "write") } else { (reading, "read") };
        let id = resolve(client, &self.tenant, Live::Yes)?;
        let token = token::mint(client, &id, "cli", "service", scopes, TOKEN_S)?;
        let body = if self.script {
            json!({ "script": text })
        } else {
            let params: Vec<Value> = self.params.iter().map(|param| parameter(param)).collect();
            json!({ "statements": [{ "sql": text, "params": params }], "transaction": transaction })
        };
        let call = Call { method: "POST", path: "/v1/sql", bearer: Some(&token), headers: &[], body: body.to_string().into_bytes() };
        let answer = client.checked(&call).map_err(|error| match error.code() {
            Code::SqlDenied | Code::Forbidden if !self.write => error.hint("If it is meant to write, give --write."),
            _ => error,
        })?;
        if as_json {
            print::body(&answer);
            return Ok(());
        }
        let body = answer.json();
        for result in body["results"].as_array().map(Vec::as_slice).unwrap_or_default() {
            show(result);
        }
        print::note(&format!("{} ms", print::cell(&body["duration_ms"])));
        Ok(())
    }
}

fn from_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(SQL_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Error::bad_request(format!("stdin cannot be read: {e}")))?;
    Ok(text)
}

/// JSON scalars as themselves, everything else as text.
fn parameter(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => Value::String(text.to_owned()),
        Ok(scalar) => scalar,
    }
}

fn show(result: &Value) {
    let columns: Vec<String> = result["columns"].as_array().map(|names| names.iter().map(print::cell).collect()).unwrap_or_default();
    if columns.is_empty() {
        print::line(&format!("{} rows affected", print::cell(&result["rows_affected"])));
        return;
    }
    let cell = |value: &Value| if value.is_null() { "NULL".to_owned() } else { print::cell(value) };
    let rows = result["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.as_array().map(|row| row.iter().map(cell).collect()).unwrap_or_default()).collect();
    print::line(&print::table(&columns.iter().map(String::as_str).collect::<Vec<_>>(), &rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_a_json_scalar_or_text() {
        assert_eq!(parameter("5"), json!(5));
        assert_eq!(parameter("9007199254740993"), json!(9_007_199_254_740_993_i64));
        assert_eq!(parameter("null"), Value::Null);
        assert_eq!(parameter("\"5\""), json!("5"));
        assert_eq!(parameter("O'Brien"), json!("O'Brien"));
        assert_eq!(parameter("[1]"), json!("[1]"));
    }
}

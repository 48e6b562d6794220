//! A [`Caller`] makes the demo's calls and holds each answer against what it must be. It counts them, so that
//! the account can end with a figure.

use std::cell::Cell;

use serde_json::{Value, json};

use crate::cli::client::{Answer, Call, Client};
use crate::error::{Code, Error, Result};

pub struct Caller<'a> {
    client: &'a Client,
    checked: Cell<u32>,
}

impl<'a> Caller<'a> {
    pub fn new(client: &'a Client) -> Caller<'a> {
        Caller { client, checked: Cell::new(0) }
    }

    /// The client that carries the operator's key.
    pub fn operator(&self) -> &'a Client {
        self.client
    }

    /// Calls answered as they should be, so far.
    pub fn checked(&self) -> u32 {
        self.checked.get()
    }

    /// Makes a call whose answer must have this status.
    pub fn call(&self, who: &str, call: &Call<'_>, status: u16) -> Result<Answer> {
        let answer = self.client.send(call)?;
        if answer.status != status {
            let said = answer.text();
            return Err(wrong(&format!("{} {} as {who} answered {} instead of {status}: {said}", call.method, call.path, answer.status)));
        }
        self.checked.set(self.checked.get() + 1);
        Ok(answer)
    }

    /// A JSON call with a tenant's token.
    pub fn json(&self, who: &Visitor, method: &str, path: &str, body: &Value, status: u16) -> Result<Value> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Ok(self.call(&who.name, &Call { method, path, bearer: Some(&who.token), headers: &[], body }, status)?.json())
    }

    /// One statement through `POST /v1/sql`: its result.
    pub fn sql(&self, who: &Visitor, sql: &str, params: Value) -> Result<Value> {
        let body = json!({ "statements": [{ "sql": sql, "params": params }] });
        let mut answer = self.json(who, "POST", "/v1/sql", &body, 200)?;
        Ok(answer["results"][0].take())
    }

    /// The first column of a query, as text.
    pub fn column(&self, who: &Visitor, sql: &str) -> Result<Vec<String>> {
        let result = self.sql(who, sql, json!([]))?;
        let rows = result["rows"].as_array().ok_or_else(|| wrong(&format!("`{sql}` as {} answered without rows: {result}", who.name)))?;
        Ok(rows.iter().map(|row| row[0].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// A refusal: this status, and this code in the body.
    pub fn refused(&self, who: &str, call: &Call<'_>, status: u16, code: &str) -> Result<()> {
        let body = self.call(who, call, status)?.json();
        same(&format!("the code of {} {} as {who}", call.method, call.path), &body["code"], &json!(code))
    }
}

/// Somebody with a token.
pub struct Visitor {
    pub name: String,
    pub token: String,
}

/// Holds a value against what it must be.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<()> {
    if got == expected { Ok(()) } else { Err(wrong(&format!("{what} is {got:?}, not {expected:?}"))) }
}

pub fn wrong(what: &str) -> Error {
    Error::new(Code::Internal, format!("the demo found something wrong: {what}"))
        .hint("This is a fault in Tenantry, or something else is working on the demo's tenants. TENANTRY_TELEMETRY__LOG=debug shows more.")
}

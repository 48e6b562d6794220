//! `tenantry audit`: what operators did, and whether the record of it is whole.

use clap::Subcommand;
use serde_json::Value;

use super::client::{Client, query};
use super::print;
use crate::error::{Code, Error, Result};

#[derive(Subcommand)]
pub enum Audit {
    /// List entries, a page at a time
    List {
        /// Entries in this page
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// The cursor that the page before ended with
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Check the chain: fails if a row was edited, removed or cut off
    Verify,
}

impl Audit {
    pub fn run(&self, client: &Client, json: bool) -> Result<()> {
        match self {
            Audit::List { limit, after } => {
                let page = query(&[("limit", Some(&limit.to_string())), ("after", after.as_deref())]);
                let answer = client.get(&format!("/admin/v1/audit{page}"))?;
                if json {
                    print::body(&answer);
                    return Ok(());
                }
                let body = answer.json();
                let entries = body["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
                print::line(&print::list(entries, &["seq", "at", "actor", "action", "target", "outcome", "request_id"]));
                print::more(&body);
                Ok(())
            }
            Audit::Verify => {
                let answer = client.get("/admin/v1/audit/verify")?;
                let found = verdict(&answer.json());
                match (&found, json) {
                    (_, true) => print::body(&answer),
                    (Ok(whole), false) => print::line(whole),
                    (Err(_), false) => {}
                }
                found.map(drop)
            }
        }
    }
}

/// What the check found: a sentence, or an error that names the first entry that is wrong.
fn verdict(body: &Value) -> Result<String> {
    match (body["ok"].as_bool(), body["problem"].as_str()) {
        (Some(true), _) => Ok(format!("the audit record is whole: {} entries", print::cell(&body["entries"]))),
        (Some(false), Some(problem)) => Err(Error::new(Code::Internal, format!("the audit record was tampered with: {problem}"))
            .hint("Keep system/mark.db and system/app.db as they are, and compare them with a backup.")),
        _ => Err(Error::new(Code::Internal, format!("the server's verdict cannot be read: {body}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broken_chain_is_a_failure_that_names_the_entry() {
        assert_eq!(
            verdict(&json!({"ok": true, "entries": 12, "problem": null, "first_bad_seq": null})).unwrap(),
            "the audit record is whole: 12 entries"
        );
        let error = verdict(&json!({"ok": false, "entries": 1, "problem": "entry 2 was edited", "first_bad_seq": 2})).unwrap_err();
        assert_eq!(error.message(), "the audit record was tampered with: entry 2 was edited");
        assert!(verdict(&json!({})).is_err());
    }
}

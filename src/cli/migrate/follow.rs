//! Following a run: a bar with its rate and the time that is left while it goes, at a terminal; then what came of it.

use std::time::Duration;

use serde_json::Value;

use crate::cli::client::{Answer, Client, query};
use crate::cli::load::progress::Bar;
use crate::cli::print;
use crate::error::{Code, Error, Result};

/// Between two questions how far the run is.
const POLL: Duration = Duration::from_millis(300);

/// Tenants that are named after a run.
const NAMED: usize = 20;

/// Calls that fail one after the other before following is given up; the server may be starting anew.
const FAILURES_MAX: u32 = 30;

/// Where answers come from, and in which form they go on.
pub struct Output<'a> {
    pub client: &'a Client,
    pub json: bool,
}

/// Shows how the run goes until it ends. An error if it did not end well.
pub fn follow(out: &Output<'_>, run: &Value) -> Result<()> {
    let path = format!("{}/{}", super::RUNS, print::cell(&run["id"]));
    if run["state"] == "running" && !out.json {
        print::note(&format!("run {} is under way; it is the server's and goes on without this command", print::cell(&run["id"])));
    }
    let answer = until_ended(out.client, &path, run["tenants"].as_u64().unwrap_or(0))?;
    let run = &answer.json()["run"];
    match out.json {
        true => print::body(&answer),
        false => report(out.client, &path, run)?,
    }
    verdict(run)
}

fn until_ended(client: &Client, path: &str, tenants: u64) -> Result<Answer> {
    let bar = Bar::new("migrating", tenants as f64);
    let mut failures = 0;
    loop {
        match client.get(path) {
            Ok(answer) => {
                failures = 0;
                let run = &answer.json()["run"];
                if run["state"] != "running" {
                    return Ok(answer);
                }
                let count = |name: &str| run[name].as_u64().unwrap_or(0);
                bar.at((count("done") + count("failed") + count("skipped")) as f64, || going(run));
            }
            Err(error) if failures >= FAILURES_MAX || !matches!(error.code(), Code::Unknown | Code::ShuttingDown | Code::Overloaded) => {
                return Err(error);
            }
            Err(_) => failures += 1,
        }
        std::thread::sleep(POLL);
    }
}

/// `wave 2, 312 of 10000, 1 failed, 240.5/s, 41 s left`
fn going(run: &Value) -> String {
    let count = |name: &str| run[name].as_u64().unwrap_or(0);
    let visited = count("done") + count("failed") + count("skipped");
    let wave = match count("wave") {
        0 => "canaries".to_owned(),
        wave => format!("wave {wave}"),
    };
    let left = run["remaining_s"].as_u64().map(|left| format!(", {left} s left")).unwrap_or_default();
    format!("{wave}, {visited} of {}, {} failed, {}/s{left}", count("tenants"), count("failed"), print::cell(&run["rate_per_s"]))
}

/// The last run there was.
pub fn latest(client: &Client) -> Result<Value> {
    let runs = client.get(super::RUNS)?.json();
    list(&runs["runs"]).first().cloned().ok_or_else(super::no_run)
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A run in two lines or three.
pub fn show_run(run: &Value) -> String {
    let cell = |name: &str| print::cell(&run[name]);
    let to = if run["kind"] == "rollback" { String::new() } else { format!(" to {}", cell("to")) };
    let mut text = format!(
        "run {}: {}{to}, {}, begun {} by {}\n  {} tenants: {} done, {} failed, {} skipped; {}/s",
        cell("id"),
        cell("kind"),
        cell("state"),
        cell("created_at"),
        cell("actor"),
        cell("tenants"),
        cell("done"),
        cell("failed"),
        cell("skipped"),
        cell("rate_per_s"),
    );
    if let Some(reason) = run["reason"].as_str() {
        text.push_str(&format!("\n  {}", print::cell(&reason.into())));
    }
    text
}

/// The run, what it found or did to a few, and whom it failed on.
fn report(client: &Client, path: &str, run: &Value) -> Result<()> {
    print::line(&show_run(run));
    let some = |state: &str| -> Result<Vec<Value>> {
        let page = query(&[("state", Some(state)), ("limit", Some(&NAMED.to_string()))]);
        Ok(list(&client.get(&format!("{path}/tenants{page}"))?.json()["tenants"]).to_vec())
    };
    if run["kind"] == "plan" {
        let rows: Vec<_> = some("done")?.iter().flat_map(planned).collect();
        match rows.is_empty() {
            true => print::line("\nnothing to do for them"),
            false => {
                print::line(&format!("\n{}", print::table(&["TENANT", "FILE", "MOVES", "DESTRUCTIVE", "TOOK_MS", "SIZE_BYTES"], &rows)))
            }
        }
    }
    let failed = some("failed")?;
    for visit in &failed {
        let message = print::cell(&visit["error"]["message"]);
        let file = visit["error"]["details"]["file"].as_str().map(|file| format!("{file}: ")).unwrap_or_default();
        print::note(&format!("{}: {file}{message}", name(visit)));
    }
    if run["failed"].as_u64() > Some(failed.len() as u64) {
        print::note(&format!("… and more: GET {path}/tenants?state=failed has all of them"));
    }
    Ok(())
}

fn name(visit: &Value) -> String {
    print::cell(if visit["slug"].is_null() { &visit["tenant_id"] } else { &visit["slug"] })
}

/// A row for each file that a plan would change.
fn planned(visit: &Value) -> Vec<Vec<String>> {
    let row = |file: &Value| {
        let moves: Vec<_> = list(&file["moves"])
            .iter()
            .map(|one| format!("{} {}→{}", print::cell(&one["set"]), print::cell(&one["from"]), print::cell(&one["to"])))
            .collect();
        let cell = |name: &str| print::cell(&file[name]);
        vec![name(visit), cell("file"), moves.join(", "), cell("destructive"), cell("took_ms"), cell("size_bytes")]
    };
    list(&visit["outcome"]["files"]).iter().map(row).collect()
}

fn verdict(run: &Value) -> Result<()> {
    let failed = run["failed"].as_u64().unwrap_or(0);
    let wrong = |what: String, hint: &'static str| Err(Error::new(Code::TenantUnavailable, what).hint(hint));
    match (run["state"].as_str(), failed) {
        (Some("done"), 0) => Ok(()),
        (Some("done"), failed) if run["kind"] == "validate" => {
            wrong(format!("{failed} tenants are not what the migrations say"), "Each is named above with what differs.")
        }
        (Some("done"), failed) => wrong(
            format!("the run failed on {failed} tenants"),
            "Each is named above with its reason; `tenantry migrate retry` visits them again.",
        ),
        (Some("halted"), _) => wrong(
            format!("the run halted: {}", print::cell(&run["reason"])),
            "Mend what is wrong; `tenantry migrate retry` goes on from there.",
        ),
        _ => wrong("the run was stopped".to_owned(), "`tenantry migrate retry` goes on from there."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_that_did_not_end_well_is_a_failure() {
        assert!(verdict(&json!({ "state": "done", "failed": 0 })).is_ok());
        for run in [
            json!({ "state": "done", "failed": 1 }),
            json!({ "state": "halted", "failed": 0, "reason": "r" }),
            json!({ "state": "stopped" }),
        ] {
            assert!(verdict(&run).is_err(), "{run}");
        }
    }

    #[test]
    fn a_run_under_way_is_told_in_a_line() {
        let run = json!({ "wave": 2, "tenants": 100, "done": 9, "failed": 1, "skipped": 2, "rate_per_s": 4.5, "remaining_s": 20 });
        assert_eq!(going(&run), "wave 2, 12 of 100, 1 failed, 4.5/s, 20 s left");
        let run = json!({ "wave": 0, "tenants": 100, "done": 0, "failed": 0, "skipped": 0, "rate_per_s": 0.0, "remaining_s": null });
        assert_eq!(going(&run), "canaries, 0 of 100, 0 failed, 0.0/s");
    }
}

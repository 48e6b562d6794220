//! Cases of the dialect: a request, and the status, headers and body that PostgREST's specification gives it. Each
//! file of cases is text: a line `METHOD path`, headers, a body after `>`; then `= status`, headers, and the body,
//! which is compared as JSON where it is JSON. A case that writes has a tenant of its own.

use super::tenant;
use crate::support::{Answer, TenantClient, Value};

const FILES: [(&str, &str); 5] = [
    ("columns.txt", include_str!("columns.txt")),
    ("filters.txt", include_str!("filters.txt")),
    ("embeds.txt", include_str!("embeds.txt")),
    ("writes.txt", include_str!("writes.txt")),
    ("spec.txt", include_str!("spec.txt")),
];

#[derive(Default)]
struct Case<'f> {
    line: usize,
    method: &'f str,
    path: String,
    headers: Vec<(&'f str, &'f str)>,
    body: Option<&'f str>,
    status: u16,
    wanted_headers: Vec<(&'f str, &'f str)>,
    wanted: Option<&'f str>,
}

/// On views that show tables' columns.
#[test]
fn every_case_of_views_holds() {
    let with_views = || {
        let tenant = tenant();
        tenant.script(include_str!("views.sql"));
        tenant
    };
    assert!(hold(&[("views.txt", include_str!("views.txt"))], with_views) > 20);
}

#[test]
fn every_case_holds() {
    assert!(hold(&FILES, tenant) > 100);
}

/// How many there are; fails where one does not hold.
pub fn hold(files: &[(&str, &str)], tenant: impl Fn() -> TenantClient) -> usize {
    let shared = tenant();
    let (mut held, mut failed) = (0, Vec::new());
    for (file, text) in files {
        for case in read(text) {
            let own = (case.method != "GET" && case.method != "HEAD").then(&tenant);
            let tenant = own.as_ref().unwrap_or(&shared);
            // A second time: a read's statement is known by then.
            let again = || why_not(&case, &ask(&case, tenant)).filter(|_| own.is_none());
            match why_not(&case, &ask(&case, tenant)).or_else(again) {
                Some(why) => failed.push(format!("{file}:{} {} {}\n    {why}", case.line, case.method, case.path)),
                None => held += 1,
            }
        }
    }
    println!("{held} cases hold");
    assert!(failed.is_empty(), "{held} hold; these do not:\n{}", failed.join("\n"));
    held
}

fn read(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "" | "#" => {}
            "GET" | "HEAD" | "POST" | "PATCH" | "PUT" | "DELETE" => {
                cases.push(Case { line: number + 1, method: first, path: format!("/rest/v1{}", escaped(rest)), ..Case::default() });
            }
            _ => {
                let case = cases.last_mut().expect("a request comes first");
                match first {
                    ">" => case.body = Some(rest),
                    "=" => case.status = rest.parse().expect("a status"),
                    _ if first.ends_with(':') && case.status == 0 => case.headers.push((first.trim_end_matches(':'), rest)),
                    _ if first.ends_with(':') => case.wanted_headers.push((first.trim_end_matches(':'), rest)),
                    _ => case.wanted = Some(line),
                }
            }
        }
    }
    cases
}

/// What a client would percent-encode.
fn escaped(path: &str) -> String {
    path.chars().map(|c| if " \"{}\\|<>^`".contains(c) { format!("%{:02X}", c as u32) } else { c.to_string() }).collect()
}

fn ask(case: &Case<'_>, tenant: &TenantClient) -> Answer {
    let mut call = tenant.call(case.method, &case.path);
    let mut content_type = "application/json";
    for (name, value) in &case.headers {
        if *name == "Content-Type" {
            content_type = value;
        } else {
            call = call.header(name, value);
        }
    }
    match case.body {
        Some(body) => call.bytes(content_type, body.replace("\\n", "\n")).send(),
        None => call.send(),
    }
}

fn why_not(case: &Case<'_>, answer: &Answer) -> Option<String> {
    if answer.status != case.status {
        return Some(format!("status {}, not {}: {}", answer.status, case.status, answer.text()));
    }
    for (name, wanted) in &case.wanted_headers {
        let got = answer.header(name).unwrap_or("nothing");
        if got != *wanted {
            return Some(format!("{name}: {got}, not {wanted}"));
        }
    }
    let wanted = case.wanted?;
    let got: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let holds = match serde_json::from_str::<Value>(wanted) {
        // Of an error, its code.
        Ok(Value::String(code)) if answer.status >= 300 => got.as_ref().is_some_and(|got| got["code"] == code),
        Ok(wanted) => got.is_some_and(|got| got == wanted),
        Err(_) => answer.text() == wanted.replace("\\n", "\n"),
    };
    (!holds).then(|| format!("{}, not {wanted}", answer.text()))
}

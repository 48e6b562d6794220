//! `tenantry load`: many tenants under load, a report of it, and a loud end when an answer is not true.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;

use crate::support::*;

const EVERYTHING: &str = "read=30,page=10,insert=10,update=10,cache-get=10,cache-set=10,cache-miss=5,cache-increment=5,enqueue=15,claim=5";

/// A second of load on five tenants; the report goes to `report.json` and the picture to `report.svg` in `home`.
fn load(server: Option<&Server>, url: Option<&str>, home: &Path, more: &[&str]) -> Output {
    let mut command = binary();
    command.arg("load").args(more);
    let usual = [("--tenants", "5"), ("--rows", "50"), ("--connections", "8"), ("--duration", "1s"), ("--warmup", "200ms")];
    let files = [("--mix", EVERYTHING), ("--report", "report.json"), ("--svg", "report.svg")];
    for (option, value) in usual.into_iter().chain(files).filter(|(option, _)| !more.contains(option)) {
        command.args([option, value]);
    }
    if let Some(server) = server {
        command.env("TENANTRY_URL", url.map_or_else(|| server.base(), str::to_owned)).env("TENANTRY_ADMIN_KEY", ADMIN_KEY);
        command.args(["--pid", &server.pid().to_string()]);
    }
    command.current_dir(home).env("NO_COLOR", "1").output().unwrap()
}

fn report(home: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(home.join("report.json")).unwrap()).unwrap()
}

#[test]
fn a_load_ends_well_by_every_way_with_a_report_and_uses_its_tenants_again() {
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    for (provisioned, via) in [(5, "sql"), (0, "hrana"), (0, "rows")] {
        let output = load(Some(&server), None, home.path(), &["--via", via]);
        assert!(output.status.success(), "{}", said(&output));
        let report = report(home.path());
        let members = ["tenantry", "started_at", "settings", "server", "measured_s", "total", "operations", "hot", "quiet"];
        for member in members.into_iter().chain(["never_begun", "wrong", "verified", "unverified", "usage", "timeline"]) {
            assert!(report.get(member).is_some(), "no {member} in {report}");
        }
        assert_eq!((&report["settings"]["provisioned"], &report["settings"]["via"]), (&json!(provisioned), &json!(via)));
        let operations: Vec<_> = report["operations"].as_array().unwrap().iter().map(|row| row["operation"].as_str().unwrap()).collect();
        let of_rows = ["read", "page", "insert", "update"];
        let of_engines = ["cache-get", "cache-set", "cache-miss", "cache-increment", "enqueue", "claim", "ack"];
        assert_eq!(operations, [of_rows.as_slice(), &of_engines].concat());
        assert_eq!((&report["wrong"]["count"], &report["verified"]["tenants"]), (&json!(0), &json!(5)), "{report}");
        assert!(report["total"]["count"].as_u64() > Some(20) && report["total"]["p99_ms"].as_f64() > Some(0.0), "{report}");
        assert!(report["usage"]["rss_max_bytes"].as_u64() > Some(1 << 20), "{report}");
        for (written, verified) in [("insert", "inserts"), ("update", "updates"), ("enqueue", "jobs")] {
            let row = report["operations"].as_array().unwrap().iter().find(|row| row["operation"] == written).unwrap();
            // Verified is also what the warm-up wrote.
            assert!(report["verified"][verified].as_u64() >= row["count"].as_u64(), "{written}: {report}");
        }
        assert!(said(&output).contains("P99.9") && said(&output).contains("verified"), "{}", said(&output));
        let picture = std::fs::read_to_string(home.path().join("report.svg")).unwrap();
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n") && picture.matches("<polyline").count() > 9, "{picture}");
    }
}

#[test]
fn a_rate_is_kept_and_hot_and_quiet_tenants_are_told_apart() {
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    let output = load(Some(&server), None, home.path(), &["--rate", "100", "--skew", "hot:0.5", "--mix", "read=1", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (total, hot, quiet) = (&report["total"]["count"], &report["hot"]["count"], &report["quiet"]["count"]);
    let never_begun = report["never_begun"].as_u64().unwrap();
    assert!((98..=121).contains(&(total.as_u64().unwrap() + never_begun)), "{report}");
    assert!(hot.as_u64() > Some(10) && quiet.as_u64() > Some(10), "{report}");
    assert_eq!(hot.as_u64().unwrap() + quiet.as_u64().unwrap(), total.as_u64().unwrap());
}

#[test]
fn more_than_a_server_can_do_is_found_asked_for_and_told_of_by_what_was_refused() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::with(|c| {
        // Little enough that a slow machine asks for more, too.
        c.set("plans.default.requests_per_s", 20).set("plans.default.burst", 20);
    });
    let output = load(Some(&server), None, home.path(), &["--rate", "4x", "--warmup", "2s", "--mix", "read=1"]);
    let text = said(&output);
    assert!(output.status.success() && text.contains("overload   4 × ") && text.contains("refused"), "{text}");
    let report = report(home.path());
    let overload = |name: &str| report["overload"][name].as_f64().unwrap();
    let times = overload("asked_per_s") / overload("found_per_s");
    assert!(overload("found_per_s") > 1.0 && (times - 4.0).abs() < 1e-9, "{report}");
    assert_eq!((overload("after_s"), &report["settings"]["rate"]), (2.0, &report["overload"]["asked_per_s"]));
    let refused = &report["refused"];
    assert!(refused["count"].as_u64() > Some(0) && refused["count"] == report["total"]["refused"]["too_many_requests"], "{report}");
    let points = report["timeline"].as_array().unwrap();
    assert!(points.iter().any(|point| point["refused_per_s"].as_f64() > Some(0.0)) && points.last().unwrap()["t_s"].as_f64() > Some(1.5));
    let picture = std::fs::read_to_string(home.path().join("report.svg")).unwrap();
    assert!(picture.contains(">refused</text>") && picture.contains(">done</text>"), "{picture}");
}

#[test]
fn a_data_directory_gets_a_server_of_its_own_that_is_gone_afterwards() {
    let home = tempfile::tempdir().unwrap();
    let output = load(None, None, home.path(), &["--data-dir", "data", "--mix", "read=9,insert=1"]);
    assert!(output.status.success(), "{}", said(&output));
    let report = report(home.path());
    assert_eq!(report["server"]["durability"], "database full, queue full, cache off");
    assert!(report["usage"]["threads_max"].as_u64() > Some(1), "{report}");
    let addr = report["server"]["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
    assert!(TcpStream::connect(addr).is_err(), "it still listens");
}

#[test]
fn a_changed_answer_ends_the_load_loudly() {
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    let upstream = server.base().trim_start_matches("http://").to_owned();
    let url = liar(upstream, Lie::InAnswers, b"quick", b"quack");
    let output = load(Some(&server), Some(&url), home.path(), &["--duration", "20s"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("error: the server answered wrongly") && text.contains("WRONG") && text.contains("quack"), "{text}");
    let report = report(home.path());
    assert!(report["wrong"]["count"].as_u64() > Some(0) && report["measured_s"].as_f64() < Some(15.0), "{report}");
}

#[test]
fn a_write_that_was_acknowledged_and_is_not_what_was_sent_shows_at_the_end() {
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    let upstream = server.base().trim_start_matches("http://").to_owned();
    // The end of an inserted text; every answer is what it should be.
    let url = liar(upstream, Lie::InRequests, b"runs\"", b"rums\"");
    let output = load(Some(&server), Some(&url), home.path(), &["--mix", "insert=1", "--rate", "50"]);
    let text = said(&output);
    assert!(output.status.code() == Some(1) && text.contains("at the end: expected") && text.contains("none changed"), "{text}");
}

#[test]
fn what_does_not_speak_http_is_no_server() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(b"220 mail.example.com ESMTP\r\n\r\n");
        }
    });
    let output = load(None, None, home.path(), &["--url", &url, "--key", ADMIN_KEY]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("not an HTTP answer"), "{}", said(&output));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let home = tempfile::tempdir().unwrap();
    for (args, named) in [
        (["--mix", "reed=1"], "reed"),
        (["--skew", "zipf:x"], "x"),
        (["--rate", "fast"], "max"),
        (["--rate", "4x"], "--warmup"),
        (["--duration", "soon"], "30s"),
        (["--tenants", "0"], "0"),
        (["--connections", "51"], "--rows"),
        (["--url", "https://127.0.0.1:1"], "http://"),
    ] {
        let url = if args[0] == "--url" { &[][..] } else { &["--url", "http://127.0.0.1:1"] };
        let output = load(None, None, home.path(), &[&args[..], url, &["--key", ADMIN_KEY]].concat());
        assert!(!output.status.success() && said(&output).contains(named), "{args:?}: {}", said(&output));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Lie {
    InRequests,
    InAnswers,
}

/// Somebody between client and server who passes everything on, but changes what the one or the other says.
fn liar(upstream: String, where_to: Lie, truth: &'static [u8], lie: &'static [u8]) -> String {
    assert_eq!(truth.len(), lie.len(), "lengths stay what was announced");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let change = move |bytes: &mut [u8]| {
        for at in 0..bytes.len().saturating_sub(truth.len() - 1) {
            if bytes[at..].starts_with(truth) {
                bytes[at..at + lie.len()].copy_from_slice(lie);
            }
        }
    };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&upstream).unwrap();
            let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let lies = move |here: Lie| {
                move |bytes: &mut [u8]| {
                    if where_to == here {
                        change(bytes)
                    }
                }
            };
            std::thread::spawn(move || pass_on(from_client, to_server, lies(Lie::InRequests)));
            std::thread::spawn(move || pass_on(server, client, lies(Lie::InAnswers)));
        }
    });
    url
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, change: impl Fn(&mut [u8])) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        change(&mut buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

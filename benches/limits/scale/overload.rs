//! Overload: far more connections than the server has capacity for, clients that read nothing, and clients that never
//! finish what they send. The work that is done must not get less, what is refused must be refused at once, with
//! `Retry-After`, and memory must stay within the bounds that the configuration names.

use std::cell::Cell;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tenantry::cli::load::wire::{self, Target, Wire};

use super::{FEW, Scale, of};
use crate::client::runtime;
use crate::results::Measured;
use crate::rows::{SQL, read_body};

/// Connections that saturate the server, and that are far too many.
const ENOUGH: usize = 64;
const TOO_MANY: usize = 2_048;

/// Clients that hold bytes back, and the bytes of each.
const SLOW: usize = 200;
const SLOW_BYTES: usize = 8 << 20;
const BODY_BYTES: usize = 4 << 20;

/// After so long memory has reached its height.
const SETTLED: Duration = Duration::from_secs(3);

/// What `http.unread_bytes` and `http.receiving_bytes` are by default, in megabytes.
const BOUND_MB: f64 = (256 << 20) as f64 / 1e6;

/// Takes some milliseconds on a lane.
const SCAN: &[u8] = br#"{"statements":[{"sql":"SELECT count(*) FROM t a, t b WHERE a.v < b.v AND b.id <= 60"}]}"#;

/// What many connections got in a slice.
struct Storm {
    per_s: f64,
    /// Milliseconds in which 99 of 100 refusals came; `None` when nothing was refused.
    refused_p99: Option<f64>,
}

pub fn overload(scale: &mut Scale, round: usize) -> Vec<Measured> {
    if round == 0 {
        scale.restart(1_000);
        scale.touch(FEW);
    }
    let reads = read_body(7);
    let (ours, bare) = ((scale.tenantry.target(), SQL), (&scale.bare.target, "/read"));
    let memory = || scale.tenantry.usage().rss_bytes as f64 / 1e6;
    let [few_scans, few_reads, few_bare] = [(ours, SCAN), (ours, &reads), (bare, &reads)].map(|(at, body)| storm(scale, at, ENOUGH, body));
    let many_bare = storm(scale, bare, TOO_MANY, &reads);
    let many_reads = storm(scale, ours, TOO_MANY, &reads);
    let first = memory();
    let many_scans = storm(scale, ours, TOO_MANY, SCAN);
    let second = memory();
    std::thread::sleep(Duration::from_secs(1));
    let after = storm(scale, ours, ENOUGH, &reads);
    let mut measured = vec![
        of("overload, reads", (many_reads.per_s, Some(few_reads.per_s))),
        of("overload, scans", (many_scans.per_s, Some(few_scans.per_s))),
        of("overload elsewhere", (many_bare.per_s, Some(few_bare.per_s))),
        of("overload, memory", (second, Some(first))),
        of("overload, after", (after.per_s, Some(few_reads.per_s))),
    ];
    measured.extend(many_scans.refused_p99.map(|p99| of("overload, refused ms", (p99, None))));
    measured
}

/// Every connection asks one of a few tenants again and again, and waits when it is told to.
fn storm(scale: &Scale, (target, path): (&Target, &str), connections: usize, body: &[u8]) -> Storm {
    let done = Cell::new(0);
    // Connecting is not what is measured: so many at once have to ask the kernel twice.
    let connect = async |number: usize| {
        let (mut wire, mut request) = (Wire::new(target, Duration::from_secs(60)), Vec::new());
        wire::get(&mut request, &scale.tenantry.tenants[0].caller, "/healthz");
        wire.call(&request).await.expect("an answer");
        (number, wire)
    };
    let runtime = runtime();
    let wires = runtime.block_on(join_all((0..connections).map(connect)));
    let until = Instant::now() + scale.client.slice;
    let one = async |(number, mut wire): (usize, Wire)| {
        let (mut request, mut refused) = (Vec::new(), Vec::new());
        wire::post(&mut request, &scale.tenantry.tenants[number % FEW].caller, path, body);
        while Instant::now() < until {
            let asked = Instant::now();
            let answer = wire.call(&request).await.expect("an answer");
            match answer.status {
                200 => done.set(done.get() + u64::from(Instant::now() < until)),
                429 | 503 => {
                    refused.push(asked.elapsed());
                    let wait = Duration::from_secs(answer.retry_after.expect("a refusal says when to come again"));
                    tokio::time::sleep_until((Instant::now() + wait).min(until).into()).await;
                }
                status => panic!("{status}: {}", String::from_utf8_lossy(answer.body)),
            }
        }
        refused
    };
    let mut refused = runtime.block_on(join_all(wires.into_iter().map(one))).concat();
    refused.sort_unstable();
    let refused_p99 = refused.get(refused.len() * 99 / 100).map(|took| took.as_secs_f64() * 1e3);
    Storm { per_s: f64::from(u32::try_from(done.get()).expect("a number")) / scale.client.slice.as_secs_f64(), refused_p99 }
}

/// Clients that ask for much and read nothing of it: in many rows, and in one value, of which SQLite has a copy of its own.
pub fn unread_answers(scale: &mut Scale, _round: usize) -> Vec<Measured> {
    const ROWS: usize = 1_024;
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT";
    let rows = format!("{rows} {ROWS}) SELECT hex(zeroblob({})) FROM n", SLOW_BYTES / 2 / ROWS);
    let value = format!("SELECT hex(zeroblob({}))", SLOW_BYTES / 2);
    let asked = [("unread rows", rows), ("unread answers", value)];
    let measured = asked.map(|(name, sql)| {
        let body = format!(r#"{{"statements":[{{"sql":"{sql}"}}]}}"#).into_bytes();
        of(name, (held_back(scale, &body, body.len()), Some(BOUND_MB)))
    });
    measured.into()
}

/// Clients that send much and never the last byte of it.
pub fn unsent_bodies(scale: &mut Scale, _round: usize) -> Vec<Measured> {
    let body = vec![b' '; BODY_BYTES];
    vec![of("unsent bodies", (held_back(scale, &body, BODY_BYTES - 1), Some(BOUND_MB)))]
}

/// The memory, in megabytes, that clients cost who send so much of a request, and then nothing and read nothing.
fn held_back(scale: &mut Scale, body: &[u8], sent: usize) -> f64 {
    scale.restart(1_000);
    scale.touch(FEW);
    let memory = || scale.tenantry.usage().rss_bytes as f64 / 1e6;
    let before = memory();
    let clients: Vec<TcpStream> = (0..SLOW)
        .map(|number| {
            let mut request = Vec::new();
            wire::post(&mut request, &scale.tenantry.tenants[number % FEW].caller, SQL, body);
            let mut stream = TcpStream::connect(scale.tenantry.target().addr).expect("a connection");
            stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
            // Who is refused half way may be cut off.
            let _ = stream.write_all(&request[..request.len() - body.len() + sent]);
            stream
        })
        .collect();
    let until = Instant::now() + SETTLED;
    let mut most = memory();
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        most = most.max(memory());
    }
    drop(clients);
    most - before
}

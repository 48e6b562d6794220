//! A flood: one tenant asks without end, and quiet tenants at their usual pace must not notice much. What counts is the
//! quiet tenants' 99th percentile beside the flood and without it, from when each request was due.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tenantry::cli::load::mix::Dice;
use tenantry::cli::load::wire::{self, Target, Wire};

use super::{Scale, both, of};
use crate::client::runtime;
use crate::local::cores;
use crate::results::Measured;
use crate::rows::{INSERT, SQL, read_body};
use crate::site::Member;

/// Quiet tenants, the requests they send in a second together (one in ten is an insert), and the connections for it.
const QUIET: usize = 50;
const PER_S: u32 = 200;
const CONNECTIONS: usize = 16;

/// For a flood to rise, and to go.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs until the plan stops it.
const SCAN: &[u8] = br#"{"statements":[{"sql":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"}]}"#;

pub fn scans(scale: &mut Scale, round: usize) -> Vec<Measured> {
    settle(scale, round);
    let scale = &*scale;
    let tenantry = (scale.tenantry.target(), SQL);
    let p99s = both(round, || flooded(scale, tenantry, SCAN, 64), || quiet_p99(scale));
    vec![of("flood of scans", p99s), of("scans elsewhere", (beside_computing(scale), p99s.1))]
}

pub fn inserts(scale: &mut Scale, round: usize) -> Vec<Measured> {
    settle(scale, round);
    let scale = &*scale;
    let tenantry = (scale.tenantry.target(), SQL);
    let p99s = both(round, || flooded(scale, tenantry, INSERT, 256), || quiet_p99(scale));
    // What the machine does to them, and not the server: client, flood and server share its cores.
    let elsewhere = flooded(scale, (&scale.bare.target, "/insert"), INSERT, 256);
    vec![of("flood of inserts", p99s), of("inserts elsewhere", (elsewhere, p99s.1))]
}

fn settle(scale: &mut Scale, round: usize) {
    if round == 0 {
        scale.restart(1_000);
        scale.touch(QUIET + 1);
    }
}

fn flooded(scale: &Scale, (target, path): (&Target, &str), body: &[u8], connections: usize) -> f64 {
    let flood = async |_: usize| {
        let mut wire = Wire::new(target, Duration::from_secs(60));
        let mut request = Vec::new();
        wire::post(&mut request, &scale.tenantry.tenants[0].caller, path, body);
        loop {
            // Stopped, refused or done: it asks again.
            wire.call(&request).await.expect("an answer");
        }
    };
    let (over, is_over) = tokio::sync::oneshot::channel::<()>();
    let p99 = std::thread::scope(|scope| {
        let all = async {
            tokio::select! {
                _ = join_all((0..connections).map(flood)) => {}
                _ = is_over => {}
            }
        };
        scope.spawn(|| runtime().block_on(all));
        std::thread::sleep(SETTLE);
        let p99 = quiet_p99(scale);
        drop(over);
        p99
    });
    std::thread::sleep(SETTLE);
    p99
}

/// What busy cores do to the quiet tenants, whoever it is that keeps them busy.
fn beside_computing(scale: &Scale) -> f64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 * cores() {
            scope.spawn(|| {
                rustix::process::setpriority_process(None, 19).expect("anybody may stand back");
                while !over.load(Relaxed) {
                    std::hint::black_box(0);
                }
            });
        }
        std::thread::sleep(SETTLE);
        let p99 = quiet_p99(scale);
        over.store(true, Relaxed);
        p99
    })
}

/// Milliseconds that 99 of 100 requests of the quiet tenants took at most.
fn quiet_p99(scale: &Scale) -> f64 {
    let start = Instant::now();
    let requests = (f64::from(PER_S) * scale.client.slice.as_secs_f64()) as u32;
    let connection = async |number: u32| {
        let mut wire = Wire::new(scale.tenantry.target(), Duration::from_secs(60));
        let (mut request, mut dice, mut took) = (Vec::new(), Dice::new(u64::from(number)), Vec::new());
        for at in (number..requests).step_by(CONNECTIONS) {
            let due = start + Duration::from_secs(1) * at / PER_S;
            tokio::time::sleep_until(due.into()).await;
            let Member { caller, .. } = &scale.tenantry.tenants[1 + dice.below(QUIET)];
            if dice.below(10) == 0 {
                wire::post(&mut request, caller, SQL, INSERT);
            } else {
                wire::post(&mut request, caller, SQL, &read_body(dice.below(usize::MAX)));
            }
            let answer = wire.call(&request).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(answer.body));
            took.push(due.elapsed());
        }
        took
    };
    let mut took = runtime().block_on(join_all((0..CONNECTIONS as u32).map(connection))).concat();
    took.sort_unstable();
    took[took.len() * 99 / 100].as_secs_f64() * 1e3
}

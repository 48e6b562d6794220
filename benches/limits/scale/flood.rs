//! A flood: one tenant asks without end, and quiet tenants at their usual pace must not notice much. What counts is the
//! quiet tenants' 99th percentile beside the flood and without it, from when each request was due.
//!
//! Neighbours are on other machines, so the quiet tenants' client must not wait for the flooding one: each has a thread and
//! an event loop of its own, and the flooding one stands back for everybody who has something to do, whoever is flooded.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
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

/// Slices in which the quiet tenants are watched: of 200 requests the 99th percentile is the second to last.
const WATCHED: u32 = 4;

/// The niceness of the thread that floods.
const STANDS_BACK: i32 = 10;

/// For a flood to rise, and to go.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs until the plan stops it.
const SCAN: &[u8] = br#"{"statements":[{"sql":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"}]}"#;

pub fn scans(scale: &mut Scale, round: usize) -> Vec<Measured> {
    settle(scale, round);
    let scale = &*scale;
    let tenantry = (scale.tenantry.target(), SQL);
    let p99s = both(round, || flooded(scale, tenantry, SCAN, 64).quiet_p99, || quiet_p99(scale));
    vec![of("flood of scans", p99s), of("scans elsewhere", (beside_computing(scale), p99s.1))]
}

pub fn inserts(scale: &mut Scale, round: usize) -> Vec<Measured> {
    settle(scale, round);
    let scale = &*scale;
    let (tenantry, bare) = ((scale.tenantry.target(), SQL), (&scale.bare.target, "/insert"));
    // Three sides, of whom another one begins in each round. The bare handler's tells what the machine does to the quiet
    // tenants, and not the server: client, flood and server share its cores.
    let mut sides = [0.0; 3];
    let mut per_s = [0.0; 2];
    for turn in 0..3 {
        let side = (turn + round) % 3;
        sides[side] = match side {
            2 => quiet_p99(scale),
            side => {
                let flooded = flooded(scale, if side == 0 { tenantry } else { bare }, INSERT, 256);
                per_s[side] = flooded.per_s;
                flooded.quiet_p99
            }
        };
    }
    let [ours, elsewhere, alone] = sides;
    vec![
        of("flood of inserts", (ours, Some(alone))),
        of("inserts elsewhere", (elsewhere, Some(alone))),
        of("flood of inserts, per s", (per_s[0], Some(per_s[1]))),
    ]
}

fn settle(scale: &mut Scale, round: usize) {
    if round == 0 {
        scale.restart(1_000);
        scale.touch(QUIET + 1);
    }
}

/// The quiet tenants beside a flood.
struct Flooded {
    /// In milliseconds.
    quiet_p99: f64,
    /// What the flood got answered meanwhile.
    per_s: f64,
}

fn flooded(scale: &Scale, (target, path): (&Target, &str), body: &[u8], connections: usize) -> Flooded {
    let answered = AtomicU64::new(0);
    let flood = async |_: usize| {
        let mut wire = Wire::new(target, Duration::from_secs(60));
        let mut request = Vec::new();
        wire::post(&mut request, &scale.tenantry.tenants[0].caller, path, body);
        loop {
            // Stopped, refused or done: it asks again.
            wire.call(&request).await.expect("an answer");
            answered.fetch_add(1, Relaxed);
        }
    };
    let (over, is_over) = tokio::sync::oneshot::channel::<()>();
    let flooded = std::thread::scope(|scope| {
        let all = async {
            tokio::select! {
                _ = join_all((0..connections).map(flood)) => {}
                _ = is_over => {}
            }
        };
        scope.spawn(|| {
            stand_back(STANDS_BACK);
            runtime().block_on(all);
        });
        std::thread::sleep(SETTLE);
        let (before, began) = (answered.load(Relaxed), Instant::now());
        let quiet_p99 = quiet_p99(scale);
        let per_s = (answered.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
        drop(over);
        Flooded { quiet_p99, per_s }
    });
    std::thread::sleep(SETTLE);
    flooded
}

/// Of this thread.
fn stand_back(niceness: i32) {
    rustix::process::setpriority_process(None, niceness).expect("anybody may stand back");
}

/// What busy cores do to the quiet tenants, whoever it is that keeps them busy.
fn beside_computing(scale: &Scale) -> f64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 * cores() {
            scope.spawn(|| {
                stand_back(19);
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
    let requests = (f64::from(PER_S * WATCHED) * scale.client.slice.as_secs_f64()) as u32;
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

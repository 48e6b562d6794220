//! The server is killed between any two calls that change a tenant's files, while somebody writes one key behind the cache again
//! and again: the last write that was acknowledged is made, none is made twice or after a later one, and what the key
//! holds is never older than what was acknowledged. The same of many at once, without kills.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};

use super::*;
use crate::support::{Dice, check_files};

/// What somebody learns who asks the cache, and the database where the cache has nothing, as one does who would fill it.
fn learned(tenant: &TenantClient, key: &str, dice: &mut Dice) -> i64 {
    let fills = dice.below(2) == 0;
    let got = tenant.get(&format!("{}{}", path(key), if fills { "?fill=60" } else { "" }));
    if got.status == 200 {
        return got.text().parse().unwrap();
    }
    assert!(matches!(got.status, 204 | 404), "{} {}", got.status, got.text());
    let value = log(tenant, key).last().copied().unwrap_or(0);
    if let Some(token) = got.header("fill-token") {
        tenant.call("PUT", &path(key)).header("Fill-Token", token).bytes("text/plain", value.to_string()).send();
    }
    value
}

#[test]
fn nobody_learns_less_than_was_acknowledged_before_he_asked() {
    let server = Server::start();
    let tenant = tenant(&server);
    let keys = ["a", "b"];
    let acknowledged: [AtomicI64; 2] = Default::default();
    let (writing, asked) = (AtomicBool::new(true), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut dice = Dice::new();
                while writing.load(SeqCst) {
                    let which = dice.below(2) as usize;
                    let before = acknowledged[which].load(SeqCst);
                    let value = learned(&tenant, keys[which], &mut dice);
                    assert!(value >= before, "{} is {value}, but {before} was acknowledged; seed {}", keys[which], dice.seed);
                    asked.fetch_add(1, SeqCst);
                    match dice.below(12) {
                        0 => drop(tenant.delete(&path(keys[which])).expect(204)),
                        1 => drop(tenant.delete("/v1/cache?all=true").expect(204)),
                        _ => {}
                    }
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|which| {
                let (tenant, acknowledged) = (&tenant, &acknowledged);
                scope.spawn(move || {
                    for value in 1..=60 {
                        write(tenant, keys[which], value).expect(202);
                        acknowledged[which].store(value, SeqCst);
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        writing.store(false, SeqCst);
        assert!(ended.iter().all(Result::is_ok));
    });
    let mut made = 0;
    for key in keys {
        eventually("the last one is made", || (log(&tenant, key).last() == Some(&60)).then_some(()));
        let log = log(&tenant, key);
        assert!(log.is_sorted_by(|a, b| a < b), "{key}: {log:?}");
        made += log.len();
    }
    println!("{} readings beside 120 writes, of which {made} were made and the others gave way to newer ones", asked.load(SeqCst));
}

#[test]
fn killed_at_any_call_the_last_acknowledged_write_is_made_once_and_in_order() {
    let shim = Shim::new();
    let mut server = Server::with(|s| shim.under(s));
    let tenant = tenant(&server);
    let (mut value, mut kills, mut ahead, mut last) = (0, 0, 0, 0);
    let (mut acknowledged, mut unsure) = (0, 0);
    for nth in 1.. {
        shim.set(&Rule { nth, ..Rule::new(ALL, format!("*/tenant_*_{}.sqlite*", tenant.id), KILL) });
        for _ in 0..2 {
            value += 1;
            let sent = tenant.call("PUT", "/v1/cache/k/behind").json(&body("k", value)).try_send();
            match sent.is_ok_and(|answer| answer.status == 202) {
                true => (last, acknowledged) = (value, acknowledged + 1),
                false => unsure += 1,
            }
        }
        // Both are made, or the server dies.
        let outcome = || {
            let Ok(counts) = tenant.call("GET", "/v1/queues/_behind").try_send() else { return Some(true) };
            let counts = counts.json()["jobs"].clone();
            ["waiting", "ready", "scheduled", "leased"].iter().all(|state| counts[state] == 0).then_some(false)
        };
        let gone = eventually("it is made or the server dies", outcome);
        let died = shim.clear().1 > 0;
        assert!(died || !gone, "call {nth}: the server is gone, and was not killed");
        if died {
            kills += 1;
            server.ended();
            server.start_again();
            let held = tenant.get(&path("k"));
            // The cache starts with the entry, the job or neither; then the database has it.
            let held = if held.status == 200 { held.text().parse().unwrap() } else { log(&tenant, "k").last().copied().unwrap_or(0) };
            assert!(held >= last, "call {nth}: {held} is there, {last} was acknowledged");
            // What was being made is tried again when its lease is over.
            ahead += 61;
            shim.set_clock_ahead(ahead);
        }
        let made = eventually("nothing is left to be made", || {
            let counts = tenant.get("/v1/queues/_behind").json()["jobs"].clone();
            let none = ["waiting", "ready", "scheduled", "leased"].iter().all(|state| counts[state] == 0 || counts.is_null());
            none.then(|| log(&tenant, "k"))
        });
        assert!(made.is_sorted_by(|a, b| a < b), "call {nth}: made twice, or out of order: {made:?}");
        let newest = made.last().copied().unwrap_or(0);
        assert!(newest >= last, "call {nth}: {last} was acknowledged, {newest} is the last that was made");
        let entry = tenant.get(&path("k"));
        assert!(entry.status == 404 || entry.text() == newest.to_string(), "call {nth}: {} is not {newest}", entry.text());
        assert!(jobs(&tenant, "dead").is_empty());
        if !died {
            break;
        }
    }
    println!("{kills} kills; {acknowledged} writes acknowledged, {unsure} not; {} made", log(&tenant, "k").len());
    assert!(kills >= 8, "two writes are two commits of the queue or more, and made by one of the database and one more: {kills}");
    server.stop();
    check_files(server.dir());
}

//! Writers by every way and readers of remembered answers, all at once: nobody is ever answered with less than what was
//! acknowledged before he asked.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use super::{ask, pipeline};
use crate::support::{Dice, Server, TenantClient, Value, json};

const WRITERS: usize = 4;

/// Raises its own row once, by one of the ways.
fn raise(tenant: &TenantClient, row: usize, way: u64) {
    let update = format!("UPDATE rows SET n = n + 1 WHERE id = {row}");
    match way {
        0 => drop(tenant.result(&update, json!([]))),
        1 => drop(tenant.script(&format!("SELECT 1; {update}; INSERT INTO noise VALUES ({row})"))),
        2 => drop(pipeline(tenant, &Value::Null, &[&update])),
        3 => drop(pipeline(tenant, &Value::Null, &["BEGIN IMMEDIATE", &update, "COMMIT"])),
        4 => {
            let baton = pipeline(tenant, &Value::Null, &["BEGIN IMMEDIATE", "SAVEPOINT s", "UPDATE rows SET n = n + 100", "ROLLBACK TO s"]);
            pipeline(tenant, &baton, &[&update, "COMMIT"]);
        }
        5 => drop(tenant.post("/rest/v1/raises", json!({ "row": row })).expect(201)),
        _ => drop(tenant.result("INSERT INTO raises(row) VALUES (?1)", json!([row]))),
    }
}

#[test]
fn nobody_is_answered_with_less_than_was_acknowledged_before_he_asked() {
    let server = Server::with(|c| {
        // Who sends his next statement late on a busy machine keeps his turn.
        c.set("hrana.transaction_idle_ms", 30_000).set("hrana.transaction_idle_contended_ms", 30_000).set("hrana.turn_wait_ms", 30_000);
    });
    let tenant = server.tenant("truth");
    tenant.script(
        "CREATE TABLE rows(id INTEGER PRIMARY KEY, n INTEGER NOT NULL); CREATE TABLE noise(x);
         CREATE TABLE raises(id INTEGER PRIMARY KEY, row INTEGER NOT NULL);
         CREATE TRIGGER raised AFTER INSERT ON raises BEGIN UPDATE rows SET n = n + 1 WHERE id = new.row; END;
         INSERT INTO rows VALUES (0, 0), (1, 0), (2, 0), (3, 0);",
    );
    let acknowledged: [AtomicI64; WRITERS] = Default::default();
    let writing = AtomicBool::new(true);
    let queries = [json!({ "sql": "SELECT n FROM rows ORDER BY id" }), json!({ "sql": "SELECT n FROM rows ORDER BY id", "ttl": 1 })];
    let read = |dice: &mut Dice| {
        let which = dice.below(2) as usize;
        let before: Vec<_> = acknowledged.iter().map(|n| n.load(SeqCst)).collect();
        let answer = ask(&tenant, &format!("k{which}"), queries[which].clone()).expect(200);
        let rows = answer.json()["results"][0]["rows"].clone();
        for (row, known) in before.iter().enumerate() {
            let n = rows[row][0].as_i64().unwrap();
            assert!(n >= *known, "row {row} is {n}, but {known} was acknowledged; {:?}, seed {}", answer.header("cache-status"), dice.seed);
        }
        answer.header("cache-status").unwrap().contains("hit")
    };
    let (mut asked, mut hits) = (0, 0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut dice = Dice::new();
                    let (mut asked, mut hits) = (0, 0);
                    while writing.load(SeqCst) {
                        asked += 1;
                        hits += u32::from(read(&mut dice));
                    }
                    (asked, hits)
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|row| {
                let (read, tenant, acknowledged) = (&read, &tenant, &acknowledged);
                scope.spawn(move || {
                    let mut dice = Dice::new();

                    for _ in 0..25 {
                        raise(tenant, row, dice.below(7));
                        acknowledged[row].fetch_add(1, SeqCst);
                        read(&mut dice);
                        read(&mut dice);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        writing.store(false, SeqCst);
        for reader in readers {
            let (more, of_them) = reader.join().unwrap();
            asked += more;
            hits += of_them;
        }
    });
    assert_eq!(tenant.rows("SELECT n FROM rows", json!([])), json!([[25], [25], [25], [25]]));
    println!("{asked} readings beside {} writes, {hits} of them from the cache", WRITERS * 25);
    // With nobody writing it is remembered: what was looked at was not a cache that never answers.
    let again = [(); 2].map(|()| ask(&tenant, "k0", queries[0].clone()).expect(200));
    assert!(again[1].header("cache-status").unwrap().contains("hit"), "{:?}", again[1].header("cache-status"));
    assert_eq!(again[0].body, again[1].body);
}

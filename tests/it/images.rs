//! A power cut, without one: the data directory is on a file system in a file. While clients write, the server is
//! stopped (SIGSTOP) and that file is copied: what a disk holds at this moment, with nothing of what the kernel still
//! keeps in memory. A server on the copy must have every write that was acknowledged. The same at `durability.database =
//! normal` must lose some, or the cut is not one. Needs root; `TENANTRY_CUTS=50` cuts more often.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::crash::half_provisioned;
use crate::support::*;

#[derive(Clone, Default)]
struct Acknowledged {
    /// Rows of `t`, by tenant.
    rows: BTreeMap<String, BTreeSet<i64>>,
    /// slug → id
    made: BTreeMap<String, String>,
}

struct Cuts {
    rows: usize,
    lost: usize,
    tenants: usize,
}

#[test]
fn a_power_cut_loses_nothing_at_full() {
    let cuts: usize = std::env::var("TENANTRY_CUTS").map_or(3, |cuts| cuts.parse().expect("TENANTRY_CUTS is a number"));
    let Some(full) = cut("full", cuts) else { return };
    println!("{cuts} power cuts at full: {} rows and {} tenants acknowledged, {} rows lost", full.rows, full.tenants, full.lost);
    assert_eq!(full.lost, 0);
    // The kernel may have written all there was just before one of them.
    let normal = cut("normal", 3).expect("mounted a moment ago");
    println!("3 power cuts at normal: {} rows acknowledged, {} lost", normal.rows, normal.lost);
    assert!(normal.lost > 0, "a level that does not flush lost nothing: what is copied is not what the disk has");
}

/// `None` where file systems cannot be mounted.
fn cut(level: &str, cuts: usize) -> Option<Cuts> {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    let disk = make(&image)?;
    let server = Server::with(|c| {
        c.set("durability.database", level).set("sqlite.checkpoint_bytes", 200_000).dir(&disk.path().join("data"));
    });
    let tenants: Vec<_> = (0..3).map(|_| server.tenant("cut")).collect();
    for tenant in &tenants {
        tenant.script("CREATE TABLE t (x INTEGER PRIMARY KEY, pad BLOB)");
    }
    let (acknowledged, next, over) = (Mutex::new(Acknowledged::default()), AtomicI64::new(0), AtomicBool::new(false));
    let pid = Pid::from_raw(server.pid() as i32).unwrap();
    let mut dice = Dice::new();
    let copies: Vec<_> = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let x = next.fetch_add(1, Relaxed);
                    let tenant = &tenants[x as usize % tenants.len()];
                    tenant.sql("INSERT INTO t VALUES (?1, randomblob(1 + ?1 % 5000))", json!([x])).expect(200);
                    acknowledged.lock().unwrap().rows.entry(tenant.id.clone()).or_default().insert(x);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let tenant = server.tenant("born");
                acknowledged.lock().unwrap().made.insert(tenant.slug, tenant.id);
            }
        });
        let copies = (0..cuts).map(|at| {
            // Any moment will do once each tenant has rows to lose.
            let before = acknowledged.lock().unwrap().rows.clone();
            let rows = |known: &BTreeMap<String, BTreeSet<i64>>, id: &str| known.get(id).map_or(0, BTreeSet::len);
            eventually("each tenant has rows that are new", || {
                let known = acknowledged.lock().unwrap();
                tenants.iter().all(|tenant| rows(&known.rows, &tenant.id) > rows(&before, &tenant.id) + 5).then_some(())
            });
            std::thread::sleep(Duration::from_millis(100 + dice.below(400)));
            kill_process(pid, Signal::STOP).unwrap();
            let copy = folder.path().join(format!("copy-{at}"));
            copy_still(&image, &copy);
            let known = acknowledged.lock().unwrap().clone();
            kill_process(pid, Signal::CONT).unwrap();
            (copy, known)
        });
        let copies = copies.collect();
        over.store(true, Relaxed);
        copies
    });
    drop(server);
    drop(disk);
    let mut found = Cuts { rows: 0, lost: 0, tenants: 0 };
    for (copy, known) in copies {
        let disk = Disk::image(&copy)?;
        let mut server = Server::with(|c| {
            c.dir(&disk.path().join("data"));
        });
        assert_eq!(half_provisioned(&server, &known.made), [""; 0]);
        for tenant in tenants.iter().map(|tenant| server.known(tenant)) {
            // A table that was never flushed is lost with all its rows.
            let answer = tenant.sql("SELECT x FROM t", json!([])).json();
            let rows = answer["results"][0]["rows"].as_array().cloned().unwrap_or_default();
            let there: BTreeSet<_> = rows.iter().map(|row| row[0].as_i64().unwrap()).collect();
            let rows = &known.rows[&tenant.id];
            found.rows += rows.len();
            found.lost += rows.difference(&there).count();
        }
        found.tenants += known.made.len();
        server.stop();
        check_files(server.dir());
        drop(server);
        std::fs::remove_file(copy).unwrap();
    }
    Some(found)
}

fn make(image: &Path) -> Option<Disk> {
    std::fs::File::create_new(image).unwrap().set_len(96 << 20).unwrap();
    // Nothing is initialised later: the image changes when the server writes, and only then.
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(image).output();
    match made {
        Ok(output) if output.status.success() => Disk::image(image),
        refused => {
            println!("skipped: a file system cannot be made here: {refused:?}");
            None
        }
    }
}

/// Copies until two copies are alike: the kernel may be writing back what it has.
fn copy_still(image: &Path, copy: &Path) {
    let mut last = std::fs::read(image).unwrap();
    eventually("the image holds still", || {
        let again = std::fs::read(image).unwrap();
        let still = again == last;
        last = again;
        still.then_some(())
    });
    std::fs::write(copy, last).unwrap();
}

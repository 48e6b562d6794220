//! `--scale`: what a server costs and carries with many tenants, and what one of them, or all together, can do to the
//! others. Both sides of a row are the same server in the same round, with and without what the row is about.

mod flood;
mod overload;

use std::path::PathBuf;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tenantry::cli::load::host::Usage;
use tenantry::cli::load::mix::Dice;
use tenantry::cli::load::wire::{self, Target};

use crate::client::{Client, Line};
use crate::local::{self, Files, Which, cores};
use crate::results::Bound::{AtLeast, AtMost, None as Free};
use crate::results::{Goal, Measured, Results, goal};
use crate::rows::{self, SQL, read_body, together};
use crate::served::Served;
use crate::site::{Member, Tenantry, path, target_dir};
use crate::{Args, tell};

/// Descriptors of an open tenant of whom only the database was used: the database, its log and the log's index.
const HELD: usize = 3;

/// Descriptors a process needs beside its databases'.
const BESIDE: usize = 1_000;

/// Tenants in the row about too few descriptors; room is for a tenth.
const THRASHED: usize = 2_000;

/// Files that rusqlite opens and closes beside it.
const REOPENED: usize = THRASHED / 10;

/// Tenants of the server that has few.
const FEW: usize = 10;

const GOALS: &[Goal] = &[
    goal("many", "point read over all tenants, each open / over ten of them", AtLeast(0.85)),
    goal("many elsewhere", "the same of a bare handler and rusqlite one after the other", Free),
    goal("thrash", "point read with room for a tenth of the tenants / warm ones", AtLeast(0.25)),
    goal("thrash / rusqlite", "the same / rusqlite that opens, reads and closes", Free),
    goal("idle, KB", "memory of an open idle tenant, KB", AtMost(100.0)),
    goal("idle, descriptors", "its descriptors", AtMost(6.0)),
    goal("idle, threads", "threads with all of them open / with one", AtMost(1.0)),
    goal("disk, start", "start-up with many tenants on disk / with ten, ms", AtMost(1.25)),
    goal("disk, memory", "memory with them / with ten, MB", AtMost(1.05)),
    goal("flood of scans", "p99 of quiet tenants beside endless scans / alone, ms", AtMost(2.0)),
    goal("scans elsewhere", "the same beside another's computing at the lowest priority", Free),
    goal("flood of inserts", "p99 of quiet tenants beside 256 connections of inserts / alone", AtMost(2.0)),
    goal("inserts elsewhere", "the same beside as many requests to a bare handler", Free),
    goal("flood of inserts, per s", "inserts of the flood in a second / of that on a bare handler", Free),
    goal("overload, reads", "point reads, 2048 connections / 64", AtLeast(0.8)),
    goal("overload elsewhere", "the same with a bare handler", Free),
    goal("overload, scans", "scans of 5 ms, 2048 connections / 64", AtLeast(0.8)),
    goal("overload, refused ms", "p99 of the refusals among them, ms", AtMost(100.0)),
    goal("overload, memory", "memory after a second such overload / after the first, MB", AtMost(1.1)),
    goal("overload, after", "point reads a second after it / before", AtLeast(0.9)),
    goal("unread rows", "memory for 200 answers of 8 MB in rows nobody reads / http.unread_bytes, MB", AtMost(1.5)),
    goal("unread answers", "memory for 200 answers of 8 MB in one value nobody reads / http.unread_bytes, MB", AtMost(1.5)),
    goal("unsent bodies", "memory for 200 bodies of 4 MB that never end / http.receiving_bytes, MB", AtMost(1.5)),
];

struct Row {
    name: &'static str,
    measure: fn(&mut Scale, usize) -> Vec<Measured>,
}

const ROWS: &[Row] = &[
    Row { name: "many", measure: many },
    Row { name: "thrash", measure: thrash },
    Row { name: "idle", measure: idle },
    Row { name: "disk", measure: disk },
    Row { name: "flood-scans", measure: flood::scans },
    Row { name: "flood-inserts", measure: flood::inserts },
    Row { name: "overload", measure: overload::overload },
    Row { name: "unread", measure: overload::unread_answers },
    Row { name: "unsent", measure: overload::unsent_bodies },
];

pub fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).collect()
}

struct Scale {
    client: Client,
    tenantry: Tenantry,
    bare: Served,
    /// Databases like the tenants', for rusqlite.
    files: Files,
    /// Servers of ten tenants and of many, stopped.
    disk: Option<[Tenantry; 2]>,
    scratch: TempDir,
    /// Tenants on the disk of the second.
    on_disk: usize,
}

pub fn run(args: &Args) -> Results {
    let scratch = tempfile::Builder::new().prefix("scale-").tempdir_in(target_dir()).expect("a folder");
    let tenants = args.tenants.unwrap_or_else(|| 10_000.min((descriptor_limit() - BESIDE) / HELD));
    tell(&format!("provisioning {tenants} tenants"));
    let began = Instant::now();
    let tenantry = Tenantry::build(scratch.path().join("full"), "full", tenants);
    println!("{tenants} tenants provisioned and given 1000 rows each in {:.0} s", began.elapsed().as_secs_f64());
    let answers = scratch.path().join("answers.json");
    std::fs::write(&answers, serde_json::to_vec(&rows::canned(&tenantry)).expect("JSON")).expect("a file");
    let bare = Served::start(&["--serve-bare", path(&answers)]);
    let files = Files::make(&scratch.path().join("local"), if args.wants("many") { REOPENED.max(tenants) } else { REOPENED });
    own_descriptors();
    let client = Client { connections: args.connections, slice: args.slice() };
    let mut scale = Scale { client, tenantry, bare, files, disk: None, scratch, on_disk: args.disk };
    let mut results = Results::new(GOALS);
    for row in ROWS.iter().filter(|row| args.wants(row.name)) {
        for round in 0..args.rounds {
            tell(&format!("{}: round {} of {}", row.name, round + 1, args.rounds));
            results.add(row.name, (row.measure)(&mut scale, round));
        }
    }
    results
}

impl Scale {
    /// Room for so many open tenants; every file is closed.
    fn restart(&mut self, tenants: usize) {
        // The server keeps a quarter for what is in use although its turn is over.
        self.tenantry.restart((tenants * HELD * 4).div_ceil(3) as u64);
    }

    /// Point reads a second, over the first so many tenants in no order.
    fn read_rate(&self, tenants: usize) -> f64 {
        self.rate_of((self.tenantry.target(), SQL), tenants)
    }

    /// The same requests to the bare handler.
    fn bare_rate(&self, tenants: usize) -> f64 {
        self.rate_of((&self.bare.target, "/read"), tenants)
    }

    fn rate_of(&self, (target, path): (&Target, &str), tenants: usize) -> f64 {
        let members = &self.tenantry.tenants[..tenants];
        self.client.rate(target, async |line: &mut Line| {
            let mut dice = Dice::new(line.number as u64);
            while line.runs() {
                read(line, path, &members[dice.below(tenants)], dice.below(usize::MAX)).await;
            }
        })
    }

    /// Uses each of the first so many tenants once.
    fn touch(&self, tenants: usize) {
        self.client.each(self.tenantry.target(), tenants, async |line: &mut Line, at| {
            read(line, SQL, &self.tenantry.tenants[at], at).await;
        });
    }
}

async fn read(line: &mut Line, path: &str, member: &Member, number: usize) {
    wire::post(&mut line.request, &member.caller, path, &read_body(number));
    line.ask(200, |_| ()).await;
}

/// Both sides of a round, in an order that alternates.
fn both(round: usize, mut ours: impl FnMut() -> f64, mut limit: impl FnMut() -> f64) -> (f64, Option<f64>) {
    if round.is_multiple_of(2) {
        let limit = limit();
        (ours(), Some(limit))
    } else {
        (ours(), Some(limit()))
    }
}

fn of(goal: &'static str, (ours, limit): (f64, Option<f64>)) -> Measured {
    Measured { goal, ours, limit }
}

fn many(scale: &mut Scale, round: usize) -> Vec<Measured> {
    let all = scale.tenantry.tenants.len();
    if round == 0 {
        scale.restart(all + all / 10);
        scale.touch(all);
    }
    let rates = both(round, || scale.read_rate(all), || scale.read_rate(FEW));
    // What so much memory alone costs, in the client, in a server that has none of its own, and in SQLite.
    let mut held = scale.files.exclusive().hold(Which::All, cores(), &local::read_point);
    let mut elsewhere = |tenants| {
        let alone = held.rate(scale.client.slice, tenants, &local::read_point);
        together(scale.bare_rate(tenants), alone)
    };
    let few = elsewhere(FEW);
    vec![of("many", rates), of("many elsewhere", (elsewhere(all), Some(few)))]
}

fn thrash(scale: &mut Scale, round: usize) -> Vec<Measured> {
    let all = THRASHED.min(scale.tenantry.tenants.len());
    if round == 0 {
        scale.restart(all / 10);
    }
    let warm = || {
        scale.touch(FEW);
        scale.read_rate(FEW)
    };
    let rates = both(round, || scale.read_rate(all), warm);
    vec![of("thrash", rates), of("thrash / rusqlite", (rates.0, Some(scale.files.reopened(REOPENED, scale.client.slice))))]
}

fn idle(scale: &mut Scale, _round: usize) -> Vec<Measured> {
    let all = scale.tenantry.tenants.len();
    scale.restart(all + all / 10);
    // The first one pays for what all share.
    scale.touch(1);
    let before = scale.tenantry.usage();
    scale.touch(all);
    let after = scale.tenantry.usage();
    let each = |of: fn(&Usage) -> u64| (of(&after) as f64 - of(&before) as f64) / (all - 1) as f64;
    vec![
        of("idle, KB", (each(|usage| usage.rss_bytes) / 1e3, None)),
        of("idle, descriptors", (each(|usage| usage.descriptors), None)),
        of("idle, threads", (after.threads as f64, Some(before.threads as f64))),
    ]
}

fn disk(scale: &mut Scale, round: usize) -> Vec<Measured> {
    let folder = |name: &str| -> PathBuf { scale.scratch.path().join(name) };
    let [few, many] = scale.disk.get_or_insert_with(|| {
        [("few", FEW), ("many", scale.on_disk)].map(|(name, tenants)| {
            let mut tenantry = Tenantry::empty(folder(name), "full");
            for from in (0..tenants).step_by(100) {
                tell(&format!("disk: provisioning {from} of {tenants} tenants"));
                let slugs: Vec<String> = (from..tenants.min(from + 100)).map(|at| format!("disk-{at}")).collect();
                tenantry.provision(&slugs);
            }
            tenantry.stop();
            tenantry
        })
    });
    // Milliseconds until it listens, and megabytes then.
    let start = |tenantry: &mut Tenantry| {
        let began = Instant::now();
        tenantry.start();
        let took = began.elapsed().as_secs_f64() * 1e3;
        let memory = tenantry.usage().rss_bytes as f64 / 1e6;
        tenantry.stop();
        (took, memory)
    };
    let ((ours, our_memory), (limit, its_memory)) = if round.is_multiple_of(2) {
        let limit = start(few);
        (start(many), limit)
    } else {
        (start(many), start(few))
    };
    vec![of("disk, start", (ours, Some(limit))), of("disk, memory", (our_memory, Some(its_memory)))]
}

/// Descriptors that a process may have here.
fn descriptor_limit() -> usize {
    getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |limit| limit as usize)
}

/// This process has as many files open as the server.
fn own_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("anybody may have what he may have");
}

//! How far Tenantry is from its limits, as ratios, in one run: the same client against Tenantry and against a bare
//! actix-web server that returns the same bytes, each in a process of its own, and the same SQL through rusqlite in
//! this process. Every row is measured in rounds that alternate between the sides, so that what the machine does
//! meanwhile hits both; what counts is the median of the rounds' ratios. `benches/README.md` says how to read it.

mod alone;
mod client;
mod dialect;
mod engines;
mod goals;
mod local;
mod redis;
mod results;
mod rows;
mod scale;
mod served;
mod site;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use tenantry::config::Level;

use goals::GOALS;
use results::Results;
use rows::ROWS;
use site::Site;

#[derive(Parser)]
pub struct Args {
    /// Measure scale, fairness and overload instead: some minutes
    #[arg(long)]
    scale: bool,
    /// Measure the cache and the queue beside a Redis server instead
    #[arg(long, conflicts_with = "scale")]
    redis: bool,
    /// Only these rows (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Tenants in the rows over many tenants [default: 200; with --scale as many as can be open at once, up to 10000]
    #[arg(long, value_name = "N")]
    tenants: Option<usize>,
    /// With --scale: tenants on the disk of whom none is open
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    disk: usize,
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// At least five say something of the spread
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How long each server is measured in each round, in milliseconds; what runs in process half as long
    #[arg(long, value_name = "MS", default_value_t = 600)]
    slice_ms: u64,
    /// Write the results as JSON into a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Be the bare server with the answers in this file
    #[arg(long, value_name = "FILE", hide = true)]
    serve_bare: Option<PathBuf>,
    /// Be Tenantry on this data directory
    #[arg(long, value_name = "DIR", hide = true)]
    serve_tenantry: Option<PathBuf>,
    /// With --serve-tenantry: how databases and queues commit
    #[arg(long, value_name = "LEVEL", hide = true, default_value = "full")]
    level: String,
    /// With --serve-tenantry: descriptors its databases may hold
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    descriptors: u64,
    /// With --serve-tenantry: without memory in front of the cache files
    #[arg(long, hide = true)]
    forgetful: bool,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn slice(&self) -> Duration {
        Duration::from_millis(self.slice_ms)
    }

    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }
}

fn main() {
    let args = Args::parse();
    if let Some(answers) = &args.serve_bare {
        return served::bare(answers);
    }
    if let Some(data_dir) = &args.serve_tenantry {
        let level = if args.level == "normal" { Level::Normal } else { Level::Full };
        return served::tenantry(data_dir, level, args.descriptors, args.forgetful);
    }
    let names: Vec<_> = if args.scale { scale::names() } else { ROWS.iter().map(|row| row.name).collect() };
    let unknown: Vec<_> = args.only.iter().filter(|only| !names.contains(&only.as_str())).collect();
    assert!(unknown.is_empty(), "no such row: {unknown:?}; there are {}", names.join(", "));

    let began = Instant::now();
    let results = match (args.scale, args.redis) {
        (true, _) => scale::run(&args),
        (_, true) => redis::run(&args),
        _ => limits(&args),
    };
    tell("");
    println!("{}", results.table());
    println!("\n{} rounds of {} ms a side in {:.0} s", args.rounds, args.slice_ms, began.elapsed().as_secs_f64());
    if let Some(file) = &args.json {
        let settings = json!({ "tenants": args.tenants, "connections": args.connections, "slice_ms": args.slice_ms });
        std::fs::write(file, results.json(settings)).expect("the file for the results can be written");
    }
}

fn limits(args: &Args) -> Results {
    let mut site = Site::build(args);
    let mut results = Results::new(GOALS);
    for round in 0..args.rounds {
        for row in ROWS.iter().filter(|row| args.wants(row.name)) {
            tell(&format!("round {} of {}: {}", round + 1, args.rounds, row.name));
            // Every other round begins with the other side.
            results.add(row.name, (row.measure)(&mut site, round));
        }
    }
    results
}

/// How far it is, on one line of a terminal that is written over.
fn tell(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{text}\x1b[K");
    }
}

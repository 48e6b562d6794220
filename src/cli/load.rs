//! `tenantry load`: many tenants put under load over real HTTP, every answer checked, and a report of what the server
//! did meanwhile. The server is one that runs, or one started here on a data directory and stopped in the end.
//!
//! A run goes through phases: the fleet is settled (tenants, tokens, schema, rows), warmed up, measured, and verified. A
//! wrong answer in any of them ends the run, and the command fails; so does an error other than the server keeping its
//! bounds (429, 503), which is counted. `docs/load.md` says how to read the report.

mod drive;
mod fleet;
mod gauge;
pub mod host;
pub mod mix;
mod pace;
mod picture;
pub(super) mod progress;
mod report;
mod tally;
mod truth;
mod verdict;
mod verify;
mod via;
pub mod wire;
mod work;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::future::try_join_all;
use serde_json::Value;

use self::drive::{Outcome, Plan};
use self::fleet::Fleet;
use self::gauge::Gauge;
use self::host::OwnServer;
use self::mix::{Mix, Op, Skew, Spread};
use self::pace::Pace;
use self::report::{Report, Row, Server, Settings, Summary, Wrong};
use self::tally::{Tally, Trouble};
use self::truth::Truth;
use self::verify::Verified;
use self::via::Via;
use self::wire::{Caller, Target, Wire};
use self::work::{Shared, Worker};
use super::client::key_in;
use super::{Global, print};
use crate::clock::{now_ms, now_s, rfc3339};
use crate::config::source::{Ambient, Origin};
use crate::error::{Code, Error, Result};

/// Cache keys set in each tenant before the run, if the run reads the cache.
const WARM_KEYS: usize = 2;

#[derive(Args)]
pub struct Load {
    /// How many tenants; load-000001 and on are used again or provisioned
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = within(1, 1_000_000))]
    tenants: u64,
    /// Operations and their weights: read, page, insert, update, cache-get, cache-set, cache-miss, cache-increment,
    /// enqueue, claim; `cache` and `queue` stand for usual shares of gets and sets, and of theirs
    #[arg(long, value_name = "OP=WEIGHT,…", default_value = "read=80,insert=10,cache=5,queue=5")]
    mix: Mix,
    /// How rows are read and written: sql (POST /v1/sql), hrana (POST /v3/pipeline), or rows (/rest/v1/…)
    #[arg(long, value_name = "WAY", default_value = "sql")]
    via: Via,
    /// How load is spread over the tenants: uniform, zipf:S, or hot:SHARE on the first one
    #[arg(long, value_name = "KIND", default_value = "zipf:1.0")]
    skew: Skew,
    /// Operations a second; `max`: each connection asks again as soon as it is answered; `4x`: so many times what it can
    /// do, which the warm-up finds
    #[arg(long, value_name = "N|max|Nx", default_value = "max", value_parser = pace)]
    rate: Pace,
    /// Connections, all kept alive
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within(1, 10_000))]
    connections: u64,
    /// Threads that the connections share [default: half the cores]
    #[arg(long, value_name = "N", value_parser = within(1, 1_000))]
    threads: Option<u64>,
    /// How long is measured: 500ms, 30s, 20m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    duration: Duration,
    /// How long runs before that, unmeasured
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    warmup: Duration,
    /// Rows seeded in each tenant; at least as many as connections
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = within(1, 900_000))]
    rows: u64,
    /// Jobs in one claim; each is acknowledged at once
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = within(1, 100))]
    batch: u64,
    /// The plan of tenants that are provisioned
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// The server's process, to look at its memory, processors, descriptors and threads
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Write the report as JSON into a file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Draw the report into a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The server of a run, and how to call it.
struct Site {
    url: String,
    key: String,
    own: Option<OwnServer>,
    /// Durability levels, where this process knows them.
    durability: Option<String>,
}

impl Load {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        if self.connections > self.rows {
            return Err(Error::bad_request(format!("{} connections need as many rows", self.connections))
                .hint("Each connection counts up rows of its own: --rows takes more, --connections fewer."));
        }
        if matches!(self.rate, Pace::Times(_)) && self.warmup < pace::FINDING {
            return Err(Error::bad_request(format!("what a server can do is not found in {:?}", self.warmup))
                .hint(format!("A rate of so many times that needs a --warmup of {:?} at least.", pace::FINDING)));
        }
        for file in [&self.report, &self.svg].into_iter().flatten() {
            // Now, and not after the run.
            write(file, "")?;
        }
        let site = Site::find(global)?;
        let outcome = self.on(&site);
        let stopped = site.own.map_or(Ok(()), OwnServer::stop);
        let report = outcome?;
        if let Some(file) = &self.report {
            write(file, &(as_json(&report)? + "\n"))?;
        }
        if let Some(file) = &self.svg {
            write(file, &picture::draw(&report))?;
        }
        print::line(&if global.json { as_json(&report)? } else { report.page() });
        judge(&report).and(stopped)
    }

    fn on(&self, site: &Site) -> Result<Report> {
        let target = Target::parse(&site.url)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::internal("a runtime could not be started", &error))?;
        let (tenants, rows) = (self.tenants as usize, self.rows as usize);
        let connections = self.connections as usize;
        let (version, durability) = runtime.block_on(about(&target, &site.key))?;
        let pid = self.pid.or(site.own.as_ref().map(OwnServer::pid));
        let mut gauge = Gauge::new(&target, &site.key, pid)?;
        let fleet = runtime.block_on(Fleet::settle(target, &site.key, tenants, rows, self.plan.as_deref()))?;

        let (truth, trouble) = (Truth::new(now_s(), tenants, rows, connections), Trouble::default());
        let spread = Spread::new(self.skew, tenants);
        let shared = Shared::new((&fleet, &truth, &trouble), connections, self.via, self.batch as usize, spread.has_hot());
        if self.mix.has(Op::CacheGet) {
            runtime.block_on(warm_caches(&shared))?;
        }
        let threads = self.threads.map_or_else(threads_by_default, |threads| threads as usize).min(connections);
        let plan = Plan { mix: &self.mix, spread: &spread, pace: self.rate, threads, warmup: self.warmup, duration: self.duration };
        let started_at = rfc3339(now_ms());
        let Outcome { tally, measured, never_begun, overload, timeline } = drive::run(&plan, &shared, &mut gauge)?;
        let tally = RefCell::new(tally);
        // A server that is gone by now is told of by the report.
        let verified = match trouble.stops() {
            true => Err("not verified after a wrong answer".to_owned()),
            false => runtime.block_on(self.verify(&shared, &tally)).map_err(|error| error.message().to_owned()),
        };
        let (verified, unverified) = verified.map_or_else(|why| (Verified::default(), Some(why)), |verified| (verified, None));
        let tally = tally.into_inner();

        let seconds = measured.as_secs_f64();
        let (operations, total) = Row::all(&tally, seconds);
        let group = |name: &str, latency| spread.has_hot().then(|| Row::of(name, latency, seconds));
        Ok(Report {
            tenantry: env!("CARGO_PKG_VERSION"),
            started_at,
            settings: Settings {
                tenants,
                provisioned: fleet.provisioned,
                rows,
                mix: self.mix.text().to_owned(),
                via: self.via.name(),
                skew: self.skew.to_string(),
                rate: match self.rate {
                    Pace::PerSecond(rate) => Some(rate),
                    Pace::Max | Pace::Times(_) => overload.map(|overload| overload.asked_per_s),
                },
                connections,
                threads,
                batch: self.batch as usize,
                warmup_s: self.warmup.as_secs_f64(),
                duration_s: self.duration.as_secs_f64(),
            },
            server: Server {
                url: site.url.clone(),
                version,
                durability: durability.or(site.durability.clone()).unwrap_or_else(|| "unknown".to_owned()),
                pid,
            },
            measured_s: seconds,
            total,
            operations,
            hot: group("hot", &tally.hot),
            quiet: group("quiet", &tally.quiet),
            refused: (tally.refused.count() > 0).then(|| Row::of("refused", &tally.refused, seconds)),
            never_begun,
            overload,
            wrong: Wrong { count: trouble.count(), examples: trouble.examples() },
            verified,
            unverified,
            usage: Summary::of(&timeline),
            timeline,
        })
    }

    async fn verify(&self, shared: &Shared<'_>, tally: &RefCell<Tally>) -> Result<Verified> {
        let mut verified = verify::databases(shared).await?;
        if self.mix.has(Op::Enqueue) {
            let patience = self.duration.max(Duration::from_secs(10));
            let Verified { jobs, unknown, queues_left, .. } = verify::queues(shared, patience, tally).await;
            verified = Verified { jobs, unknown: verified.unknown + unknown, queues_left, ..verified };
        }
        Ok(verified)
    }
}

impl Site {
    /// The server that is named, or one of our own on the data directory that is.
    fn find(global: &Global) -> Result<Site> {
        let ambient = Ambient::read()?;
        let named = global.url.is_some() || ambient.url.is_some();
        let (Some(data_dir), false) = (&global.data_dir, named) else {
            let (url, key) = global.server()?;
            let key = key.ok_or_else(|| no_key("--key or TENANTRY_ADMIN_KEY gives it; on this machine --data-dir finds it."))?;
            return Ok(Site { url, key, own: None, durability: None });
        };
        let given = global.key.clone().or(ambient.admin_key.clone());
        let effective = global.effective(ambient)?;
        let by_default = |key: &str| *effective.origin(key) == Origin::Default;
        let mut options: Vec<String> = Vec::new();
        if let Some(file) = &global.config {
            options.extend(["--config".to_owned(), file.display().to_string()]);
        }
        if by_default("telemetry.log") {
            options.extend(["--set".to_owned(), "telemetry.log=warn".to_owned()]);
        }
        options.extend(global.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
        let own = OwnServer::start(data_dir, global.listen.as_deref().unwrap_or("127.0.0.1:0"), &options)?;
        let key = given
            .or_else(|| key_in(data_dir))
            .ok_or_else(|| no_key("This data directory was first started with a key of its own: --key."))?;
        let durability = serde_json::to_value(&effective.config.durability).ok().and_then(|levels| levels_text(&levels));
        Ok(Site { url: own.url.clone(), key, own: Some(own), durability })
    }
}

fn no_key(hint: &'static str) -> Error {
    Error::bad_request("no operator's key is at hand").hint(hint)
}

/// The server's version, and its durability if it tells.
async fn about(target: &Target, key: &str) -> Result<(String, Option<String>)> {
    let operator = Caller::new(target, key);
    let mut wire = Wire::new(target, Duration::from_secs(10));
    let health = fleet::ask(&mut wire, |request| wire::get(request, &operator, "/admin/v1/health")).await?;
    Ok((health["version"].as_str().unwrap_or("unknown").to_owned(), levels_text(&health["durability"])))
}

/// `database full, queue full, cache off`.
fn levels_text(levels: &Value) -> Option<String> {
    let level = |role: &str| Some(format!("{role} {}", levels[role].as_str()?));
    Some([level("database")?, level("queue")?, level("cache")?].join(", "))
}

/// Sets a few keys in every tenant, so that reading the cache finds something.
async fn warm_caches(shared: &Shared<'_>) -> Result<()> {
    let tenants = shared.fleet.tenants.len();
    let bar = progress::Bar::new("caches", tenants as f64);
    let tally = RefCell::new(Tally::default());
    let next = Cell::new(0);
    let one = async || {
        // Each key is written by the connection whose it is in the run.
        let mut owners: Vec<Worker<'_>> =
            (0..WARM_KEYS.min(shared.connections)).map(|key| Worker::new(shared, &tally, key, drive::PATIENCE)).collect();
        while next.get() < tenants {
            let tenant = next.replace(next.get() + 1);
            for owner in &mut owners {
                let set = owner.warm_cache(tenant).await;
                set.map_err(|why| Error::new(Code::Internal, format!("a cache could not be filled: {why}")))?;
            }
            bar.advance();
        }
        Ok(())
    };
    try_join_all((0..fleet::CREW.min(tenants)).map(|_| one())).await.map(|_: Vec<()>| ())
}

/// Whether the run can be relied on.
fn judge(report: &Report) -> Result<()> {
    if report.wrong.count > 0 {
        let first = report.wrong.examples.first().cloned().unwrap_or_default();
        return Err(Error::new(Code::Internal, format!("the server answered wrongly: {first}"))
            .hint("What it was asked and what it should have said is in the report under WRONG."));
    }
    let failed: u64 = report.total.failed.values().sum();
    if failed > 0 {
        return Err(Error::new(Code::Internal, format!("{failed} operations failed"))
            .hint("The table has them by code. 429 and 503 are the server keeping its bounds and are no failures; these are."));
    }
    if let Some(why) = &report.unverified {
        return Err(Error::new(Code::Unknown, format!("what was written could not be verified: {why}"))
            .hint("Is the server still running, and was it the same all the time?"));
    }
    if report.total.count == 0 {
        return Err(Error::new(Code::Internal, "nothing was measured: no operation was answered").hint("The table says why, by code."));
    }
    Ok(())
}

fn as_json(report: &Report) -> Result<String> {
    serde_json::to_string_pretty(report).map_err(|error| Error::internal("the report cannot be written as JSON", &error))
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(|error| Error::bad_request(format!("{} cannot be written: {error}", file.display())))
}

/// Half the cores: the other half is the server's.
fn threads_by_default() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

fn within(least: u64, most: u64) -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(least..=most)
}

fn pace(text: &str) -> std::result::Result<Pace, String> {
    if text == "max" {
        return Ok(Pace::Max);
    }
    let within = |number: &str, most: f64| number.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= most);
    let pace = match text.strip_suffix('x') {
        Some(times) => within(times, 100.0).map(Pace::Times),
        None => within(text, 1e7).map(Pace::PerSecond),
    };
    pace.ok_or_else(|| "expected max, operations a second, or how many times what it can do (4x)".to_owned())
}

/// `500ms`, `30s`, `20m`, `1h`, at most a day.
fn time(text: &str) -> std::result::Result<Duration, String> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match &text[unit..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let ms = text[..unit].parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|ms| factor > 0 && *ms <= 86_400_000);
    ms.map(Duration::from_millis).ok_or_else(|| "expected a time such as 500ms, 30s or 20m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_read_as_people_write_them() {
        assert_eq!(["500ms", "30s", "30", "20m", "0s"].map(|t| time(t).unwrap().as_millis()), [500, 30_000, 30_000, 1_200_000, 0]);
        for wrong in ["", "s", "-1s", "1.5s", "1d", "25h", "99999999999999999999s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        let paces = ["max", "2500", "4x"].map(|text| pace(text).unwrap());
        assert_eq!(paces, [Pace::Max, Pace::PerSecond(2_500.0), Pace::Times(4.0)]);
        for wrong in ["0", "-1", "fast", "NaN", "inf", "x", "0x", "101x"] {
            assert!(pace(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durability_is_named_by_role_or_not_at_all() {
        let levels = serde_json::json!({"database": "full", "queue": "full", "cache": "off", "system": "full"});
        assert_eq!(levels_text(&levels).as_deref(), Some("database full, queue full, cache off"));
        assert_eq!(levels_text(&Value::Null), None);
    }
}

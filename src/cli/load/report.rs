//! The [`Report`] of a run: as a table for a person, as JSON for a program, and the numbers the picture is drawn from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::drive::Point;
use super::gauge::Inside;
use super::host::Usage;
use super::mix::Op;
use super::pace::Overload;
use super::tally::{Latency, Tally};
use super::verify::Verified;
use crate::cli::print;

/// What the curve of latencies is made of: shares of the answers, denser towards the end.
const CURVE: [f64; 12] = [0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999];

/// From so many seconds on it is told which way memory, descriptors and logs are going.
const LONG_S: f64 = 60.0;

#[derive(Serialize)]
pub struct Report {
    pub tenantry: &'static str,
    /// RFC 3339.
    pub started_at: String,
    pub settings: Settings,
    pub server: Server,
    pub measured_s: f64,
    pub total: Row,
    pub operations: Vec<Row>,
    /// With a hot tenant: it, and all others.
    pub hot: Option<Row>,
    pub quiet: Option<Row>,
    /// Answers 429 and 503, how long each took from the asking.
    pub refused: Option<Row>,
    /// Operations that were due by the rate and never begun.
    pub never_begun: u64,
    /// With a rate of so many times what the server can do.
    pub overload: Option<Overload>,
    pub wrong: Wrong,
    pub verified: Verified,
    /// Why it could not be looked whether all is there.
    pub unverified: Option<String>,
    pub usage: Option<Summary>,
    pub timeline: Vec<Point>,
}

#[derive(Serialize)]
pub struct Settings {
    pub tenants: usize,
    pub provisioned: usize,
    pub rows: usize,
    pub mix: String,
    /// `sql`, `hrana` or `rows`.
    pub via: &'static str,
    pub skew: String,
    /// Operations a second; null for as fast as it goes, or where it could not be found.
    pub rate: Option<f64>,
    pub connections: usize,
    pub threads: usize,
    pub batch: usize,
    pub warmup_s: f64,
    pub duration_s: f64,
}

#[derive(Serialize)]
pub struct Server {
    pub url: String,
    pub version: String,
    /// The level each file commits with, by role; `unknown` where the server does not say.
    pub durability: String,
    pub pid: Option<u32>,
}

#[derive(Serialize)]
pub struct Wrong {
    pub count: u64,
    pub examples: Vec<String>,
}

/// One operation, or several as one. Latencies in milliseconds.
#[derive(Serialize)]
pub struct Row {
    pub operation: String,
    pub count: u64,
    pub per_s: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Answers 429 and 503, by code.
    pub refused: BTreeMap<String, u64>,
    /// Other errors, by code.
    pub failed: BTreeMap<String, u64>,
    /// Share of the answers, and the milliseconds they took at most.
    pub curve: Vec<(f64, f64)>,
}

/// What the server's process took while it was measured.
#[derive(Serialize)]
pub struct Summary {
    pub rss_first_bytes: u64,
    pub rss_last_bytes: u64,
    pub rss_max_bytes: u64,
    pub cpu_mean: f64,
    pub cpu_max: f64,
    pub descriptors_max: u64,
    pub threads_max: u64,
    /// Write-ahead logs of the open files, and tenants with files open, where the server told.
    pub wal_max_bytes: Option<u64>,
    pub tenants_open_max: Option<u64>,
    /// Change in an hour: the slope of the straight line closest to the points.
    pub rss_bytes_per_h: f64,
    pub descriptors_per_h: f64,
    pub wal_bytes_per_h: Option<f64>,
}

impl Row {
    pub fn of(operation: &str, latency: &Latency, seconds: f64) -> Row {
        let count = latency.count();
        Row {
            operation: operation.to_owned(),
            count,
            per_s: if seconds > 0.0 { count as f64 / seconds } else { 0.0 },
            p50_ms: latency.at(0.5),
            p90_ms: latency.at(0.9),
            p99_ms: latency.at(0.99),
            p999_ms: latency.at(0.999),
            max_ms: latency.max(),
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
            curve: if count == 0 { Vec::new() } else { CURVE.iter().map(|share| (*share, latency.at(*share))).collect() },
        }
    }

    /// A row for each operation that was done, and one for all together.
    pub fn all(tally: &Tally, seconds: f64) -> (Vec<Row>, Row) {
        let mut total = Row::of("total", &tally.latency(), seconds);
        let mut rows = Vec::new();
        for op in Op::ALL {
            let of = tally.of(op);
            if of.latency.count() == 0 && of.refused.is_empty() && of.failed.is_empty() {
                continue;
            }
            for (sum, codes) in [(&mut total.refused, &of.refused), (&mut total.failed, &of.failed)] {
                codes.iter().for_each(|(code, count)| *sum.entry(code.clone()).or_default() += count);
            }
            rows.push(Row { refused: of.refused.clone(), failed: of.failed.clone(), ..Row::of(op.name(), &of.latency, seconds) });
        }
        (rows, total)
    }

    fn cells(&self) -> Vec<String> {
        let codes = self.refused.iter().chain(&self.failed).map(|(code, count)| format!("{count} {code}"));
        let latencies = [self.p50_ms, self.p90_ms, self.p99_ms, self.p999_ms, self.max_ms].map(milliseconds);
        let errors = codes.collect::<Vec<_>>().join(", ");
        let errors = if errors.is_empty() { "-".to_owned() } else { errors };
        [self.operation.clone(), self.count.to_string(), format!("{:.0}", self.per_s)]
            .into_iter()
            .chain(latencies)
            .chain([errors])
            .collect()
    }
}

impl Summary {
    /// Over the points that were measured; `None` when the server's process was not looked at.
    pub fn of(timeline: &[Point]) -> Option<Summary> {
        let measured = || timeline.iter().filter(|point| point.t_s >= 0.0);
        let usages: Vec<_> = measured().filter_map(|point| point.usage).collect();
        let cpus: Vec<f64> = measured().filter_map(|point| point.cpu).collect();
        let (first, last) = (usages.first()?, usages.last()?);
        let most = |of: fn(&Usage) -> u64| usages.iter().map(of).max().unwrap_or(0);
        let most_inside = |of: fn(&Inside) -> u64| measured().filter_map(|point| point.inside.as_ref().map(of)).max();
        let per_h = |of: &dyn Fn(&Point) -> Option<u64>| {
            3_600.0 * slope(&measured().filter_map(|point| Some((point.t_s, of(point)? as f64))).collect::<Vec<_>>())
        };
        Some(Summary {
            rss_first_bytes: first.rss_bytes,
            rss_last_bytes: last.rss_bytes,
            rss_max_bytes: most(|usage| usage.rss_bytes),
            cpu_mean: cpus.iter().sum::<f64>() / cpus.len().max(1) as f64,
            cpu_max: cpus.iter().copied().fold(0.0, f64::max),
            descriptors_max: most(|usage| usage.descriptors),
            threads_max: most(|usage| usage.threads),
            wal_max_bytes: most_inside(|inside| inside.wal_bytes),
            tenants_open_max: most_inside(|inside| inside.tenants_open),
            rss_bytes_per_h: per_h(&|point| Some(point.usage?.rss_bytes)),
            descriptors_per_h: per_h(&|point| Some(point.usage?.descriptors)),
            wal_bytes_per_h: most_inside(|inside| inside.wal_bytes).map(|_| per_h(&|point| Some(point.inside?.wal_bytes))),
        })
    }

    /// What it took at most, and over a longer run where that is going.
    fn lines(&self, measured_s: f64) -> Vec<String> {
        let Summary { cpu_mean, descriptors_max, threads_max, .. } = self;
        let [last, first, most] = [self.rss_last_bytes, self.rss_first_bytes, self.rss_max_bytes].map(|bytes| megabytes(bytes as f64));
        let mut lines = vec![format!(
            "server     {last} in memory ({first} at first, at most {most}), {cpu_mean:.2} processors, {descriptors_max} descriptors, {threads_max} threads"
        )];
        if let Some((wal, tenants)) = self.wal_max_bytes.zip(self.tenants_open_max) {
            lines
                .push(format!("files      of {tenants} tenants open at once, with write-ahead logs of {}, at most", megabytes(wal as f64)));
        }
        if measured_s >= LONG_S {
            let wal = self.wal_bytes_per_h.map(|wal| format!(", {} of logs", signed(megabytes(wal), wal))).unwrap_or_default();
            let (rss, descriptors) = (self.rss_bytes_per_h, self.descriptors_per_h);
            let rss = signed(megabytes(rss), rss);
            lines.push(format!(
                "slope      in an hour {rss} of memory, {} descriptors{wal}",
                signed(format!("{descriptors:.0}"), descriptors)
            ));
        }
        lines
    }
}

/// Of the straight line closest to the points, in y for each x; 0 for less than two.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x0, y0) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|(x, _)| (x - x0).powi(2)).sum();
    let rise: f64 = points.iter().map(|(x, y)| (x - x0) * (y - y0)).sum();
    if over > 0.0 { rise / over } else { 0.0 }
}

impl Report {
    /// For a person, on a page.
    pub fn page(&self) -> String {
        let Settings { tenants, rows, mix, via, skew, connections, .. } = &self.settings;
        let mut lines = vec![
            format!(
                "{tenants} tenants with {rows} rows, {mix} via {via}, {skew}, {}, {connections} connections, {:.0} s",
                self.pace(),
                self.measured_s
            ),
            format!("tenantry {} on {}, durability {}", self.server.version, self.server.url, self.server.durability),
            String::new(),
        ];
        let headings = ["OPERATION", "COUNT", "PER S", "P50 MS", "P90", "P99", "P99.9", "MAX", "ERRORS"];
        let cells: Vec<_> =
            self.operations.iter().chain([&self.total]).chain(&self.hot).chain(&self.quiet).chain(&self.refused).map(Row::cells).collect();
        lines.push(print::table(&headings, &cells));
        lines.push(String::new());
        match &self.usage {
            Some(usage) => lines.extend(usage.lines(self.measured_s)),
            None => lines.push("server     its process was not looked at; --pid names it".to_owned()),
        }
        if let Some(overload) = &self.overload {
            lines.push(self.overloaded(overload));
        }
        if self.never_begun > 0 {
            lines.push(format!("behind     {} operations were due and never begun: the rate is more than it can do", self.never_begun));
        }
        let Verified { tenants, inserts, updates, jobs, unknown, queues_left } = self.verified;
        lines.push(match &self.unverified {
            Some(why) => format!("unverified {why}"),
            None => format!("verified   {inserts} inserts, {updates} updates and {jobs} jobs in {tenants} tenants are there, once each"),
        });
        if unknown > 0 {
            lines.push(format!("unknown    {unknown} writes got no answer and may have happened or not"));
        }
        if queues_left > 0 {
            lines.push(format!("left       {queues_left} queues could not be emptied in time, so their jobs are not verified"));
        }
        if self.wrong.count > 0 {
            lines.push(format!("WRONG      {} answers", self.wrong.count));
            lines.extend(self.wrong.examples.iter().map(|what| format!("  {what}")));
        }
        lines.join("\n")
    }

    /// What was kept of what the server can do, what was refused, and what it could do a second later.
    fn overloaded(&self, overload: &Overload) -> String {
        let Overload { times, found_per_s, asked_per_s, answered_per_s, after_per_s, .. } = overload;
        let refused = self.refused.as_ref().map_or(0, |row| row.count) as f64;
        let share = 100.0 * refused / (refused + self.total.count as f64).max(1.0);
        format!(
            "overload   {times} × {found_per_s:.0}/s asked for ({asked_per_s:.0}/s): {:.2} of that done, {share:.0} % of the answers refusals, {:.2} a second later",
            answered_per_s / found_per_s,
            after_per_s / found_per_s
        )
    }

    pub fn pace(&self) -> String {
        self.settings.rate.map_or("as fast as it goes".to_owned(), |rate| format!("{}/s", (rate * 10.0).round() / 10.0))
    }
}

/// With three digits that mean something.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms >= 100.0 => format!("{ms:.0}"),
        ms if ms >= 10.0 => format!("{ms:.1}"),
        ms if ms >= 1.0 => format!("{ms:.2}"),
        ms => format!("{ms:.3}"),
    }
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// With a plus before what rises.
fn signed(text: String, value: f64) -> String {
    if value > 0.0 { format!("+{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tally::Miss;
    use super::*;

    #[test]
    fn rows_tell_operations_apart_and_the_total_adds_them_up() {
        let mut tally = Tally::default();
        (0..10).for_each(|_| tally.answered(Op::Read, Duration::from_millis(2), None));
        tally.answered(Op::Insert, Duration::from_millis(40), None);
        tally.missed(Op::Insert, Miss::Refused, "overloaded", Duration::ZERO);
        tally.missed(Op::Claim, Miss::Failed, "no_answer", Duration::ZERO);
        let (rows, total) = Row::all(&tally, 2.0);
        assert_eq!(rows.iter().map(|row| row.operation.as_str()).collect::<Vec<_>>(), ["read", "insert", "claim"]);
        assert_eq!((total.count, total.per_s, total.refused["overloaded"], total.failed["no_answer"]), (11, 5.5, 1, 1));
        assert_eq!(rows[1].cells().last().map(String::as_str), Some("1 overloaded"));
        assert!(rows[2].curve.is_empty() && rows[0].curve.len() == CURVE.len());
    }

    #[test]
    fn a_slope_is_that_of_the_closest_line() {
        assert_eq!(slope(&[(0.0, 5.0), (1.0, 8.0), (2.0, 11.0)]), 3.0);
        assert_eq!(slope(&[(0.0, 1.0), (1.0, -1.0), (2.0, -1.0), (3.0, 1.0)]), 0.0);
        assert_eq!((slope(&[]), slope(&[(7.0, 7.0)])), (0.0, 0.0));
    }

    #[test]
    fn a_latency_has_three_digits() {
        assert_eq!([0.1234, 1.234, 12.34, 123.4].map(milliseconds), ["0.123", "1.23", "12.3", "123"]);
    }
}

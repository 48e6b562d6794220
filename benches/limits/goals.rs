//! The goals, and how far the measured ratios are from them.

use std::collections::HashMap;

use serde_json::json;

use crate::Args;
use crate::rows::Measured;

/// What a row's ratio is to be.
pub struct Goal {
    pub name: &'static str,
    /// In words: what is divided by what.
    pub about: &'static str,
    pub bound: Bound,
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Told for orientation.
    None,
}

use Bound::{AtLeast, AtMost, None as Free};

pub const GOALS: &[Goal] = &[
    goal("read-one", "point read, one warm tenant / bare handler", AtLeast(0.75)),
    goal("read-one / rusqlite", "the same / rusqlite in process, a thread per core", Free),
    goal("read-many", "point read over all tenants / bare handler", AtLeast(0.65)),
    goal("page", "page of 20 / bare handler", AtLeast(0.50)),
    goal("page / rusqlite", "the same / rusqlite in process, a thread per core", Free),
    goal("cache-get", "cache get / bare handler", AtLeast(0.85)),
    goal("insert-one", "insert, one tenant, FULL / bare handler", AtLeast(0.40)),
    goal("insert-one / fsync each", "the same / rusqlite, one flush per insert", AtLeast(10.0)),
    goal("insert-many / rusqlite", "insert over all tenants, FULL / rusqlite, a thread per core", AtLeast(2.0)),
    goal("insert-many-normal", "insert over all tenants, NORMAL / bare handler", AtLeast(0.40)),
    goal("enqueue", "enqueue, FULL / bare handler", AtLeast(0.40)),
    goal("claim-ack", "claim of 10 and their acks, FULL / bare handler", AtLeast(0.40)),
    goal("cold, median ms", "first request to a closed tenant / rusqlite open + statement", AtMost(1.5)),
    goal("cold, p99 ms", "the same at the 99th percentile", AtMost(4.0)),
    goal("cold, and a new token, median ms", "the same with a token not seen before", Free),
    goal("provision", "tenants made / three flushed copies of the templates", AtLeast(0.5)),
];

const fn goal(name: &'static str, about: &'static str, bound: Bound) -> Goal {
    Goal { name, about, bound }
}

/// Every round's figures, by goal.
#[derive(Default)]
pub struct Results {
    rounds: HashMap<&'static str, Vec<Measured>>,
}

/// The rounds of one goal, summed up.
struct Summary {
    ours: f64,
    limit: f64,
    ratio: f64,
    least: f64,
    most: f64,
}

impl Results {
    pub fn add(&mut self, row: &str, measured: Vec<Measured>) {
        for one in measured {
            assert!(GOALS.iter().any(|goal| goal.name == one.goal), "{row} measures {}, which is no goal", one.goal);
            self.rounds.entry(one.goal).or_default().push(one);
        }
    }

    pub fn table(&self) -> String {
        let mut lines = vec![format!("{:<62} {:>10} {:>10} {:>7}  {:<15} {}", "", "tenantry", "limit", "ratio", "min – max", "goal")];
        for goal in GOALS {
            let Some(Summary { ours, limit, ratio, least, most }) = self.summary(goal) else { continue };
            let (bound, met) = match goal.bound {
                AtLeast(bound) => (format!("≥ {bound}"), Some(ratio >= bound)),
                AtMost(bound) => (format!("≤ {bound}"), Some(ratio <= bound)),
                Free => (String::new(), None),
            };
            let met = met.map_or("", |met| if met { "met" } else { "MISSED" });
            let spread = format!("{least:.2} – {most:.2}");
            let line = format!("{:<62} {:>10} {:>10} {ratio:>7.2}  {spread:<15} {bound:<7} {met}", goal.about, figure(ours), figure(limit));
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    pub fn json(&self, args: &Args) -> String {
        let rows: Vec<_> = GOALS
            .iter()
            .filter_map(|goal| {
                let Summary { ours, limit, ratio, least, most } = self.summary(goal)?;
                let (at_least, at_most) = match goal.bound {
                    AtLeast(bound) => (Some(bound), None),
                    AtMost(bound) => (None, Some(bound)),
                    Free => (None, None),
                };
                let rounds: Vec<_> = self.rounds[goal.name].iter().map(|one| json!({ "tenantry": one.ours, "limit": one.limit })).collect();
                Some(json!({
                    "name": goal.name, "about": goal.about, "at_least": at_least, "at_most": at_most,
                    "tenantry": ours, "limit": limit, "ratio": ratio, "min": least, "max": most, "rounds": rounds,
                }))
            })
            .collect();
        let run = json!({
            "version": env!("CARGO_PKG_VERSION"), "optimised": !cfg!(debug_assertions), "cores": crate::local::cores(),
            "tenants": args.tenants, "connections": args.connections, "slice_ms": args.slice_ms, "rows": rows,
        });
        format!("{run:#}\n")
    }

    fn summary(&self, goal: &Goal) -> Option<Summary> {
        let rounds = self.rounds.get(goal.name)?;
        let of = |value: fn(&Measured) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let ratios = of(|one| one.ours / one.limit);
        let (ours, limit) = (median(&of(|one| one.ours)), median(&of(|one| one.limit)));
        Some(Summary { ours, limit, ratio: median(&ratios), least: *ratios.first()?, most: *ratios.last()? })
    }
}

/// Of values in order.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

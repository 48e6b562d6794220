//! [`Results`]: every round's figures beside the goals, summed up as a table and as JSON. A figure is a ratio to a limit
//! that was measured in the same round, or stands alone where there is no limit; what counts is the median of the rounds.

use std::collections::HashMap;

use serde_json::{Value, json};

/// What a row's figure is to be.
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

/// One round's figures for one goal: ours, and the limit's where there is one.
pub struct Measured {
    pub goal: &'static str,
    pub ours: f64,
    pub limit: Option<f64>,
}

impl Measured {
    fn figure(&self) -> f64 {
        self.ours / self.limit.unwrap_or(1.0)
    }
}

pub const fn goal(name: &'static str, about: &'static str, bound: Bound) -> Goal {
    Goal { name, about, bound }
}

/// Every round's figures, by goal.
pub struct Results {
    goals: &'static [Goal],
    rounds: HashMap<&'static str, Vec<Measured>>,
}

/// The rounds of one goal, summed up.
struct Summary {
    ours: f64,
    limit: Option<f64>,
    median: f64,
    least: f64,
    most: f64,
}

impl Results {
    pub fn new(goals: &'static [Goal]) -> Results {
        Results { goals, rounds: HashMap::new() }
    }

    pub fn add(&mut self, row: &str, measured: Vec<Measured>) {
        for one in measured {
            assert!(self.goals.iter().any(|goal| goal.name == one.goal), "{row} measures {}, which is no goal", one.goal);
            self.rounds.entry(one.goal).or_default().push(one);
        }
    }

    pub fn table(&self) -> String {
        let mut lines = vec![format!("{:<62} {:>10} {:>10} {:>8}  {:<15} {}", "", "tenantry", "limit", "figure", "min – max", "goal")];
        for goal in self.goals {
            let Some(Summary { ours, limit, median, least, most }) = self.summary(goal) else { continue };
            let (bound, met) = match goal.bound {
                AtLeast(bound) => (format!("≥ {bound}"), Some(median >= bound)),
                AtMost(bound) => (format!("≤ {bound}"), Some(median <= bound)),
                Free => (String::new(), None),
            };
            let met = met.map_or("", |met| if met { "met" } else { "MISSED" });
            let spread = format!("{least:.2} – {most:.2}");
            let limit = limit.map_or_else(|| "-".to_owned(), shown);
            let line = format!("{:<62} {:>10} {limit:>10} {:>8}  {spread:<15} {bound:<7} {met}", goal.about, shown(ours), shown(median));
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    /// `settings` are the run's, beside which its rows stand.
    pub fn json(&self, mut settings: Value) -> String {
        let rows = self.goals.iter().filter_map(|goal| {
            let Summary { ours, limit, median, least, most } = self.summary(goal)?;
            let (at_least, at_most) = match goal.bound {
                AtLeast(bound) => (Some(bound), None),
                AtMost(bound) => (None, Some(bound)),
                Free => (None, None),
            };
            let rounds: Vec<_> = self.rounds[goal.name].iter().map(|one| json!({ "tenantry": one.ours, "limit": one.limit })).collect();
            Some(json!({
                "name": goal.name, "about": goal.about, "at_least": at_least, "at_most": at_most,
                "tenantry": ours, "limit": limit, "figure": median, "min": least, "max": most, "rounds": rounds,
            }))
        });
        settings["rows"] = rows.collect();
        settings["version"] = env!("CARGO_PKG_VERSION").into();
        settings["optimised"] = (!cfg!(debug_assertions)).into();
        settings["cores"] = crate::local::cores().into();
        format!("{settings:#}\n")
    }

    fn summary(&self, goal: &Goal) -> Option<Summary> {
        let rounds = self.rounds.get(goal.name)?;
        let figures = sorted(rounds.iter().map(Measured::figure));
        let limits = sorted(rounds.iter().filter_map(|one| one.limit));
        Some(Summary {
            ours: median(&sorted(rounds.iter().map(|one| one.ours))),
            limit: (!limits.is_empty()).then(|| median(&limits)),
            median: median(&figures),
            least: *figures.first()?,
            most: *figures.last()?,
        })
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of values in order.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

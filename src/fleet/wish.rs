//! A [`Wish`] is a run as it was asked for; what does not make sense, alone or with the migrations there are, is said
//! before anything begins.

use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::version;
use crate::error::{Error, Result};
use crate::sqlite::Migrations;
use crate::system::app::fleet::{Kind, Knobs, NewRun, RunRow, Scope};
use crate::tenant::Blueprint;

/// Tenants that can be named in one wish.
const NAMED_MAX: usize = 1_000;
const CANARIES_MAX: u32 = 1_000;
const PARALLEL_MAX: u32 = 16;
const TIMEOUT_MAX_S: u64 = 86_400;

const PARALLEL: u32 = 4;
const CANARIES: u32 = 3;
const WAVES: [u8; 2] = [1, 10];
const FAILURE_RATE: f64 = 0.05;
const TIMEOUT_S: u64 = 300;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    pub kind: Kind,
    /// The application's migration to go to; the newest unless given.
    #[serde(default)]
    pub to: Option<u32>,
    /// Only these.
    #[serde(default)]
    pub tenants: Option<Vec<Uuid>>,
    /// Only so many, spread over all: for a plan.
    #[serde(default)]
    pub sample: Option<u32>,
    /// So many tenants are tried first, or those in `canary`.
    #[serde(default)]
    pub canaries: Option<u32>,
    #[serde(default)]
    pub canary: Vec<Uuid>,
    /// Percentages of the fleet at which waves end.
    #[serde(default)]
    pub waves: Option<Vec<u8>>,
    #[serde(default)]
    pub max_failure_rate: Option<f64>,
    #[serde(default)]
    pub parallel: Option<u32>,
    #[serde(default)]
    pub tenant_timeout_s: Option<u64>,
    /// Set by [`Wish::again`] only.
    #[serde(skip)]
    rest: Option<(Scope, bool)>,
}

impl Wish {
    /// What the given run was, for `scope`.
    pub fn again(run: &RunRow, scope: Scope) -> Wish {
        let knobs = run.knobs.clone();
        Wish {
            kind: run.kind,
            to: Some(run.to),
            tenants: None,
            sample: None,
            canaries: None,
            canary: Vec::new(),
            waves: None,
            max_failure_rate: Some(knobs.max_failure_rate),
            parallel: Some(knobs.parallel),
            tenant_timeout_s: Some(knobs.tenant_timeout_s),
            rest: Some((scope, run.whole)),
        }
    }

    /// The run that this is, where `now` is in force and `known` is what the folder has.
    pub fn into_run(self, now: &Blueprint, known: &Blueprint) -> Result<NewRun> {
        let (now, known) = (now.application(), known.application());
        let knobs = self.knobs()?;
        let (scope, whole) = self.scope()?;
        let newest = known.map_or(0, |set| set.newest());
        let in_force = version(now);
        let to = match self.kind {
            Kind::Rollback => 0,
            Kind::Validate => newest,
            Kind::Down => {
                self.to.ok_or_else(|| Error::bad_request("`to` is missing: down to which migration?").hint("0 takes back all."))?
            }
            Kind::Up | Kind::Plan => self.to.unwrap_or(newest),
        };
        if to > newest {
            return Err(Error::bad_request(format!("`to` is {to}, and the newest of the application's migrations is {newest}"))
                .hint("tenants.migrations_dir names the folder they are in."));
        }
        if let (Kind::Up | Kind::Down | Kind::Plan, Some(now)) = (self.kind, now) {
            same_history(now, known)?;
        }
        match (self.kind, known) {
            (Kind::Up | Kind::Plan, Some(set)) => can_go_up(set, to)?,
            (Kind::Down, Some(set)) => can_go_down(set, to)?,
            (Kind::Down, None) => return Err(Error::bad_request("there are no migrations of the application to take back")),
            _ => {}
        }
        if self.kind == Kind::Up && whole && to < in_force {
            return Err(Error::bad_request(format!("migration {in_force} is in force, and {to} is before it"))
                .hint(format!("`down` with `to` {to} takes the others back.")));
        }
        // What those who are not visited yet, or not at all, are opened at. The newest needs no saying.
        let ceiling = match (self.kind, whole) {
            (Kind::Plan | Kind::Validate | Kind::Rollback, _) => None,
            (Kind::Down, true) => Some(to),
            _ => Some(in_force),
        };
        let ceiling = ceiling.filter(|&version| version < newest);
        let fingerprint = known.map(|set| set.fingerprint(to)).unwrap_or_default();
        Ok(NewRun { kind: self.kind, whole, base: in_force, to, fingerprint, knobs, scope, ceiling })
    }

    fn knobs(&self) -> Result<Knobs> {
        let within = |name: &str, value: u64, most: u64| match value {
            0 => Err(Error::bad_request(format!("`{name}` is 0; it is at least 1"))),
            value if value > most => Err(Error::bad_request(format!("`{name}` is {value}; it is at most {most}"))),
            _ => Ok(()),
        };
        let changes = matches!(self.kind, Kind::Up | Kind::Down);
        let rate = self.max_failure_rate.unwrap_or(if changes { FAILURE_RATE } else { 1.0 });
        if !(0.0..=1.0).contains(&rate) {
            return Err(Error::bad_request(format!("`max_failure_rate` is {rate}; it is between 0 and 1")));
        }
        let knobs = Knobs {
            parallel: self.parallel.unwrap_or(PARALLEL),
            max_failure_rate: rate,
            tenant_timeout_s: self.tenant_timeout_s.unwrap_or(TIMEOUT_S),
            // Those who are named, and those on whom a run failed, are meant.
            leaves_held: self.tenants.is_none() && self.rest.is_none(),
        };
        within("parallel", knobs.parallel.into(), PARALLEL_MAX.into())?;
        within("tenant_timeout_s", knobs.tenant_timeout_s, TIMEOUT_MAX_S)?;
        Ok(knobs)
    }

    /// Who is visited, and whether that is everybody.
    fn scope(&self) -> Result<(Scope, bool)> {
        if let Some(rest) = &self.rest {
            return Ok(rest.clone());
        }
        let too_many = |name: &str, most: usize| Error::bad_request(format!("`{name}` names more than {most} tenants"));
        if let Some(tenants) = &self.tenants {
            if tenants.is_empty() || self.sample.is_some() || self.canaries.is_some() || !self.canary.is_empty() || self.waves.is_some() {
                return Err(Error::bad_request("`tenants` names those that are visited, at least one, all in one wave")
                    .hint("Leave out `sample`, `canaries`, `canary` and `waves`, or leave out `tenants`."));
            }
            if tenants.len() > NAMED_MAX {
                return Err(too_many("tenants", NAMED_MAX));
            }
            return Ok((Scope::Tenants(tenants.clone()), false));
        }
        if self.kind == Kind::Rollback {
            return Err(Error::bad_request("a rollback wants its tenants named").hint("It loses what they wrote since the migration."));
        }
        if let Some(sample) = self.sample {
            if self.kind != Kind::Plan || sample == 0 || sample as usize > NAMED_MAX {
                return Err(Error::bad_request(format!("`sample` is for a plan, and between 1 and {NAMED_MAX}")));
            }
            return Ok((Scope::Sample(sample), false));
        }
        if self.kind == Kind::Plan {
            return Err(Error::bad_request("a plan copies files, so it wants to know whose").hint("Give `tenants` or `sample`."));
        }
        if self.canary.len() > NAMED_MAX {
            return Err(too_many("canary", NAMED_MAX));
        }
        let changes = matches!(self.kind, Kind::Up | Kind::Down);
        let canaries = self.canaries.unwrap_or(if changes { CANARIES } else { 0 });
        let waves = self.waves.clone().unwrap_or_else(|| if changes { WAVES.to_vec() } else { Vec::new() });
        if canaries > CANARIES_MAX {
            return Err(Error::bad_request(format!("`canaries` is {canaries}; it is at most {CANARIES_MAX}")));
        }
        if waves.len() > 20 || !waves.iter().all(|percent| (1..=100).contains(percent)) || !waves.is_sorted_by(|a, b| a < b) {
            return Err(Error::bad_request("`waves` are rising percentages between 1 and 100, at most 20").hint("For example [1, 10, 50]."));
        }
        Ok((Scope::All { named: self.canary.clone(), canaries, waves }, true))
    }
}

/// What is in force is in the folder as it was.
fn same_history(now: &Migrations, known: Option<&Arc<Migrations>>) -> Result<()> {
    let conflict =
        |what: String| Err(Error::conflict(what).hint("Put the file back as it was, and write the change as a further migration."));
    for step in now.steps.iter().filter(|step| step.version <= now.upto) {
        match known.and_then(|set| set.steps.iter().find(|other| other.version == step.version)) {
            None => return conflict(format!("migration {} is in force, and not in the folder any more", step.title())),
            Some(other) if other.up.checksum != step.up.checksum => {
                return conflict(format!(
                    "migration {} was changed: {} is in force, the folder has {}",
                    step.title(),
                    step.up.checksum,
                    other.up.checksum
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn can_go_up(set: &Migrations, to: u32) -> Result<()> {
    let flawed = set.steps.iter().filter(|step| step.version <= to).find_map(|step| Some((step, step.up.flaw.as_ref()?)));
    flawed.map_or(Ok(()), |(step, flaw)| {
        Err(Error::bad_request(format!("migration {} fails on an empty database: {flaw}", step.title()))
            .hint("New tenants start with one. Mend the file; nothing was begun."))
    })
}

fn can_go_down(set: &Migrations, to: u32) -> Result<()> {
    for step in set.steps.iter().filter(|step| step.version > to) {
        match &step.down {
            None => return Err(Error::bad_request(format!("migration {} has no down file", step.title()))),
            Some(down) => {
                if let Some(flaw) = &down.flaw {
                    return Err(Error::bad_request(format!(
                        "the down file of migration {} fails on an empty database: {flaw}",
                        step.title()
                    )));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn scope(wish: Value) -> Result<(Scope, bool)> {
        serde_json::from_value::<Wish>(wish).unwrap().scope()
    }

    #[test]
    fn whom_a_wish_means_is_said_once() {
        let id = Uuid::nil();
        for wish in [
            json!({ "kind": "up", "tenants": [] }),
            json!({ "kind": "up", "tenants": [id], "canaries": 1 }),
            json!({ "kind": "up", "sample": 3 }),
            json!({ "kind": "plan" }),
            json!({ "kind": "plan", "sample": 0 }),
            json!({ "kind": "rollback" }),
            json!({ "kind": "up", "waves": [10, 10] }),
            json!({ "kind": "up", "waves": [0] }),
            json!({ "kind": "up", "waves": [101] }),
            json!({ "kind": "up", "canaries": 1_001 }),
        ] {
            assert!(scope(wish.clone()).is_err(), "{wish}");
        }
        assert!(matches!(scope(json!({ "kind": "up" })), Ok((Scope::All { canaries: CANARIES, .. }, true))));
        assert!(matches!(scope(json!({ "kind": "validate" })), Ok((Scope::All { canaries: 0, .. }, true))));
        assert!(matches!(scope(json!({ "kind": "rollback", "tenants": [id] })), Ok((Scope::Tenants(_), false))));
    }

    #[test]
    fn bounds_are_named() {
        for (name, value) in
            [("parallel", json!(0)), ("parallel", json!(17)), ("tenant_timeout_s", json!(0)), ("max_failure_rate", json!(1.5))]
        {
            let wish: Wish = serde_json::from_value(json!({ "kind": "up", name: value })).unwrap();
            assert!(wish.knobs().unwrap_err().message().contains(name));
        }
    }
}

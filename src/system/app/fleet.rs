//! Fleet runs: what an operator has done to all tenants, or to some, and what came of each. A run is these rows and
//! nothing else: its tenants are chosen when it begins, each row says what is left to do, and the counts move in the
//! transaction that settles a tenant. So a process that takes a run up again needs nothing of the one before.
//!
//! Bounds: one run at a time; the last [`KEPT`] are remembered.

mod scope;

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::App;
use super::outbox::record_in;
use crate::clock::{Millis, now_ms, rfc3339};
use crate::error::{Error, Result};
use crate::sqlite::{Limits, Reader, WriteTx};
use crate::system::audit::{Action, By};
use crate::system::column;
pub use scope::Scope;

/// Runs remembered.
pub const KEPT: u32 = 20;

/// Choosing a hundred thousand tenants takes about a second.
const CHOOSING: Limits = Limits { time: std::time::Duration::from_secs(60) };

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $word:literal)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            pub fn parse(text: &str) -> Option<$name> {
                match text { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words!(
    /// What a run does to its tenants.
    Kind { Up "up" Down "down" Plan "plan" Validate "validate" Rollback "rollback" }
);
words!(
    /// `stopped` by an operator, `halted` by too many failures.
    RunState { Running "running" Stopped "stopped" Halted "halted" Done "done" }
);
words!(VisitState { Waiting "waiting" Done "done" Failed "failed" Skipped "skipped" });

/// How a run goes about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knobs {
    /// Tenants at once.
    pub parallel: u32,
    /// Of a wave's tenants, 0 to 1; past it the run halts.
    pub max_failure_rate: f64,
    /// The longest one tenant may take, in seconds.
    pub tenant_timeout_s: u64,
    /// Who was taken down by name stays there.
    #[serde(default)]
    pub leaves_held: bool,
}

#[derive(Clone, Debug)]
pub struct RunRow {
    pub id: Uuid,
    pub kind: Kind,
    pub state: RunState,
    /// Of every tenant, and of those that are made from now on.
    pub whole: bool,
    /// The application's migration that was in force before, and the one that tenants are brought to.
    pub base: u32,
    pub to: u32,
    pub fingerprint: String,
    pub knobs: Knobs,
    /// The wave under way; 0 has the canaries.
    pub wave: u32,
    pub tenants: u64,
    pub done: u64,
    pub failed: u64,
    pub skipped: u64,
    pub reason: Option<String>,
    pub actor: String,
    pub created_at: Millis,
    pub updated_at: Millis,
    pub ended_at: Option<Millis>,
}

impl RunRow {
    /// It was to bring everybody up and did not come to its end.
    pub fn leaves_others_behind(&self) -> bool {
        self.kind == Kind::Up && self.whole && self.base < self.to && matches!(self.state, RunState::Stopped | RunState::Halted)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "whole": self.whole,
            "base": self.base,
            "to": self.to,
            "parallel": self.knobs.parallel,
            "max_failure_rate": self.knobs.max_failure_rate,
            "tenant_timeout_s": self.knobs.tenant_timeout_s,
            "wave": self.wave,
            "tenants": self.tenants,
            "done": self.done,
            "failed": self.failed,
            "skipped": self.skipped,
            "reason": self.reason,
            "actor": self.actor,
            "created_at": rfc3339(self.created_at),
            "updated_at": rfc3339(self.updated_at),
            "ended_at": self.ended_at.map(rfc3339),
        })
    }
}

/// A run that begins.
#[derive(Clone, Debug)]
pub struct NewRun {
    pub kind: Kind,
    pub whole: bool,
    pub base: u32,
    pub to: u32,
    pub fingerprint: String,
    pub knobs: Knobs,
    pub scope: Scope,
    /// From the same moment on.
    pub ceiling: Option<u32>,
}

/// The application's migration that files are brought to when they are opened, while it is not the newest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    pub version: u32,
    /// Which run left it.
    pub run: Uuid,
}

#[derive(Clone, Debug)]
pub struct VisitRow {
    pub tenant_id: Uuid,
    /// `None` if it was purged since.
    pub slug: Option<String>,
    pub wave: u32,
    pub state: VisitState,
    pub outcome: Option<Value>,
    pub error: Option<Value>,
    pub at: Option<Millis>,
}

impl VisitRow {
    pub fn to_json(&self) -> Value {
        json!({
            "tenant_id": self.tenant_id,
            "slug": self.slug,
            "wave": self.wave,
            "state": self.state,
            "outcome": self.outcome,
            "error": self.error,
            "at": self.at.map(rfc3339),
        })
    }
}

/// What came of a visit.
#[derive(Clone, Debug)]
pub struct Visited {
    pub tenant: Uuid,
    pub state: VisitState,
    pub outcome: Value,
    pub error: Option<Value>,
}

/// How far a wave is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wave {
    pub number: u32,
    pub tenants: u64,
    pub failed: u64,
}

const COLUMNS: &str = "id, kind, state, whole, base, to_version, fingerprint, knobs, wave, tenants, done, failed, skipped, reason, actor, \
                       created_at, updated_at, ended_at";

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: column::uuid(row, 0)?,
        kind: column::parsed(row, 1, Kind::parse)?,
        state: column::parsed(row, 2, RunState::parse)?,
        whole: row.get(3)?,
        base: row.get(4)?,
        to: row.get(5)?,
        fingerprint: row.get(6)?,
        knobs: column::parsed(row, 7, |text| serde_json::from_str(text).ok())?,
        wave: row.get(8)?,
        tenants: column::count(row, 9)?,
        done: column::count(row, 10)?,
        failed: column::count(row, 11)?,
        skipped: column::count(row, 12)?,
        reason: row.get(13)?,
        actor: row.get(14)?,
        created_at: row.get(15)?,
        updated_at: row.get(16)?,
        ended_at: row.get(17)?,
    })
}

impl App {
    /// Begins a run: from this commit on it goes on until it ends, whatever becomes of the process. Forgets the oldest.
    pub async fn fleet_begin(&self, by: &By, new: NewRun) -> Result<RunRow> {
        let (by, id) = (by.clone(), Uuid::now_v7());
        let done = self.db.write(CHOOSING, move |tx| {
            nothing_running_in(tx)?;
            tx.execute("DELETE FROM fleet_runs WHERE id NOT IN (SELECT id FROM fleet_runs ORDER BY id DESC LIMIT ?1)", [KEPT - 1])?;
            let knobs = serde_json::to_string(&new.knobs).map_err(|error| Error::internal("a run's knobs do not serialize", &error))?;
            let sql = format!(
                "INSERT INTO fleet_runs ({COLUMNS}) VALUES (?1, ?2, 'running', ?3, ?4, ?5, ?6, ?7, 0, 0, 0, 0, 0, NULL, ?8, ?9, ?9, NULL)"
            );
            let now = now_ms();
            let row = params![id.to_string(), new.kind.as_str(), new.whole, new.base, new.to, new.fingerprint, knobs, by.actor, now];
            tx.execute(&sql, row)?;
            let chosen = new.scope.choose_in(tx, id)?;
            tx.execute("UPDATE fleet_runs SET tenants = ?2 WHERE id = ?1", params![id.to_string(), chosen as i64])?;
            if let Some(version) = new.ceiling {
                ceiling_in(tx, Some(Ceiling { version, run: id }))?;
            }
            let details = json!({ "kind": new.kind, "to": new.to, "tenants": chosen, "whole": new.whole });
            record_in(tx, &by.begun("migrations.run", Some(id.to_string()), details))?;
            existing_in(tx, id)
        });
        self.told(done.await)
    }

    pub async fn fleet_run(&self, id: Uuid) -> Result<RunRow> {
        self.db.read(Limits::default(), move |r| existing_in(r, id)).await
    }

    /// The newest first.
    pub async fn fleet_runs(&self, limit: u32) -> Result<Vec<RunRow>> {
        let sql = format!("SELECT {COLUMNS} FROM fleet_runs ORDER BY id DESC LIMIT ?1");
        self.db.read(Limits::default(), move |r| r.rows(&sql, [limit], run_row)).await
    }

    pub async fn fleet_running(&self) -> Result<Option<RunRow>> {
        self.db.read(Limits::default(), running_in).await
    }

    /// The wave that is next, and of its tenants those that wait, at most `limit`; `None` when nobody waits.
    pub async fn fleet_waiting(&self, run: Uuid, limit: u32) -> Result<Option<(Wave, Vec<Uuid>)>> {
        self.db
            .read(Limits::default(), move |r| {
                r.snapshot()?;
                let run = run.to_string();
                let next = "SELECT min(wave) FROM fleet_visits WHERE run_id = ?1 AND state = 'waiting'";
                let Some(number) = r.row(next, [&run], |row| row.get::<_, Option<u32>>(0))?.flatten() else { return Ok(None) };
                let of_wave = "SELECT count(*), count(*) FILTER (WHERE state = 'failed') FROM fleet_visits WHERE run_id = ?1 AND wave = ?2";
                let counts = r.row(of_wave, params![run, number], |row| Ok((column::count(row, 0)?, column::count(row, 1)?)))?;
                let (tenants, failed) = counts.unwrap_or_default();
                let waiting = r.rows(
                    "SELECT tenant_id FROM fleet_visits WHERE run_id = ?1 AND state = 'waiting' AND wave = ?2 ORDER BY tenant_id LIMIT ?3",
                    params![run, number, limit],
                    |row| column::uuid(row, 0),
                )?;
                Ok(Some((Wave { number, tenants, failed }, waiting)))
            })
            .await
    }

    /// A wave of a run that is under way begins; where `ceiling` is given, it is that from the same moment on. Whether it
    /// is under way.
    pub async fn fleet_wave(&self, run: Uuid, wave: u32, ceiling: Option<Option<u32>>) -> Result<bool> {
        self.db
            .write(Limits::default(), move |tx| {
                let sql = "UPDATE fleet_runs SET wave = ?2, updated_at = ?3 WHERE id = ?1 AND state = 'running'";
                let running = tx.execute(sql, params![run.to_string(), wave, now_ms()])? == 1;
                if let Some(version) = ceiling.filter(|_| running) {
                    ceiling_in(tx, version.map(|version| Ceiling { version, run }))?;
                }
                Ok(running)
            })
            .await
    }

    /// Settles one tenant of a run; the run's state as it is by then.
    pub async fn fleet_visited(&self, run: Uuid, visited: Visited) -> Result<RunState> {
        self.db
            .write(Limits::default(), move |tx| {
                let Visited { tenant, state, outcome, error } = &visited;
                let now = now_ms();
                let changed = tx.execute(
                    "UPDATE fleet_visits SET state = ?3, outcome = ?4, error = ?5, at = ?6 WHERE run_id = ?1 AND tenant_id = ?2 AND state = 'waiting'",
                    params![run.to_string(), tenant.to_string(), state.as_str(), outcome.to_string(), error.as_ref().map(Value::to_string), now],
                )?;
                if changed == 1 {
                    let count = state.as_str();
                    tx.execute(
                        &format!("UPDATE fleet_runs SET {count} = {count} + 1, updated_at = ?2 WHERE id = ?1"),
                        params![run.to_string(), now],
                    )?;
                }
                Ok(existing_in(tx, run)?.state)
            })
            .await
    }

    /// Ends a run that is under way; `None` if it has ended before. A run up of the whole fleet that did not reach its end
    /// leaves those it did not visit where they were.
    pub async fn fleet_end(&self, run: Uuid, state: RunState, reason: Option<String>, action: Action) -> Result<Option<RunRow>> {
        let done = self.db.write(Limits::default(), move |tx| {
            let ended = tx.execute(
                "UPDATE fleet_runs SET state = ?2, reason = ?3, updated_at = ?4, ended_at = ?4 WHERE id = ?1 AND state = 'running'",
                params![run.to_string(), state.as_str(), reason, now_ms()],
            )?;
            let row = existing_in(tx, run)?;
            if ended == 0 {
                return Ok(None);
            }
            if row.leaves_others_behind() {
                ceiling_in(tx, Some(Ceiling { version: row.base, run }))?;
            }
            record_in(tx, &action)?;
            Ok(Some(row))
        });
        self.told(done.await)
    }

    /// The run's tenants in order after `after`, those in `state` if it is given.
    pub async fn fleet_visits(&self, run: Uuid, state: Option<VisitState>, after: Option<Uuid>, limit: u32) -> Result<Vec<VisitRow>> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.db
            .read(Limits::default(), move |r| {
                existing_in(r, run)?;
                r.rows(
                    "SELECT v.tenant_id, t.slug, v.wave, v.state, v.outcome, v.error, v.at
                     FROM fleet_visits AS v LEFT JOIN tenants AS t ON t.id = v.tenant_id
                     WHERE v.run_id = ?1 AND v.tenant_id > ?2 AND (?3 IS NULL OR v.state = ?3) ORDER BY v.tenant_id LIMIT ?4",
                    params![run.to_string(), after, state.map(VisitState::as_str), limit],
                    |row| {
                        let value = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
                        Ok(VisitRow {
                            tenant_id: column::uuid(row, 0)?,
                            slug: row.get(1)?,
                            wave: row.get(2)?,
                            state: column::parsed(row, 3, VisitState::parse)?,
                            outcome: value(row.get(4)?),
                            error: value(row.get(5)?),
                            at: row.get(6)?,
                        })
                    },
                )
            })
            .await
    }

    pub async fn migration_ceiling(&self) -> Result<Option<Ceiling>> {
        self.db
            .read(Limits::default(), |r| {
                let ceiling = |row: &Row<'_>| Ok(Ceiling { version: row.get(0)?, run: column::uuid(row, 1)? });
                r.row("SELECT version, run_id FROM migration_ceiling", [], ceiling)
            })
            .await
    }
}

fn running_in(r: &Reader<'_>) -> Result<Option<RunRow>> {
    r.row(&format!("SELECT {COLUMNS} FROM fleet_runs WHERE state = 'running'"), [], run_row)
}

fn nothing_running_in(r: &Reader<'_>) -> Result<()> {
    match running_in(r)? {
        None => Ok(()),
        Some(run) => Err(Error::conflict(format!("run {} ({}) is under way; there is one at a time", run.id, run.kind.as_str()))
            .detail("run_id", run.id.to_string())
            .hint("Wait for it, or stop it: `tenantry migrate status` shows it, `tenantry migrate stop` stops it.")),
    }
}

fn existing_in(r: &Reader<'_>, id: Uuid) -> Result<RunRow> {
    r.row(&format!("SELECT {COLUMNS} FROM fleet_runs WHERE id = ?1"), [id.to_string()], run_row)?.ok_or_else(|| {
        Error::not_found(format!("there is no run {id}")).hint(format!("`GET /admin/v1/migrations/runs` has the last {KEPT}."))
    })
}

fn ceiling_in(tx: &WriteTx<'_>, ceiling: Option<Ceiling>) -> Result<()> {
    tx.execute("DELETE FROM migration_ceiling", [])?;
    if let Some(Ceiling { version, run }) = ceiling {
        tx.execute(
            "INSERT INTO migration_ceiling (one, version, run_id, set_at) VALUES (1, ?1, ?2, ?3)",
            params![version, run.to_string(), now_ms()],
        )?;
    }
    Ok(())
}

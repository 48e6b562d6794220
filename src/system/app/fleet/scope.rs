//! A [`Scope`] says which tenants a run visits, and in which waves; they are chosen once, when it begins.

use rusqlite::params;
use serde_json::json;
use uuid::Uuid;

use crate::error::Result;
use crate::sqlite::WriteTx;
use crate::system::app::no_tenant;
use crate::system::column;

/// Which tenants a run visits, and in which waves.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Every active or suspended one: the canaries (these, or so many spread over all), then waves that end at so many
    /// percent of all.
    All { named: Vec<Uuid>, canaries: u32, waves: Vec<u8> },
    /// These, in one wave.
    Tenants(Vec<Uuid>),
    /// So many, spread over all, in one wave.
    Sample(u32),
    /// What a run that has ended did not do, or not manage, in the waves it had.
    Rest(Uuid),
}

/// Living tenants numbered from 0 in the order they were made, and how many there are.
const NUMBERED: &str = "WITH numbered AS (
    SELECT id, row_number() OVER (ORDER BY id) - 1 AS n, count(*) OVER () AS total FROM tenants WHERE state IN ('active', 'suspended'))
    INSERT INTO fleet_visits (run_id, tenant_id, wave, state)";

impl Scope {
    /// Writes down whom the run visits, and when; how many they are.
    pub(super) fn choose_in(&self, tx: &WriteTx<'_>, run: Uuid) -> Result<usize> {
        let run = run.to_string();
        let texts = |ids: &[Uuid]| json!(ids).to_string();
        match self {
            Scope::All { named, canaries, waves } => {
                living_in(tx, named)?;
                // Evenly spread: as many numbers as there are canaries wrap around here.
                let canary = if named.is_empty() { "(n * ?3) % total < ?3" } else { "?3 >= 0 AND id IN (SELECT value FROM json_each(?2))" };
                let ends: String =
                    (1..).zip(waves).map(|(wave, percent)| format!(" WHEN n * 100 < {percent} * total THEN {wave}")).collect();
                let last = waves.len() + 1;
                let sql = format!("{NUMBERED} SELECT ?1, id, CASE WHEN {canary} THEN 0{ends} ELSE {last} END, 'waiting' FROM numbered");
                tx.execute(&sql, params![run, texts(named), canaries])
            }
            Scope::Tenants(ids) => {
                living_in(tx, ids)?;
                let sql =
                    "INSERT OR IGNORE INTO fleet_visits (run_id, tenant_id, wave, state) SELECT ?1, value, 1, 'waiting' FROM json_each(?2)";
                tx.execute(sql, params![run, texts(ids)])
            }
            Scope::Sample(most) => {
                tx.execute(&format!("{NUMBERED} SELECT ?1, id, 1, 'waiting' FROM numbered WHERE (n * ?2) % total < ?2"), params![run, most])
            }
            Scope::Rest(of) => tx.execute(
                "INSERT INTO fleet_visits (run_id, tenant_id, wave, state)
             SELECT ?1, tenant_id, wave, 'waiting' FROM fleet_visits WHERE run_id = ?2 AND state IN ('waiting', 'failed')",
                params![run, of.to_string()],
            ),
        }
    }
}

/// 404 unless each of them can be visited.
fn living_in(tx: &WriteTx<'_>, ids: &[Uuid]) -> Result<()> {
    let missing = tx.row(
        "SELECT value FROM json_each(?1) WHERE value NOT IN (SELECT id FROM tenants WHERE state IN ('active', 'suspended'))",
        [json!(ids).to_string()],
        |row| column::uuid(row, 0),
    )?;
    missing.map_or(Ok(()), |id| Err(no_tenant(id)))
}

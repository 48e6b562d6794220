//! After the load: every tenant's file is asked for all that was acknowledged, and every queue is emptied. What is
//! missing, too many or changed is wrong, like a wrong answer during the run.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};

use super::drive::PATIENCE;
use super::fleet::{CREW, ask, in_turn};
use super::progress::Bar;
use super::tally::Tally;
use super::truth;
use super::wire;
use super::work::{Shared, Worker};
use crate::error::Result;

/// What was looked at and found to be there.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Verified {
    pub tenants: u64,
    pub inserts: u64,
    pub updates: u64,
    pub jobs: u64,
    /// Writes that got no answer, so that they may be there or not.
    pub unknown: u64,
    /// Queues that could not be emptied in time, of which nothing is known.
    pub queues_left: u64,
}

/// Looks at every tenant's database.
pub async fn databases(shared: &Shared<'_>) -> Result<Verified> {
    let tenants = &shared.fleet.tenants;
    let bar = Bar::new("verifying", tenants.len() as f64);
    let verified = Cell::new(Verified::default());
    in_turn(&shared.fleet.target, tenants.len(), &bar, async |wire, index| {
        let (tenant, ledger) = (&tenants[index], shared.truth.of(index));
        let (first, last) = (shared.truth.first_id(), shared.truth.last_id());
        let unknown = ledger.inserts.unknown();
        let body = json!({ "transaction": "read", "statements": [
            { "sql": truth::count_inserts(), "params": [first, last, tenant.number] },
            { "sql": "SELECT count(*), coalesce(sum(n), 0) FROM load_items" },
            { "sql": "SELECT load_inserts.id - ?1 FROM json_each(?2) JOIN load_inserts ON load_inserts.id = ?1 + value", "params": [first, json!(unknown).to_string()] },
        ]});
        let answer = ask(wire, |request| wire::post(request, &tenant.caller, "/v1/sql", body.to_string().as_bytes())).await?;
        let cell = |result: usize, column: usize| answer["results"][result]["rows"][0][column].as_u64();
        let wrong = |what: String| shared.trouble.wrong(format!("{} at the end: {what}", tenant.slug()));

        let there = answer["results"][2]["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let there: Vec<u64> = there.iter().filter_map(|row| row[0].as_u64()).collect();
        let (count, sum) = ledger.inserts.acknowledged();
        let (count, sum) = (count + there.len() as u64, sum + there.iter().sum::<u64>());
        if (cell(0, 0), cell(0, 1), cell(0, 2)) != (Some(count), Some(sum), Some(0)) {
            wrong(format!("expected {count} inserted rows whose stamps sum up to {sum}, none changed; found {}", row(&answer, 0)));
        }
        let updates = ledger.updates.acknowledged().0;
        let doubtful = ledger.updates.unknown().len() as u64;
        let rows = shared.truth.rows as u64;
        if cell(1, 0) != Some(rows) || !cell(1, 1).is_some_and(|sum| (updates..=updates + doubtful).contains(&sum)) {
            wrong(format!("expected {rows} rows counted up {updates} times (and {doubtful} nobody knows of); found {}", row(&answer, 1)));
        }
        let Verified { tenants, inserts, updates: before, unknown: lost, .. } = verified.get();
        verified.set(Verified {
            tenants: tenants + 1,
            inserts: inserts + count,
            updates: before + updates,
            unknown: lost + doubtful + unknown.len() as u64,
            ..verified.get()
        });
        Ok(())
    })
    .await?;
    Ok(verified.into_inner())
}

/// Empties every tenant's queue of the run, for at most `patience`, and looks whether each job was handed out once.
pub async fn queues(shared: &Shared<'_>, patience: Duration, tally: &RefCell<Tally>) -> Verified {
    let tenants = shared.fleet.tenants.len();
    let bar = Bar::new("emptying", tenants as f64);
    let (next, verified) = (Cell::new(0), Cell::new(Verified::default()));
    let until = Instant::now() + patience;
    let one = async || {
        let mut worker = Worker::new(shared, tally, 0, PATIENCE);
        while next.get() < tenants && !shared.trouble.stops() {
            let tenant = next.replace(next.get() + 1);
            let mut dry = false;
            while !dry && Instant::now() < until && !shared.trouble.stops() {
                dry = worker.drain(tenant).await;
            }
            let Verified { jobs, unknown, queues_left, .. } = verified.get();
            let (handed_out, lost) = look(shared, tenant, dry);
            let queues_left = queues_left + u64::from(!dry);
            verified.set(Verified { jobs: jobs + handed_out, unknown: unknown + lost, queues_left, ..verified.get() });
            bar.advance();
        }
    };
    join_all((0..CREW.min(tenants)).map(|_| one())).await;
    verified.into_inner()
}

/// Compares what a tenant's queue handed out with what was put in. Returns the numbers handed out and not known of.
fn look(shared: &Shared<'_>, tenant: usize, dry: bool) -> (u64, u64) {
    let ledger = shared.truth.of(tenant);
    let (handed_out, sum) = ledger.handed_out.acknowledged();
    let (mut expected, mut expected_sum) = ledger.jobs.acknowledged();
    let doubtful = ledger.jobs.unknown();
    for stamp in doubtful.iter().filter(|stamp| shared.truth.was_handed_out(**stamp)) {
        expected += 1;
        expected_sum += stamp;
    }
    // Claims that got no answer took jobs away unseen.
    let unseen = ledger.handed_out.unknown().len() as u64;
    let complete = if unseen == 0 { (handed_out, sum) == (expected, expected_sum) } else { handed_out + unseen >= expected };
    if dry && !complete {
        let slug = shared.fleet.tenants[tenant].slug();
        shared.trouble.wrong(format!("{slug} at the end: {expected} jobs were put in, {handed_out} came out"));
    }
    (handed_out, doubtful.len() as u64 + unseen)
}

fn row(answer: &Value, result: usize) -> String {
    answer["results"][result]["rows"][0].to_string()
}

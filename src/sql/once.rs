//! An effect: statements that are applied once for a job of the queue, however often and by whomever they are sent. A row
//! of `_tenantry_job_done` with the job's id is written by their own transaction; where it stands already, nothing is
//! run.
//!
//! - Who sends them holds the job until an instant; later they are not applied. So of two who hold it one after the
//!   other, the first one's statements come before the second one's, or not at all.
//! - A row is needed for as long as its job could be worked on again, which only the queue knows. Rows older than
//!   [`KEPT_MS`], longer than any lease, are handed out to be asked for, [`ASKED`] at a time; those still needed are left
//!   for as long again.

use std::sync::Arc;

use uuid::Uuid;

use super::request::{Request, Statement};
use super::run::{Caller, Task};
use crate::clock::{Millis, now_ms};
use crate::config::Plan;
use crate::error::Result;
use crate::sqlite::{Database, Limits};

/// How long a row stays before anybody is asked whether it is needed: a day, twice the longest lease.
const KEPT_MS: Millis = 86_400_000;

/// Rows asked for by one effect: more than it adds.
const ASKED: i64 = 64;

/// For which job, and until when whoever sends the statements holds it.
#[derive(Clone, Copy, Debug)]
pub struct Once {
    pub job: Uuid,
    pub until: Millis,
}

/// What became of the statements.
#[derive(Debug)]
pub struct Applied {
    /// They ran now; otherwise they had before.
    pub now: bool,
    /// Jobs whose rows may not be needed any more: ask the queue, then [`settle`].
    pub doubtful: Vec<Uuid>,
}

/// Applies the statements in one transaction; `None` when it is too late. Errors: the statements', with nothing applied.
pub async fn apply(
    database: &Arc<Database>,
    plan: &Arc<Plan>,
    caller: Caller,
    statements: Vec<Statement>,
    once: Once,
) -> Result<Option<Applied>> {
    let task = Task::new(Request::of(statements), plan, caller)?;
    let attempt = move |tx: &crate::sqlite::WriteTx<'_>| {
        let (job, now) = (once.job.as_bytes(), now_ms());
        let doubtful = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_blob().ok().and_then(|id| Uuid::from_slice(id).ok()));
        if tx.row(APPLIED, [job], |_| Ok(()))?.is_some() {
            return Ok(Some(Applied { now: false, doubtful: Vec::new() }));
        }
        if now >= once.until {
            return Ok(None);
        }
        task.write_unheard(tx)?;
        tx.execute(KEEP, (job, now))?;
        let doubtful = tx.rows(DOUBTFUL, (now - KEPT_MS, ASKED), doubtful)?.into_iter().flatten().collect();
        Ok(Some(Applied { now: true, doubtful }))
    };
    database.write(Limits::of(plan), attempt).await
}

/// Forgets the effects of jobs that are `over`, and keeps the others' for as long again.
pub async fn settle(database: &Arc<Database>, over: Vec<Uuid>, needed: Vec<Uuid>) -> Result<()> {
    let settle = move |tx: &crate::sqlite::WriteTx<'_>| {
        over.iter().try_for_each(|job| tx.execute(FORGET, [job.as_bytes()]).map(drop))?;
        needed.iter().try_for_each(|job| tx.execute(KEEP, (job.as_bytes(), now_ms())).map(drop))
    };
    database.write(Limits::default(), settle).await
}

// Named with their schema: a tenant's script may have made a temporary table of the same name.

const APPLIED: &str = "SELECT 1 FROM main._tenantry_job_done WHERE job = ?1";

const KEEP: &str = "INSERT OR REPLACE INTO main._tenantry_job_done (job, applied_at) VALUES (?1, ?2)";

const DOUBTFUL: &str = "SELECT job FROM main._tenantry_job_done WHERE applied_at < ?1 ORDER BY applied_at LIMIT ?2";

const FORGET: &str = "DELETE FROM main._tenantry_job_done WHERE job = ?1";

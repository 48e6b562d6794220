//! `ack` with statements: what a job does to the tenant's database, applied exactly once, also when two workers hold the
//! job or the server is killed. Two files are committed one after the other, the database first; an `ack` that is
//! repeated finds the effect there and only finishes the job.

use crate::auth::scope::Scope;
use crate::error::{Code, Error, Result};
use crate::queue::{JobId, Queue};
use crate::sql::once::{self, Once};
use crate::sql::{Caller, Statement};
use crate::tenant::Lease;

/// Applies the statements and finishes the job; whether they ran now, not before. Errors: those of statements, with
/// nothing applied; `lease_lost`, whose `details` say `applied` if they were.
pub(in crate::http) async fn ack(
    caller: Caller,
    lease: &Lease,
    queue: &Queue<'_>,
    (id, token): (JobId, &str),
    result: Option<String>,
    statements: Vec<Statement>,
) -> Result<bool> {
    caller.scopes.require(Scope::SqlWrite)?;
    let Some(until) = queue.held_until(id, token).await? else { return Ok(false) };
    let once = Once { job: id.into(), until };
    let applied = once::apply(lease.database(), lease.plan(), caller, statements, once).await?.ok_or_else(|| too_late(id))?;
    queue.ack(id, token, result).await.map_err(|error| error.detail("applied", true))?;
    if !applied.doubtful.is_empty()
        && let Err(error) = forget(lease, queue, applied.doubtful).await
    {
        tracing::warn!(%error, "what is remembered of finished jobs is kept for now");
    }
    Ok(applied.now)
}

/// Lets go of effects of jobs that are over.
pub(in crate::http) async fn forget(lease: &Lease, queue: &Queue<'_>, doubtful: Vec<uuid::Uuid>) -> Result<()> {
    let (over, needed) = queue.are_over(doubtful).await?;
    once::settle(lease.database(), over, needed).await
}

fn too_late(id: JobId) -> Error {
    Error::new(Code::LeaseLost, format!("the lease of job {id} ended before its statements were begun"))
        .hint("Nothing was applied. Whoever has the job next applies them.")
}

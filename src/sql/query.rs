//! A [`Query`] is one statement that reads, of which the answer is to be kept. It is answered as any other, in one
//! snapshot, together with what the answer hangs on there, so that it can be told later whether it is current.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::encode::{Answering, Integers};
use super::params::Params;
use super::run::Caller;
use crate::config::Plan;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Database, Finished, Limits, Reader, Seen, Sources};

/// How often it is tried to have what the query reads watched, before the answer is given as one that cannot be kept.
const TRIES: u32 = 3;

#[derive(Debug, Serialize)]
pub struct Query {
    pub sql: String,
    pub params: Params,
    pub integers: Integers,
}

/// An answer.
#[derive(Debug)]
pub struct Made {
    /// JSON, as [`run`](super::run) answers.
    pub body: Finished,
    /// What it hangs on; `None` where that cannot be told.
    pub seen: Option<Seen>,
    pub took: Duration,
}

/// How one try ended.
enum Try {
    Made(Made),
    Unwatched(Arc<[Box<str>]>),
}

impl Query {
    /// Answers it, within `plan`. `lasting` is an answer that is to be kept for good. Errors: `sql_denied` for a statement
    /// that writes, and for one that never answers the same; `bad_request` where a lasting answer would tell the time.
    pub async fn make(self: Arc<Self>, database: &Arc<Database>, plan: &Arc<Plan>, caller: Caller, lasting: bool) -> Result<Made> {
        let caller = Arc::new(caller);
        let make = async |keep: bool| {
            let (query, plan, caller) = (self.clone(), plan.clone(), caller.clone());
            database.read(Limits::of(&plan.clone()), move |reader| query.read(reader, &plan, &caller, lasting, keep)).await
        };
        for _ in 0..TRIES {
            match make(true).await? {
                Try::Made(made) => return Ok(made),
                Try::Unwatched(tables) => {
                    // A full or failing file still answers.
                    if let Err(error) = database.watch(tables).await {
                        tracing::debug!(%error, "what a query reads cannot be watched");
                        break;
                    }
                }
            }
        }
        match make(false).await? {
            Try::Made(made) => Ok(made),
            Try::Unwatched(_) => Err(Error::internal("an answer that is not kept hangs on what is not watched", &self.sql)),
        }
    }

    fn read(&self, reader: &Reader<'_>, plan: &Plan, caller: &Caller, lasting: bool, keep: bool) -> Result<Try> {
        let began = Instant::now();
        reader.snapshot()?;
        let mut prepared = reader.prepare(&self.sql)?;
        if !prepared.is_readonly() {
            return Err(Error::new(Code::SqlDenied, "a remembered query only reads").hint("Send what writes to /v1/sql."));
        }
        caller.scopes.permit(prepared.needs())?;
        if lasting && prepared.tells_time() {
            return Err(Error::bad_request("the query may answer by the time of day, so its answer needs a \"ttl\"")
                .hint("Give a ttl, or send the time as a parameter."));
        }
        // Before it runs: what is not watched yet would have it run twice.
        if let (Sources::Unwatched(tables), true) = (reader.sources(&prepared)?, keep) {
            return Ok(Try::Unwatched(tables));
        }
        let mut answering = Answering::new(reader.draft(), plan, self.integers);
        answering.result(&mut prepared, &self.params)?;
        let seen = match reader.sources(&prepared)? {
            Sources::Seen(seen) => Some(seen),
            Sources::Unwatched(tables) if keep => return Ok(Try::Unwatched(tables)),
            Sources::Unwatched(_) => None,
        };
        let took = began.elapsed();
        Ok(Try::Made(Made { body: answering.finish("", took), seen, took }))
    }
}

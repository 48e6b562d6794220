//! A [`Stream`] is what a client takes for its connection: its requests come one after the other. It is cheap, and
//! survives the closing of the tenant's files, since outside a transaction it holds none of them: a statement goes where
//! one of `/v1/sql` goes. From BEGIN to COMMIT or ROLLBACK it holds an [`Interactive`] transaction; dropping it rolls
//! that back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::{Batch, One, Outcome, Pause, Step, none_open, permit_begin};
use super::control::Control;
use super::proto::{self, BatchCond, DescribeParam, DescribeResult, STEPS_MAX, Sql, Stmt, StmtResult, StreamRequest, StreamResponse};
use super::statement::{Kind, Statement, Tally, columns};
use super::stored::Stored;
use super::text;
use crate::auth::scope::{Scope, Scopes};
use crate::config::Plan;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Begin, Bounds, Database, Interactive, Limits, Reader};

/// The most steps of a batch that is tried as a brief read.
const BRIEF_STEPS: usize = 16;

/// On whose behalf, on what and within what: made for each HTTP request and each message of a socket, whose answers
/// together are bounded by the plan.
#[derive(Clone)]
pub struct Context {
    pub database: Arc<Database>,
    pub plan: Arc<Plan>,
    pub scopes: Scopes,
    pub bounds: Bounds,
    answered: Arc<Answered>,
}

#[derive(Default)]
struct Answered {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Context {
    pub fn new(database: Arc<Database>, plan: Arc<Plan>, scopes: Scopes, bounds: Bounds) -> Context {
        Context { database, plan, scopes, bounds, answered: Arc::default() }
    }

    fn tally(&self) -> Tally {
        Tally { rows: self.answered.rows.load(Relaxed), bytes: self.answered.bytes.load(Relaxed) }
    }

    fn answered(&self, tally: Tally) {
        self.answered.rows.store(tally.rows, Relaxed);
        self.answered.bytes.store(tally.bytes, Relaxed);
    }
}

pub struct Stream {
    stored: Stored,
    transaction: Option<Interactive>,
    /// Off: what it writes is written on a session of its own, which does not enforce them.
    foreign_keys: bool,
    closed: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Stream { stored: Stored::default(), transaction: None, foreign_keys: true, closed: false }
    }
}

impl Stream {
    pub fn new() -> Stream {
        Stream::default()
    }

    pub async fn run(&mut self, cx: &Context, request: StreamRequest) -> Result<StreamResponse> {
        if self.closed {
            return Err(Error::bad_request("the stream is closed"));
        }
        Ok(match request {
            StreamRequest::Close => {
                self.transaction = None;
                self.closed = true;
                StreamResponse::Close
            }
            StreamRequest::Execute(stmt) => {
                let step = Step { condition: None, statement: self.statement(stmt)? };
                StreamResponse::Execute(only(self.steps(cx, [step].into()).await?.outcomes())?)
            }
            StreamRequest::Batch(batch) => {
                let steps = batch.steps.into_iter().map(|step| {
                    let proto::BatchStep { condition, stmt } = step;
                    Ok(Step { condition, statement: self.statement(stmt)? })
                });
                let steps = steps.collect::<Result<Vec<_>>>()?;
                StreamResponse::Batch(self.steps(cx, steps.into()).await?.result())
            }
            StreamRequest::Sequence(sql) => {
                let steps = sequence(&self.stored.text(&sql)?)?;
                self.steps(cx, steps.into()).await?.outcomes().into_iter().try_for_each(|outcome| match outcome {
                    Outcome::Failed(error) => Err(error),
                    Outcome::Done(_) | Outcome::Skipped => Ok(()),
                })?;
                StreamResponse::Sequence
            }
            StreamRequest::Describe(sql) => StreamResponse::Describe(self.describe(cx, &sql).await?),
            StreamRequest::StoreSql { id, sql } => {
                self.stored.store(id, sql)?;
                StreamResponse::StoreSql
            }
            StreamRequest::CloseSql { id } => {
                self.stored.close(id);
                StreamResponse::CloseSql
            }
            StreamRequest::GetAutocommit => StreamResponse::GetAutocommit { is_autocommit: !self.in_transaction() },
        })
    }

    pub fn in_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(Interactive::is_open)
    }

    fn statement(&self, stmt: Stmt) -> Result<Statement> {
        let Stmt { sql, args, named_args, want_rows } = stmt;
        Ok(Statement::new(self.stored.text(&sql)?, args, named_args, want_rows))
    }

    /// Runs steps, wherever each belongs. An `Err` is about all of them; what failed of one is among the outcomes.
    async fn steps(&mut self, cx: &Context, steps: Arc<[Step]>) -> Result<Batch> {
        let mut batch = Batch::new(steps, cx.tally());
        if self.transaction.is_none()
            && self.foreign_keys
            && let Some(begin) = batch.begins()
            && let Some(mut whole) = as_one(cx, &batch, begin).await?
        {
            cx.answered(*whole.tally());
            return Ok(whole);
        }
        loop {
            if self.transaction.is_some() {
                batch = self.inside(cx, batch).await?;
            }
            let Some(at) = batch.due(!self.in_transaction()) else { break };
            if self.transaction.is_none() {
                let outcome = self.outside(cx, &mut batch, at).await;
                batch.note(outcome);
            }
        }
        cx.answered(*batch.tally());
        Ok(batch)
    }

    /// Goes on with the batch until it is done or the transaction has ended.
    async fn inside(&mut self, cx: &Context, mut batch: Batch) -> Result<Batch> {
        while let Some(transaction) = &self.transaction {
            let job = cx.clone();
            let ran = transaction.run(Limits::of(&cx.plan).time, move |transaction| {
                let pause = batch.run_in(&job, transaction);
                (batch, pause)
            });
            let pause;
            (batch, pause) = match ran.await {
                Ok(ran) => ran,
                Err(error) => {
                    if !transaction.is_open() {
                        self.transaction = None;
                    }
                    return Err(error);
                }
            };
            match pause {
                Pause::Finished => break,
                Pause::Over => self.transaction = None,
                Pause::WantsTurn => {
                    if let Err(error) = transaction.take_turn().await {
                        batch.note(Err(error));
                    }
                }
            }
        }
        Ok(batch)
    }

    /// One step with no transaction open.
    async fn outside(&mut self, cx: &Context, batch: &mut Batch, at: usize) -> Result<StmtResult> {
        let steps = batch.steps().clone();
        let control = match &steps[at].statement.kind {
            Kind::MayRead | Kind::Writes => {
                let (done, tally) = alone(cx, steps, at, *batch.tally(), self.foreign_keys).await?;
                *batch.tally() = tally;
                return Ok(done);
            }
            Kind::Control(control) => control,
        };
        match control {
            Control::Begin(begin) => {
                permit_begin(cx, *begin)?;
                self.transaction = Some(cx.database.begin(*begin, self.foreign_keys, cx.bounds).await?);
            }
            Control::Savepoint(name) => {
                permit_begin(cx, Begin::Deferred)?;
                let transaction = cx.database.begin(Begin::Deferred, self.foreign_keys, cx.bounds).await?;
                let name = name.clone();
                transaction.run(Limits::of(&cx.plan).time, move |transaction| transaction.savepoint(&name, true)).await??;
                self.transaction = Some(transaction);
            }
            Control::Commit | Control::Rollback | Control::Release(_) | Control::RollbackTo(_) => return Err(none_open(control)),
            Control::ForeignKeys(on) => {
                // Whoever may change the schema may take them out of it.
                cx.scopes.require(if *on { Scope::SqlRead } else { Scope::SqlSchema })?;
                self.foreign_keys = *on;
            }
            Control::Vacuum => {
                cx.scopes.require(Scope::SqlSchema)?;
                cx.database.write_alone(Limits::of(&cx.plan), |writer| writer.vacuum()).await?;
            }
        }
        Ok(StmtResult::default())
    }

    async fn describe(&self, cx: &Context, sql: &Sql) -> Result<DescribeResult> {
        cx.scopes.require(Scope::SqlRead)?;
        let text = self.stored.text(sql)?;
        if Control::parse(&text).is_some() {
            return Ok(DescribeResult { is_readonly: true, ..DescribeResult::default() });
        }
        let limits = Limits::of(&cx.plan);
        match &self.transaction {
            Some(transaction) => {
                transaction.run(limits.time, move |transaction| transaction.statements(|reader| described(reader, &text))).await?
            }
            None => cx.database.read_brief(limits, kind_of([&*text]), move |reader| described(reader, &text)).await,
        }
    }
}

fn only(outcomes: Vec<Outcome>) -> Result<StmtResult> {
    match outcomes.into_iter().next() {
        Some(Outcome::Done(done)) => Ok(done),
        Some(Outcome::Failed(error)) => Err(error),
        Some(Outcome::Skipped) | None => Err(Error::internal("a statement was not run", &"it had no condition")),
    }
}

/// The statements of a text, each run if the one before succeeded; their rows are not answered.
fn sequence(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for sql in text::statements(text) {
        let at = steps.len();
        if at == STEPS_MAX {
            return Err(Error::bad_request(format!("more than {STEPS_MAX} statements at once")));
        }
        let condition = at.checked_sub(1).map(BatchCond::Ok);
        steps.push(Step { condition, statement: Statement::new(sql.into(), Vec::new(), Vec::new(), false) });
    }
    Ok(steps)
}

fn described(reader: &Reader<'_>, text: &str) -> Result<DescribeResult> {
    let prepared = reader.prepare(text)?;
    Ok(DescribeResult {
        params: prepared.parameters().map(|name| DescribeParam { name: name.map(str::to_owned) }).collect(),
        cols: columns(&prepared),
        is_explain: prepared.is_explain(),
        is_readonly: prepared.is_readonly(),
    })
}

/// Tells reads apart that take differently long.
fn kind_of<'t>(texts: impl IntoIterator<Item = &'t str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    texts.into_iter().for_each(|text| text.hash(&mut hasher));
    hasher.finish()
}

/// One statement, committed by itself.
async fn alone(cx: &Context, steps: Arc<[Step]>, at: usize, tally: Tally, foreign_keys: bool) -> Result<(StmtResult, Tally)> {
    let limits = Limits::of(&cx.plan);
    let run = {
        let (cx, steps) = (cx.clone(), steps.clone());
        move |reader: &Reader<'_>, may_write| {
            let mut tally = tally;
            let done = steps[at].statement.run(reader, &cx, &mut tally, may_write)?;
            Ok(done.map(|done| (done, tally)))
        }
    };
    let statement = &steps[at].statement;
    if matches!(statement.kind, Kind::MayRead) {
        let run = run.clone();
        if let Some(done) = cx.database.read_brief(limits, kind_of([&*statement.text]), move |reader| run(reader, false)).await? {
            return Ok(done);
        }
    }
    let done = if foreign_keys {
        cx.database.write(limits, move |tx| run(tx, true)).await?
    } else {
        let transaction = cx.database.begin(Begin::Immediate, false, cx.bounds).await?;
        let ran = transaction.run(limits.time, move |transaction| {
            let done = transaction.statements(|reader| run(reader, true))?;
            transaction.commit().map(|()| done)
        });
        ran.await??
    };
    done.ok_or_else(|| Error::internal("a writer did not write", &"it may"))
}

/// A whole transaction as one job; `None` where it has to be run the long way.
async fn as_one(cx: &Context, batch: &Batch, begin: Begin) -> Result<Option<Batch>> {
    if permit_begin(cx, begin).is_err() {
        return Ok(None);
    }
    let (limits, steps, tally) = (Limits::of(&cx.plan), batch.steps().clone(), cx.tally());
    if begin == Begin::ReadOnly || (begin == Begin::Deferred && batch.may_only_read()) {
        let kind = kind_of(steps.iter().map(|step| &*step.statement.text));
        let (job, brief) = (cx.clone(), steps.len() <= BRIEF_STEPS);
        let read = {
            let steps = steps.clone();
            move |reader: &Reader<'_>| {
                reader.snapshot()?;
                Batch::new(steps.clone(), tally).run_as_one(reader, &job, begin, false)
            }
        };
        let ran = if brief { cx.database.read_brief(limits, kind, read).await? } else { cx.database.read(limits, read).await? };
        match ran {
            One::Committed(batch) | One::RolledBack(batch) => return Ok(Some(batch)),
            One::Unfit => return Ok(None),
            One::Writes => {}
        }
    }
    // What a job that is rolled back still has to say.
    let unsaid = Arc::new(Mutex::new(None));
    let (job, say) = (cx.clone(), unsaid.clone());
    let wrote = cx.database.write(limits, move |tx| {
        *say.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match Batch::new(steps.clone(), tally).run_as_one(tx, &job, begin, true)? {
            One::Committed(batch) => Ok(batch),
            other => {
                *say.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                Err(Error::new(Code::Conflict, "the batch was rolled back"))
            }
        }
    });
    match wrote.await {
        Ok(batch) => Ok(Some(batch)),
        Err(error) => match unsaid.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(One::RolledBack(batch)) => Ok(Some(batch)),
            Some(_) => Ok(None),
            None => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;

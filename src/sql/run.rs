//! Running a [`Request`](super::Request): which connection it goes to, what its statements may do, and its
//! answer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::encode::{Answering, Integers};
use super::request::{Mode, Request, Statement, Work};
use crate::auth::scope::{Scope, Scopes};
use crate::config::Plan;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Allowance, Database, Draft, Exclusive, Finished, Idempotency, IdempotencyKey, Limits, Reader, WriteTx, is_vacuum};

const ANSWERS: Idempotency = Idempotency::kept_in("_tenantry_idempotency");

/// The most statements of a request that is tried as a brief read.
const BRIEF_STATEMENTS: usize = 16;

/// On whose behalf.
#[derive(Clone, Debug)]
pub struct Caller {
    pub subject: String,
    pub scopes: Scopes,
}

#[derive(Debug)]
pub struct Answer {
    /// JSON.
    pub body: Finished,
    /// Statements run.
    pub statements: usize,
    pub took: Duration,
    /// It ran on the writer: what it says may be committed.
    pub wrote: bool,
    /// It is what was answered before to the same `Idempotency-Key`.
    pub replayed: bool,
}

/// A request with all that its run needs, shared by its attempts.
pub(super) struct Task {
    work: Work,
    integers: Integers,
    plan: Arc<Plan>,
    caller: Caller,
    key: Option<IdempotencyKey>,
}

/// How a read ended.
enum Read {
    Done(Answer),
    /// A statement in it writes.
    Writes,
}

/// Runs `request` on `database`, within `plan`.
pub async fn run(
    database: &Arc<Database>,
    plan: &Arc<Plan>,
    caller: Caller,
    mut request: Request,
    key: Option<IdempotencyKey>,
) -> Result<Answer> {
    let work = request.work()?;
    let limits = Limits::of(plan);
    let task = Arc::new(Task { work, integers: request.integers, plan: plan.clone(), caller, key });
    match request.transaction {
        Some(Mode::None) if task.key.is_some() => {
            Err(Error::bad_request("an Idempotency-Key needs one transaction").hint("Leave out \"transaction\":\"none\"."))
        }
        Some(Mode::None) => database.write_alone(limits, move |writer| task.each_alone(writer)).await,
        Some(Mode::Read) => {
            match read(database, limits, &task).await? {
                Read::Done(answer) => Ok(answer),
                Read::Writes => Err(Error::new(Code::SqlDenied, "a statement writes in a transaction that only reads")
                    .hint("Send \"transaction\":\"write\".")),
            }
        }
        None if task.work.may_only_read() => match read(database, limits, &task).await? {
            Read::Done(answer) => Ok(answer),
            Read::Writes => write(database, limits, task).await,
        },
        None | Some(Mode::Write) => write(database, limits, task).await,
    }
}

async fn read(database: &Arc<Database>, limits: Limits, task: &Arc<Task>) -> Result<Read> {
    let task = task.clone();
    if matches!(&task.work, Work::Statements(statements) if statements.len() <= BRIEF_STATEMENTS) {
        database.read_brief(limits, task.kind(), move |reader| task.read(reader)).await
    } else {
        database.read(limits, move |reader| task.read(reader)).await
    }
}

async fn write(database: &Arc<Database>, limits: Limits, task: Arc<Task>) -> Result<Answer> {
    database.write(limits, move |tx| task.write(tx)).await
}

impl Task {
    /// Of a request without a key.
    pub fn new(mut request: Request, plan: &Arc<Plan>, caller: Caller) -> Result<Task> {
        Ok(Task { work: request.work()?, integers: request.integers, plan: plan.clone(), caller, key: None })
    }

    fn read(&self, reader: &Reader<'_>) -> Result<Read> {
        let began = Instant::now();
        let mut answering = Answering::new(reader.draft(), &self.plan, self.integers);
        let ran = match &self.work {
            Work::Statements(statements) => {
                if statements.len() > 1 {
                    reader.snapshot()?;
                }
                for (index, statement) in statements.iter().enumerate() {
                    if !self.statement(reader, statement, &mut answering, true).map_err(at(index))? {
                        return Ok(Read::Writes);
                    }
                }
                statements.len()
            }
            Work::Script(script) => {
                reader.snapshot()?;
                match self.script(reader, script, true)? {
                    Some(ran) => ran,
                    None => return Ok(Read::Writes),
                }
            }
        };
        Ok(Read::Done(self.answer(answering, ran, began, false)))
    }

    pub fn write(&self, tx: &WriteTx<'_>) -> Result<Answer> {
        let began = Instant::now();
        if let Some(key) = &self.key
            && let Some(body) = ANSWERS.answered(tx, &self.caller.subject, key)?
        {
            return Ok(Answer { body: body.into(), statements: 0, took: began.elapsed(), wrote: true, replayed: true });
        }
        let answer = self.written(tx, tx.draft())?;
        if let Some(key) = &self.key {
            ANSWERS.keep(tx, &self.caller.subject, key, &answer.body)?;
        }
        Ok(answer)
    }

    /// The same for nobody who would read the answer, so that none who does not read theirs are in its way.
    pub fn write_unheard(&self, tx: &WriteTx<'_>) -> Result<()> {
        let room = Allowance::unbounded();
        self.written(tx, Draft::new(&room)).map(drop)
    }

    fn written(&self, tx: &WriteTx<'_>, draft: Draft<'_>) -> Result<Answer> {
        let began = Instant::now();
        let mut answering = Answering::new(draft, &self.plan, self.integers);
        let ran = match &self.work {
            Work::Statements(statements) => {
                for (index, statement) in statements.iter().enumerate() {
                    self.statement(tx, statement, &mut answering, false).map_err(at(index))?;
                }
                statements.len()
            }
            Work::Script(script) => self.script(tx, script, false)?.unwrap_or_default(),
        };
        Ok(self.answer(answering, ran, began, true))
    }

    /// Each statement in a transaction of its own. What ran before one that fails stays.
    fn each_alone(&self, writer: &Exclusive<'_>) -> Result<Answer> {
        let began = Instant::now();
        let mut answering = Answering::new(writer.draft(), &self.plan, self.integers);
        let Work::Statements(statements) = &self.work else {
            return Err(Error::internal("a script outside a transaction", &"refused before"));
        };
        for (index, statement) in statements.iter().enumerate() {
            if is_vacuum(&statement.sql) {
                self.caller.scopes.require(Scope::SqlSchema).and_then(|()| writer.vacuum()).map_err(at(index))?;
                answering.begin_result(&[])?;
                answering.end_result(Default::default());
            } else {
                writer.transaction(|tx| self.statement(tx, statement, &mut answering, false)).map_err(at(index))?;
            }
        }
        Ok(self.answer(answering, statements.len(), began, true))
    }

    /// Tells tasks apart that take differently long.
    fn kind(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.work {
            Work::Statements(statements) => statements.iter().for_each(|statement| statement.sql.hash(&mut hasher)),
            Work::Script(script) => script.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Whether it ran: a statement that writes does not where `only_read`.
    fn statement(&self, reader: &Reader<'_>, statement: &Statement, answering: &mut Answering<'_>, only_read: bool) -> Result<bool> {
        let mut prepared = reader.prepare(&statement.sql)?;
        if only_read && !prepared.is_readonly() {
            return Ok(false);
        }
        self.caller.scopes.permit(prepared.needs())?;
        answering.result(&mut prepared, &statement.params)?;
        Ok(true)
    }

    /// The number of statements run, or `None` when one writes where `only_read`. Rows are not answered.
    fn script(&self, reader: &Reader<'_>, script: &str, only_read: bool) -> Result<Option<usize>> {
        let mut script = reader.script(script);
        let mut ran = 0;
        while let Some(mut prepared) = script.advance().map_err(at(ran))? {
            if only_read && !prepared.is_readonly() {
                return Ok(None);
            }
            self.caller.scopes.permit(prepared.needs()).and_then(|()| prepared.run(|_| Ok(()))).map_err(at(ran))?;
            ran += 1;
        }
        Ok(Some(ran))
    }

    fn answer(&self, answering: Answering<'_>, statements: usize, began: Instant, wrote: bool) -> Answer {
        let took = began.elapsed();
        let more = match self.work {
            Work::Script(_) => format!(",\"statements\":{statements}"),
            Work::Statements(_) => String::new(),
        };
        Answer { body: answering.finish(&more, took), statements, took, wrote, replayed: false }
    }
}

/// Says which statement of the request, from 0, an error is about.
fn at(index: usize) -> impl Fn(Error) -> Error {
    move |error| error.detail("statement", index)
}

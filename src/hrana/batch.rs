//! A batch on its way: its [`Step`]s, and in [`Batch`] what became of those that are done. It can be put down after any
//! step and taken up elsewhere: the steps before BEGIN run where any statement does, those inside the transaction on its
//! own session ([`Batch::run_in`]).
//!
//! Most batches are one whole transaction, as the libSQL clients send them: BEGIN, statements that each ask whether the
//! one before succeeded, COMMIT, and ROLLBACK if that did not. Such a one is tried as a single job first
//! ([`Batch::run_as_one`]): a read, or a write among others that share a commit. Nothing is lost by trying. What does not
//! fit is rolled back and run the long way, so the short way need not know everything that SQLite does.

use std::sync::Arc;

use super::control::Control;
use super::proto::{self, BatchCond, BatchResult, StmtResult};
use super::statement::{Kind, Statement, Tally};
use super::stream::Context;
use crate::auth::scope::Scope;
use crate::error::{Code, Error, Result};
use crate::sqlite::{Begin, Interaction, Reader};

#[derive(Debug)]
pub struct Step {
    /// Skipped where this does not hold.
    pub condition: Option<BatchCond>,
    pub statement: Statement,
}

pub struct Batch {
    steps: Arc<[Step]>,
    /// Of the steps before the next one.
    outcomes: Vec<Outcome>,
    tally: Tally,
}

pub enum Outcome {
    Skipped,
    Done(StmtResult),
    Failed(Error),
}

/// Why a batch was put down.
pub enum Pause {
    Finished,
    /// The transaction has ended.
    Over,
    /// The next step writes, for which the transaction needs the turn.
    WantsTurn,
}

/// What came of running a batch as one job.
pub enum One {
    Committed(Batch),
    RolledBack(Batch),
    /// It writes, and was run on a reader.
    Writes,
    /// It is not one transaction from its first step to its last.
    Unfit,
}

impl Batch {
    pub fn new(steps: Arc<[Step]>, tally: Tally) -> Batch {
        Batch { outcomes: Vec::with_capacity(steps.len()), steps, tally }
    }

    pub fn steps(&self) -> &Arc<[Step]> {
        &self.steps
    }

    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// The next step whose condition holds; those before it are skipped.
    pub fn due(&mut self, is_autocommit: bool) -> Option<usize> {
        loop {
            let at = self.outcomes.len();
            let step = self.steps.get(at)?;
            if step.condition.as_ref().is_none_or(|condition| self.holds(condition, is_autocommit)) {
                return Some(at);
            }
            self.outcomes.push(Outcome::Skipped);
        }
    }

    fn holds(&self, condition: &BatchCond, is_autocommit: bool) -> bool {
        match condition {
            BatchCond::Ok(step) => matches!(self.outcomes.get(*step), Some(Outcome::Done(_))),
            BatchCond::Error(step) => matches!(self.outcomes.get(*step), Some(Outcome::Failed(_))),
            BatchCond::Not(condition) => !self.holds(condition, is_autocommit),
            BatchCond::And(conditions) => conditions.iter().all(|condition| self.holds(condition, is_autocommit)),
            BatchCond::Or(conditions) => conditions.iter().any(|condition| self.holds(condition, is_autocommit)),
            BatchCond::IsAutocommit => is_autocommit,
        }
    }

    /// Notes what became of the step that is due.
    pub fn note(&mut self, outcome: Result<StmtResult>) {
        self.outcomes.push(outcome.map_or_else(Outcome::Failed, Outcome::Done));
    }

    pub fn outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    pub fn result(self) -> BatchResult {
        let mut result = BatchResult::default();
        for outcome in self.outcomes {
            let (done, failed) = match outcome {
                Outcome::Skipped => (None, None),
                Outcome::Done(done) => (Some(done), None),
                Outcome::Failed(error) => (None, Some(proto::Error::from(&error))),
            };
            result.step_results.push(done);
            result.step_errors.push(failed);
        }
        result
    }

    /// Goes on inside a transaction, on a lane.
    pub fn run_in(&mut self, cx: &Context, transaction: &mut Interaction<'_>) -> Pause {
        while let Some(at) = self.due(false) {
            let steps = self.steps.clone();
            let statement = &steps[at].statement;
            let outcome = match &statement.kind {
                Kind::Control(control) => in_transaction(control, transaction),
                Kind::MayRead | Kind::Writes => {
                    let may_write = transaction.may_write();
                    match transaction.statements(|reader| statement.run(reader, cx, &mut self.tally, may_write)).transpose() {
                        Some(outcome) => outcome,
                        None if transaction.is_read_only() => Err(read_only()),
                        None => return Pause::WantsTurn,
                    }
                }
            };
            self.note(outcome);
            if transaction.is_over() {
                return Pause::Over;
            }
        }
        Pause::Finished
    }

    /// How the batch begins, if it looks like one transaction.
    pub fn begins(&self) -> Option<Begin> {
        let (first, rest) = self.steps.split_first()?;
        let Step { condition: None, statement: Statement { kind: Kind::Control(Control::Begin(begin)), .. } } = first else { return None };
        let plain = |step: &Step| match &step.statement.kind {
            Kind::Control(control) => matches!(control, Control::Commit | Control::Rollback),
            Kind::MayRead | Kind::Writes => true,
        };
        let ends = |step: &Step| matches!(step.statement.kind, Kind::Control(Control::Commit));
        (rest.iter().all(plain) && rest.iter().any(ends)).then_some(*begin)
    }

    /// Whether no statement says at once that it writes.
    pub fn may_only_read(&self) -> bool {
        self.steps.iter().all(|step| !matches!(step.statement.kind, Kind::Writes))
    }

    /// Runs all of it inside the transaction of a job. An `Err` is not about a step.
    pub fn run_as_one(mut self, reader: &Reader<'_>, cx: &Context, begin: Begin, may_write: bool) -> Result<One> {
        let steps = self.steps.clone();
        let (mut open, mut committed) = (false, false);
        while let Some(at) = self.due(!open) {
            let statement = &steps[at].statement;
            let outcome = match &statement.kind {
                Kind::Control(Control::Begin(_)) if at == 0 => {
                    open = true;
                    Ok(StmtResult::default())
                }
                Kind::Control(Control::Commit) if open => match reader.unmet_foreign_key() {
                    Some(unmet) => Err(unmet),
                    None => {
                        (open, committed) = (false, true);
                        Ok(StmtResult::default())
                    }
                },
                Kind::Control(Control::Rollback) if open => {
                    open = false;
                    Ok(StmtResult::default())
                }
                Kind::Control(control @ (Control::Commit | Control::Rollback)) => Err(none_open(control)),
                Kind::MayRead | Kind::Writes if open => match statement.run(reader, cx, &mut self.tally, may_write) {
                    Ok(Some(done)) => Ok(done),
                    Ok(None) if begin == Begin::ReadOnly => Err(read_only()),
                    Ok(None) => return Ok(One::Writes),
                    // Stopped: there is no time for the steps after it either. On a brief read, a lane tries again.
                    Err(error) if reader.is_brief() || error.code() == Code::StatementTimeout => return Err(error),
                    Err(_) if may_write && !reader.in_transaction() => return Ok(One::Unfit),
                    Err(error) => Err(error),
                },
                _ => return Ok(One::Unfit),
            };
            self.note(outcome);
        }
        Ok(match (open, committed) {
            (true, _) => One::Unfit,
            (false, true) => One::Committed(self),
            (false, false) => One::RolledBack(self),
        })
    }
}

fn in_transaction(control: &Control, transaction: &mut Interaction<'_>) -> Result<StmtResult> {
    match control {
        Control::Begin(_) => Err(sql_error("cannot start a transaction within a transaction")),
        Control::Vacuum => Err(sql_error("cannot VACUUM from within a transaction")),
        Control::Commit => transaction.commit(),
        Control::Rollback => {
            transaction.roll_back();
            Ok(())
        }
        Control::Savepoint(name) => transaction.savepoint(name, false),
        Control::Release(name) => transaction.release(name),
        Control::RollbackTo(name) => transaction.roll_back_to(name),
        // As in SQLite: no effect inside a transaction.
        Control::ForeignKeys(_) => Ok(()),
    }
    .map(|()| StmtResult::default())
}

/// What SQLite says to the end of a transaction that is not there.
pub fn none_open(control: &Control) -> Error {
    match control {
        Control::Commit => sql_error("cannot commit - no transaction is active"),
        Control::Release(name) | Control::RollbackTo(name) => sql_error(format!("no such savepoint: {name}")),
        _ => sql_error("cannot rollback - no transaction is active"),
    }
}

fn sql_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Code::SqlError, message).detail("sqlite_name", "SQLITE_ERROR")
}

fn read_only() -> Error {
    Error::new(Code::SqlDenied, "attempt to write a readonly database").detail("sqlite_name", "SQLITE_READONLY")
}

/// Who may begin a transaction: who can do something in it.
pub fn permit_begin(cx: &Context, begin: Begin) -> Result<()> {
    let writes = cx.scopes.has(Scope::SqlWrite) || cx.scopes.has(Scope::SqlSchema);
    match begin {
        Begin::Immediate if !writes => cx.scopes.require(Scope::SqlWrite),
        Begin::Deferred | Begin::ReadOnly if !writes => cx.scopes.require(Scope::SqlRead),
        _ => Ok(()),
    }
}

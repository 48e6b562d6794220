//! What a lane does with a transaction's session while it has it: run statements, end the transaction, or a part of it.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::ffi;

use super::super::database::Database;
use super::super::fault;
use super::super::reader::Reader;
use super::super::turn::busy;
use super::super::watch::Gone;
use super::super::writer::{self, End};
use super::{Begin, Pinned};
use crate::error::{Code, Error, Result};

/// Savepoints inside each other.
const SAVEPOINTS_MAX: usize = 100;

/// A transaction on a lane.
pub struct Interaction<'a> {
    pub(super) database: &'a Arc<Database>,
    pub(super) begin: Begin,
    pub(super) pinned: &'a mut Pinned,
    pub(super) until: Instant,
    pub(super) gone: Gone,
}

impl Interaction<'_> {
    /// Runs statements, watched. Writing ones only while it [`may_write`](Interaction::may_write).
    pub fn statements<T>(&mut self, f: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        let session = &self.pinned.session;
        let left = self.until.saturating_duration_since(Instant::now());
        let ran = session.watched(self.database.engine(), left, self.gone.clone(), || f(&Reader::new(session, self.database.answers())));
        ran.map_err(|error| {
            if is_stale(&error) {
                // It can never write, so others may.
                self.pinned.turn = None;
                return busy("the database was written after this transaction began to read, so it cannot write any more")
                    .hint("Roll it back and begin again; BEGIN IMMEDIATE is never in this situation.");
            }
            writer::explain(&self.pinned.session, error)
        })
    }

    pub fn may_write(&self) -> bool {
        self.pinned.turn.is_some()
    }

    pub fn is_read_only(&self) -> bool {
        self.begin == Begin::ReadOnly
    }

    /// There is no transaction any more.
    pub fn is_over(&self) -> bool {
        self.pinned.session.conn.is_autocommit()
    }

    /// With a foreign key unmet it fails and the transaction stays open, as SQLite has it; other failures end it.
    pub fn commit(&mut self) -> Result<()> {
        let Pinned { session, turn, open, .. } = &*self.pinned;
        if turn.is_none() {
            // It has read only.
            writer::roll_back(session);
            return Ok(());
        }
        if session.has_unmet_foreign_keys() {
            return Err(writer::unmet_foreign_key());
        }
        let (outcome, end) = writer::commit(self.database.engine(), open, session);
        open.log.follow(&session.frames);
        if end == End::Failed {
            writer::roll_back(session);
            self.database.fail(open);
        }
        outcome
    }

    pub fn roll_back(&mut self) {
        writer::roll_back(&self.pinned.session);
    }

    /// `begins` where the savepoint stands for a BEGIN: then releasing it commits.
    pub fn savepoint(&mut self, name: &str, begins: bool) -> Result<()> {
        if self.pinned.savepoints.len() >= SAVEPOINTS_MAX {
            return Err(Error::new(Code::SqlError, format!("more than {SAVEPOINTS_MAX} savepoints inside each other")));
        }
        self.control("SAVEPOINT", name)?;
        self.pinned.savepoints.push(name.to_owned());
        self.pinned.begun_by_savepoint |= begins;
        Ok(())
    }

    pub fn release(&mut self, name: &str) -> Result<()> {
        let at = self.savepoint_named(name)?;
        if at == 0 && self.pinned.begun_by_savepoint {
            return self.commit();
        }
        self.control("RELEASE", name)?;
        self.pinned.savepoints.truncate(at);
        Ok(())
    }

    pub fn roll_back_to(&mut self, name: &str) -> Result<()> {
        let at = self.savepoint_named(name)?;
        self.control("ROLLBACK TO", name)?;
        self.pinned.savepoints.truncate(at + 1);
        Ok(())
    }

    fn savepoint_named(&self, name: &str) -> Result<usize> {
        let found = self.pinned.savepoints.iter().rposition(|known| known.eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::new(Code::SqlError, format!("no such savepoint: {name}")).details(fault::details(ffi::SQLITE_ERROR)))
    }

    fn control(&self, verb: &str, name: &str) -> Result<()> {
        Ok(self.pinned.session.conn.execute_batch(&format!("{verb} \"{}\"", name.replace('"', "\"\"")))?)
    }
}

/// SQLITE_BUSY_SNAPSHOT.
fn is_stale(error: &Error) -> bool {
    error.body().details.is_some_and(|details| details["sqlite_extended_code"] == ffi::SQLITE_BUSY_SNAPSHOT)
}

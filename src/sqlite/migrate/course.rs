//! Bringing one file where it should be: up when it is opened or visited, down when an operator says so. All that a
//! file lacks is one transaction with its records, so a file is where it was or where it should be, never between,
//! however the process ends. Before something in it is destroyed, the file is kept as it is beside ([`copy`]).
//!
//! Foreign keys are not enforced while the texts run: SQLite deletes the rows of a table before it drops it, and with
//! that what refers to them, so a table could not be rebuilt. They are checked before the commit.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension, ffi, params};
use serde::Serialize;

use super::super::copy::copy;
use super::super::{fault, key_index, versions};
use super::{Applied, Migration, Migrations, Text};
use crate::clock;
use crate::error::{Code, Error, Result};

/// Where a file is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Up to each set's `upto`, but not past what holds this file back.
    Up,
    /// The same, and nothing holds it back any more.
    Lift,
    /// Down to each set's `upto`.
    Down,
    /// The same, where it is held until that is lifted.
    Hold,
}

/// What was done to a file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Moved {
    pub moves: Vec<Move>,
    /// Those of the texts that ran which destroy something: `application/0004_drop.up`.
    pub destructive: Vec<String>,
    /// Whether the file was kept as it was.
    pub kept: bool,
    /// What it was not brought past, as it is held there.
    pub held: Vec<Applied>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    pub set: String,
    pub from: u32,
    pub to: u32,
}

pub enum Failure {
    Sqlite(rusqlite::Error),
    Refused(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sqlite(error)
    }
}

/// What of a file's record contradicts a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// `changed`, `down_changed`, `missing` or `unknown`.
    pub problem: &'static str,
    /// `application/0002_tags`
    pub migration: String,
    /// The checksum in the file, and the one known here.
    pub recorded: Option<String>,
    pub here: Option<String>,
}

/// What a file says of itself.
#[derive(Clone, Debug)]
pub struct Examined {
    pub at: Vec<Applied>,
    pub holds: Vec<Applied>,
    pub problems: Vec<Problem>,
}

/// A migration that a file has.
struct Recorded {
    set: String,
    version: u32,
    checksum: String,
    down_checksum: Option<String>,
}

/// What is to run, in order.
struct Pending<'m> {
    set: &'m str,
    step: &'m Migration,
    text: &'m Text,
}

/// Runs the texts of a file's migrations: under a watch, or not.
pub type Running<'a> = &'a dyn Fn(&mut dyn FnMut() -> rusqlite::Result<()>) -> rusqlite::Result<()>;

pub fn unwatched(run: &mut dyn FnMut() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    run()
}

/// Brings the file where `course` says. With `keep`, what it was is there before anything of it is destroyed.
pub fn bring(
    conn: &Connection,
    sets: &[Arc<Migrations>],
    course: Course,
    keep: Option<&Path>,
    running: Running<'_>,
) -> Result<Moved, Failure> {
    let recorded = recorded(conn)?;
    let mut moved = Moved::default();
    let mut pending = Vec::new();
    for set in sets {
        let of_set: Vec<_> = recorded.iter().filter(|one| one.set == set.set).collect();
        let bars = |problem: &Problem| problem.problem != "down_changed" || matches!(course, Course::Down | Course::Hold);
        if let Some(problem) = problems(set, &of_set).into_iter().find(bars) {
            return Err(Failure::Refused(problem.refusal()));
        }
        let from = of_set.len() as u32;
        let to = match course {
            Course::Up if from < set.upto => match held(conn, &set.set)?.filter(|hold| hold.version < set.upto) {
                None => set.upto,
                Some(hold) => {
                    let to = hold.version.max(from);
                    moved.held.push(hold);
                    to
                }
            },
            Course::Up => from,
            Course::Lift => set.upto.max(from),
            Course::Down | Course::Hold => set.upto.min(from),
        };
        if from != to {
            pending.extend(path(set, from, to)?);
            moved.moves.push(Move { set: set.set.clone(), from, to });
        }
    }
    moved.destructive = pending.iter().filter(|one| one.text.destroys).map(Pending::title).collect();
    if let Some(keep) = keep.filter(|_| !moved.destructive.is_empty()) {
        copy(conn, keep).map_err(Failure::Refused)?;
        moved.kept = true;
    }
    let lifts = course == Course::Lift && !holds(conn)?.is_empty();
    let holds = course == Course::Hold && sets.iter().any(|set| set.upto < set.newest());
    if !pending.is_empty() || lifts || holds {
        run(conn, sets, course, &pending, running)?;
    }
    Ok(moved)
}

/// The texts that lead from one version to another.
fn path(set: &Migrations, from: u32, to: u32) -> Result<Vec<Pending<'_>>, Failure> {
    let steps = set.steps.iter();
    if to > from {
        let steps = steps.filter(|step| step.version > from && step.version <= to);
        return Ok(steps.map(|step| Pending { set: &set.set, step, text: &step.up }).collect());
    }
    let steps = steps.rev().filter(|step| step.version > to && step.version <= from);
    steps
        .map(|step| match &step.down {
            Some(text) => Ok(Pending { set: &set.set, step, text }),
            None => Err(Failure::Refused(
                Error::conflict(format!("migration {}/{} has no down file", set.set, step.title()))
                    .hint("Write one, or go up with a further migration that takes back what it did."),
            )),
        })
        .collect()
}

impl Pending<'_> {
    fn goes_up(&self) -> bool {
        std::ptr::eq(self.text, &self.step.up)
    }

    fn title(&self) -> String {
        format!("{}/{}.{}", self.set, self.step.title(), if self.goes_up() { "up" } else { "down" })
    }
}

fn run(conn: &Connection, sets: &[Arc<Migrations>], course: Course, pending: &[Pending<'_>], running: Running<'_>) -> Result<(), Failure> {
    // Without effect inside a transaction.
    conn.execute_batch("PRAGMA foreign_keys=OFF; BEGIN IMMEDIATE")?;
    let mut at = None;
    let work = &mut || {
        ensure_tables(conn)?;
        if !pending.is_empty() {
            key_index::drop_all(conn)?;
        }
        for one in pending {
            at = Some(one);
            let began = Instant::now();
            conn.execute_batch(&one.text.sql)?;
            one.record(conn, began)?;
        }
        if !pending.is_empty() {
            no_broken_references(conn)?;
            versions::forget(conn)?;
        }
        record_holds(conn, sets, course)
    };
    let done = running(work).and_then(|()| {
        if conn.is_autocommit() {
            return Err(refused("it ended the transaction it ran in"));
        }
        conn.execute_batch("COMMIT")
    });
    if done.is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    conn.execute_batch("PRAGMA foreign_keys=ON")?;
    done.map_err(|error| {
        if fault::is_broken(&error) {
            return Failure::Sqlite(error);
        }
        let title = at.map(Pending::title).unwrap_or_default();
        tracing::error!(%error, migration = title, "a migration failed");
        Failure::Refused(
            Error::new(Code::TenantUnavailable, format!("migration {title} failed: {error}"))
                .hint("Nothing of it was applied. Mend the migration and try again."),
        )
    })
}

impl Pending<'_> {
    fn record(&self, conn: &Connection, began: Instant) -> rusqlite::Result<()> {
        let Pending { set, step, .. } = self;
        if !self.goes_up() {
            let sql = "DELETE FROM _tenantry_migrations WHERE \"set\" = ?1 AND version = ?2";
            return conn.execute(sql, params![set, step.version]).map(drop);
        }
        conn.execute(
            "INSERT INTO _tenantry_migrations (\"set\", version, name, checksum, down_checksum, applied_at, took_ms, applied_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                set,
                step.version,
                step.name,
                step.up.checksum,
                step.down.as_ref().map(|down| &down.checksum),
                clock::now_ms(),
                began.elapsed().as_millis() as i64,
                env!("CARGO_PKG_VERSION")
            ],
        )
        .map(drop)
    }
}

fn no_broken_references(conn: &Connection) -> rusqlite::Result<()> {
    let broken = conn.query_row("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1", [], |row| row.get::<_, String>(0)).optional()?;
    match broken {
        None => Ok(()),
        Some(table) => Err(refused(&format!("it leaves rows of {table} without what they refer to"))),
    }
}

fn refused(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CONSTRAINT), Some(why.to_owned()))
}

fn ensure_tables(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS _tenantry_migrations(
            \"set\" TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, checksum TEXT NOT NULL,
            applied_at INTEGER NOT NULL, took_ms INTEGER NOT NULL, applied_by TEXT NOT NULL, down_checksum TEXT,
            PRIMARY KEY (\"set\", version)) STRICT, WITHOUT ROWID",
    )?;
    // Files from before down files were recorded.
    match conn.prepare("SELECT down_checksum FROM _tenantry_migrations") {
        Ok(_) => Ok(()),
        Err(_) => conn.execute_batch("ALTER TABLE _tenantry_migrations ADD COLUMN down_checksum TEXT"),
    }
}

/// By version. In one query, as this is done each time a file is opened, and sorted here, as SQLite compiles a sorter for it. A new file
/// has no table of them yet.
fn recorded(conn: &Connection) -> rusqlite::Result<Vec<Recorded>> {
    let of = |down: &str| format!("SELECT \"set\", version, checksum, {down} FROM _tenantry_migrations");
    let known = match conn.prepare(&of("down_checksum")) {
        Ok(known) => Ok(known),
        Err(_) if !has_table(conn, "_tenantry_migrations")? => return Ok(Vec::new()),
        Err(_) => conn.prepare(&of("NULL")),
    };
    let mut known = known?;
    let rows = known
        .query_map([], |row| Ok(Recorded { set: row.get(0)?, version: row.get(1)?, checksum: row.get(2)?, down_checksum: row.get(3)? }))?;
    let mut recorded = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    recorded.sort_by_key(|one| one.version);
    Ok(recorded)
}

/// Every way in which the file's record contradicts the set. If there is none, the file has versions 1 to n of n.
fn problems(set: &Migrations, recorded: &[&Recorded]) -> Vec<Problem> {
    let title = |version: u32| match set.step(version) {
        Some(step) => format!("{}/{}", set.set, step.title()),
        None => format!("{}/{version:04}", set.set),
    };
    let mut found = Vec::new();
    let mut find = |problem, version, recorded: Option<&String>, here: Option<&String>| {
        found.push(Problem { problem, migration: title(version), recorded: recorded.cloned(), here: here.cloned() });
    };
    let newest = recorded.last().map_or(0, |one| one.version);
    for missing in (1..=newest.min(set.newest())).filter(|version| recorded.iter().all(|one| one.version != *version)) {
        find("missing", missing, None, set.step(missing).map(|step| &step.up.checksum));
    }
    for one in recorded {
        match set.step(one.version) {
            None => find("unknown", one.version, Some(&one.checksum), None),
            Some(step) if step.up.checksum != one.checksum => find("changed", one.version, Some(&one.checksum), Some(&step.up.checksum)),
            Some(step) => {
                let here = step.down.as_ref().map(|down| &down.checksum);
                if one.down_checksum.is_some() && one.down_checksum.as_ref() != here {
                    find("down_changed", one.version, one.down_checksum.as_ref(), here);
                }
            }
        }
    }
    found
}

impl Problem {
    /// What is said where the problem bars the way.
    pub fn refusal(&self) -> Error {
        let Problem { problem, migration, recorded, here } = self;
        let or_none = |checksum: &Option<String>| checksum.clone().unwrap_or_else(|| "none".to_owned());
        let (what, hint) = match *problem {
            "unknown" => (
                format!("the file has migration {migration}, which is not known here"),
                "It was written by a newer version: run that one, or a newer one, with its folder of migrations.",
            ),
            "missing" => (
                format!("the file lacks migration {migration} and has a later one"),
                "Its record was changed by other hands. Put back a copy of the file.",
            ),
            problem => (
                format!(
                    "{} {migration} was changed: the file has checksum {}, this one has {}",
                    if problem == "changed" { "migration" } else { "the down file of migration" },
                    or_none(recorded),
                    or_none(here)
                ),
                "Put the old text back, and write the change as a further migration.",
            ),
        };
        Error::new(Code::TenantUnavailable, what).hint(hint)
    }
}

/// What the file has of these sets, and what is wrong with it.
pub fn examine(conn: &Connection, sets: &[Arc<Migrations>]) -> rusqlite::Result<Examined> {
    let recorded = recorded(conn)?;
    let (mut at, mut found) = (Vec::new(), Vec::new());
    for set in sets {
        let of_set: Vec<_> = recorded.iter().filter(|one| one.set == set.set).collect();
        found.extend(problems(set, &of_set));
        at.push(Applied { set: set.set.clone(), version: of_set.last().map_or(0, |one| one.version) });
    }
    Ok(Examined { at, holds: holds(conn)?, problems: found })
}

/// A set of this file is not brought past `version` when the file is opened.
pub fn hold(conn: &Connection, set: &str, version: u32) -> rusqlite::Result<()> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS _tenantry_migration_holds(
            \"set\" TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    )?;
    conn.execute("INSERT OR REPLACE INTO _tenantry_migration_holds VALUES (?1, ?2)", params![set, version]).map(drop)
}

fn record_holds(conn: &Connection, sets: &[Arc<Migrations>], course: Course) -> rusqlite::Result<()> {
    match course {
        Course::Up | Course::Down => Ok(()),
        Course::Lift => conn.execute_batch("DROP TABLE IF EXISTS _tenantry_migration_holds"),
        Course::Hold => sets.iter().filter(|set| set.upto < set.newest()).try_for_each(|set| hold(conn, &set.set, set.upto)),
    }
}

fn held(conn: &Connection, set: &str) -> rusqlite::Result<Option<Applied>> {
    Ok(holds(conn)?.into_iter().find(|hold| hold.set == set))
}

fn holds(conn: &Connection) -> rusqlite::Result<Vec<Applied>> {
    if !has_table(conn, "_tenantry_migration_holds")? {
        return Ok(Vec::new());
    }
    let mut holds = conn.prepare("SELECT \"set\", version FROM _tenantry_migration_holds")?;
    let rows = holds.query_map([], |row| Ok(Applied { set: row.get(0)?, version: row.get(1)? }))?;
    rows.collect()
}

fn has_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    conn.query_row("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?1)", [name], |row| row.get(0))
}

#[cfg(test)]
mod tests;

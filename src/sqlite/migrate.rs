//! Migrations bring a file up to date when it is opened. A set is named and ordered (`tenant_database`, then
//! `application`); what was applied is recorded in the file itself, in `_tenantry_migrations`, with the SHA-256
//! of its text, the time it took and the version that ran it.
//!
//! A file is refused, with both sides named, when a migration it has was changed since, or when it has one that
//! this binary does not know: it was written by a newer one.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::fault;
use super::session::Session;
use crate::clock;
use crate::error::{Code, Error, Result};

/// A named, ordered set.
#[derive(Debug)]
pub struct Migrations {
    pub set: String,
    pub steps: Vec<Migration>,
}

#[derive(Debug)]
pub struct Migration {
    pub version: u32,
    pub name: String,
    pub up: String,
    pub down: Option<String>,
    /// SHA-256 of `up`, in hexadecimal.
    pub checksum: String,
}

/// The newest migration a file has of a set.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Applied {
    pub set: String,
    pub version: u32,
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

impl Migrations {
    /// A set from files by name and text: `0001_name.up.sql`, `0001_name.down.sql`. Versions are 1, 2, 3, …
    /// without a gap.
    pub fn from_files<N: AsRef<str>, T: AsRef<str>>(set: &str, files: impl IntoIterator<Item = (N, T)>) -> Result<Migrations> {
        let wrong = |file: &str, what: &str| {
            Err(Error::bad_request(format!("migration {set}/{file}: {what}"))
                .hint("Names are NNNN_name.up.sql and NNNN_name.down.sql, from 0001."))
        };
        let mut ups = std::collections::BTreeMap::new();
        let mut downs = std::collections::BTreeMap::new();
        for (file, text) in files {
            let (file, text) = (file.as_ref(), text.as_ref().to_owned());
            let Some((number, rest)) = file.split_once('_') else { return wrong(file, "no number") };
            let Ok(version) = number.parse::<u32>() else { return wrong(file, "the number is not one") };
            let known = if let Some(name) = rest.strip_suffix(".up.sql") {
                ups.insert(version, (name.to_owned(), text)).is_some()
            } else if rest.ends_with(".down.sql") {
                downs.insert(version, text).is_some()
            } else {
                return wrong(file, "neither .up.sql nor .down.sql");
            };
            if known {
                return wrong(file, "another file has this number");
            }
        }
        let mut steps = Vec::with_capacity(ups.len());
        for (expected, (version, (name, up))) in (1..).zip(ups) {
            if version != expected {
                return wrong(&format!("{version:04}_{name}.up.sql"), &format!("number {expected:04} is missing"));
            }
            let checksum = Sha256::digest(up.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            steps.push(Migration { version, name, up, down: downs.remove(&version), checksum });
        }
        if let Some((version, _)) = downs.pop_first() {
            return wrong(&format!("{version:04}"), "a down file without its up file");
        }
        Ok(Migrations { set: set.to_owned(), steps })
    }

    /// The set that a folder holds.
    pub fn from_dir(set: &str, dir: &Path) -> Result<Migrations> {
        let failed = |error: std::io::Error| {
            Error::bad_request(format!("migrations folder {}: {error}", dir.display())).hint("tenants.migrations_dir names it.")
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".sql") {
                let text = std::fs::read_to_string(dir.join(&name)).map_err(failed)?;
                files.push((name, text));
            }
        }
        Migrations::from_files(set, files)
    }
}

/// Applies what the file does not have yet, each migration in a transaction of its own together with its record.
pub(super) fn up(session: &Session, sets: &[Arc<Migrations>]) -> Result<(), Failure> {
    apply_all(&session.conn, sets)
}

/// The versions a file is at, one for each set.
pub fn applied(reader: &super::reader::Reader<'_>) -> Result<Vec<Applied>> {
    reader.rows("SELECT \"set\", max(version) FROM _tenantry_migrations GROUP BY \"set\" ORDER BY \"set\"", [], |row| {
        Ok(Applied { set: row.get(0)?, version: row.get(1)? })
    })
}

/// A new file with these migrations applied, as bytes: what a tenant's file starts as. Blocking. It is made in
/// memory, so that a server starts, and serves what there is, on a disk without room.
pub fn template(sets: &[Arc<Migrations>]) -> Result<Vec<u8>> {
    let build = || -> Result<Vec<u8>, Failure> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch("PRAGMA foreign_keys=ON")?;
        apply_all(&conn, sets)?;
        Ok(conn.serialize(rusqlite::MAIN_DB)?.to_vec())
    };
    let mut bytes = build().map_err(|failure| match failure {
        Failure::Sqlite(error) => Error::internal("the template of a tenant's file could not be made", &error),
        Failure::Refused(error) => error,
    })?;
    // The versions for writing and reading in SQLite's header: 2 says that the file has a write-ahead log.
    bytes[18..20].fill(2);
    Ok(bytes)
}

/// A migration that a file has.
struct Recorded {
    set: String,
    version: u32,
    checksum: String,
}

fn apply_all(conn: &Connection, sets: &[Arc<Migrations>]) -> Result<(), Failure> {
    let recorded = recorded(conn)?;
    for set in sets {
        let of_set = recorded.iter().filter(|one| one.set == set.set);
        let newest = of_set.clone().map(|one| one.version).max().unwrap_or(0);
        of_set.into_iter().try_for_each(|one| check(set, one.version, &one.checksum)).map_err(Failure::Refused)?;
        apply(conn, set, newest)?;
    }
    Ok(())
}

/// In one query, as this is done each time a file is opened. A new file has no table of them yet.
fn recorded(conn: &Connection) -> rusqlite::Result<Vec<Recorded>> {
    let Ok(mut known) = conn.prepare("SELECT \"set\", version, checksum FROM _tenantry_migrations") else {
        conn.execute_batch(
            "CREATE TABLE IF NOT EXISTS _tenantry_migrations(
                \"set\" TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, checksum TEXT NOT NULL,
                applied_at INTEGER NOT NULL, took_ms INTEGER NOT NULL, applied_by TEXT NOT NULL,
                PRIMARY KEY (\"set\", version)) STRICT, WITHOUT ROWID",
        )?;
        return Ok(Vec::new());
    };
    let rows = known.query_map([], |row| Ok(Recorded { set: row.get(0)?, version: row.get(1)?, checksum: row.get(2)? }))?;
    rows.collect()
}

/// Applies what comes after `newest`.
fn apply(conn: &Connection, set: &Migrations, newest: u32) -> Result<(), Failure> {
    for step in set.steps.iter().filter(|step| step.version > newest) {
        let began = Instant::now();
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let applied = conn.execute_batch(&step.up).and_then(|()| {
            let broken =
                conn.query_row("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1", [], |row| row.get::<_, String>(0)).optional()?;
            if let Some(table) = broken {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY),
                    Some(format!("it leaves rows of {table} without what they refer to")),
                ));
            }
            conn.execute(
                "INSERT INTO _tenantry_migrations VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (
                    &set.set,
                    step.version,
                    &step.name,
                    &step.checksum,
                    clock::now_ms(),
                    began.elapsed().as_millis() as i64,
                    env!("CARGO_PKG_VERSION"),
                ),
            )?;
            conn.execute_batch("COMMIT")
        });
        if let Err(error) = applied {
            if !conn.is_autocommit() {
                conn.execute_batch("ROLLBACK")?;
            }
            if fault::is_broken(&error) {
                return Err(Failure::Sqlite(error));
            }
            tracing::error!(%error, set = set.set, version = step.version, "a migration failed");
            return Err(Failure::Refused(
                Error::new(Code::TenantUnavailable, format!("migration {}/{:04}_{} failed: {error}", set.set, step.version, step.name))
                    .hint("Nothing of it was applied. Mend the migration and open the tenant again."),
            ));
        }
    }
    Ok(())
}

fn check(set: &Migrations, version: u32, recorded: &str) -> Result<()> {
    let refused = |what: String, hint: &'static str| Err(Error::new(Code::TenantUnavailable, what).hint(hint));
    match set.steps.iter().find(|step| step.version == version) {
        None => refused(
            format!("the file has migration {}/{version:04}, which is not known here", set.set),
            "It was written by a newer version: run that one, or a newer one.",
        ),
        Some(step) if step.checksum != recorded => refused(
            format!(
                "migration {}/{version:04}_{} was changed: the file has checksum {recorded}, this one has {}",
                set.set, step.name, step.checksum
            ),
            "Put the old text back, and write the change as a further migration.",
        ),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> Result<Arc<Migrations>> {
        Migrations::from_files("test", files.iter().copied()).map(Arc::new)
    }

    fn apply(conn: &Connection, set: &Arc<Migrations>) -> Result<(), Failure> {
        apply_all(conn, std::slice::from_ref(set))
    }

    fn refused(outcome: Result<(), Failure>) -> String {
        match outcome {
            Err(Failure::Refused(error)) => error.message().to_owned(),
            Err(Failure::Sqlite(error)) => panic!("{error}"),
            Ok(()) => panic!("accepted"),
        }
    }

    #[test]
    fn a_migration_is_applied_once_and_a_changed_or_unknown_one_is_refused() {
        let conn = Connection::open_in_memory().unwrap();
        let one = set(&[("0001_a.up.sql", "CREATE TABLE a(x)"), ("0001_a.down.sql", "DROP TABLE a")]).unwrap();
        assert!(apply(&conn, &one).is_ok() && apply(&conn, &one).is_ok());
        let changed = set(&[("0001_a.up.sql", "CREATE TABLE a(x, y)")]).unwrap();
        let message = refused(apply(&conn, &changed));
        assert!(message.contains(&one.steps[0].checksum) && message.contains(&changed.steps[0].checksum), "{message}");
        assert!(refused(apply(&conn, &set(&[]).unwrap())).contains("test/0001"));
    }

    #[test]
    fn a_migration_that_fails_leaves_nothing() {
        let conn = Connection::open_in_memory().unwrap();
        let broken = set(&[("0001_a.up.sql", "CREATE TABLE a(x); CREATE TABLE a(x)")]).unwrap();
        assert!(refused(apply(&conn, &broken)).contains("0001_a failed"));
        assert!(conn.prepare("SELECT * FROM a").is_err());
        assert!(apply(&conn, &set(&[("0001_a.up.sql", "CREATE TABLE a(x)")]).unwrap()).is_ok());
    }

    #[test]
    fn file_names_are_checked() {
        for files in [&[("0002_b.up.sql", "")][..], &[("x.up.sql", "")], &[("0001_a.sql", "")], &[("0001_a.down.sql", "")]] {
            assert!(set(files).is_err(), "{files:?}");
        }
    }
}

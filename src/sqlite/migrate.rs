//! Migrations: named, ordered sets of texts ([`Migrations`]) that bring a file where it should be ([`bring`]). What a
//! file has is recorded in the file itself, in `_tenantry_migrations`, with the SHA-256 of both texts, the time it
//! took and the version that ran it.
//!
//! A file is refused, with both sides named, when a migration it has was changed since, when one is missing between
//! those it has, or when it has one that is not known here: it was written by a newer binary or folder.

mod course;
mod rehearse;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub use course::{Course, Examined, Move, Moved, Problem};
pub(super) use course::{Failure, bring, examine, hold, unwatched};
pub use rehearse::rehearse;

/// A named, ordered set.
#[derive(Clone, Debug)]
pub struct Migrations {
    pub set: String,
    /// Numbered from 1.
    pub steps: Vec<Migration>,
    /// Steps after this one are known, and not applied.
    pub upto: u32,
}

#[derive(Clone, Debug)]
pub struct Migration {
    pub version: u32,
    pub name: String,
    pub up: Text,
    pub down: Option<Text>,
}

/// One file of a migration.
#[derive(Clone, Debug)]
pub struct Text {
    pub sql: String,
    /// SHA-256 of `sql`, in hexadecimal.
    pub checksum: String,
    /// It removes or overwrites something that was there before, so the file is kept as it was. A first line
    /// `-- tenantry: destructive` or `-- tenantry: harmless` says so; else [`rehearse`] finds out.
    pub destroys: bool,
    /// What SQLite says of it on a file without rows.
    pub flaw: Option<String>,
}

/// What a kind of file is brought up to date with, set by set. Asked each time a file is opened: it may change meanwhile.
#[derive(Clone, Debug)]
pub struct Wanted(Arc<RwLock<Arc<[Arc<Migrations>]>>>);

impl From<Arc<[Arc<Migrations>]>> for Wanted {
    fn from(sets: Arc<[Arc<Migrations>]>) -> Self {
        Wanted(Arc::new(RwLock::new(sets)))
    }
}

/// One set alone.
impl From<Migrations> for Wanted {
    fn from(set: Migrations) -> Self {
        let sets: Arc<[_]> = Arc::new([Arc::new(set)]);
        sets.into()
    }
}

impl Wanted {
    pub fn now(&self) -> Arc<[Arc<Migrations>]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn put(&self, sets: Arc<[Arc<Migrations>]>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sets;
    }
}

/// The newest migration a file has of a set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    pub set: String,
    pub version: u32,
}

impl Text {
    fn new(sql: String) -> Text {
        let checksum = hex(&Sha256::digest(sql.as_bytes()));
        let destroys = declared(&sql).unwrap_or(false);
        Text { sql, checksum, destroys, flaw: None }
    }
}

pub(super) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a text's first line says of it.
fn declared(sql: &str) -> Option<bool> {
    match sql.lines().next()?.trim().strip_prefix("-- tenantry:")?.trim() {
        "destructive" => Some(true),
        "harmless" => Some(false),
        _ => None,
    }
}

impl Migration {
    /// `0003_name`
    pub fn title(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
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
            steps.push(Migration { version, name, up: Text::new(up), down: downs.remove(&version).map(Text::new) });
        }
        if let Some((version, _)) = downs.pop_first() {
            return wrong(&format!("{version:04}"), "a down file without its up file");
        }
        Ok(Migrations { set: set.to_owned(), upto: steps.len() as u32, steps })
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

    /// The newest step that is known; 0 if there is none.
    pub fn newest(&self) -> u32 {
        self.steps.len() as u32
    }

    /// The same set, applied up to `version` only.
    pub fn capped(&self, version: u32) -> Migrations {
        Migrations { upto: version.min(self.newest()), ..self.clone() }
    }

    /// Tells apart what the set is up to `version`: SHA-256 over its texts' checksums.
    pub fn fingerprint(&self, version: u32) -> String {
        let mut hash = Sha256::new();
        for step in self.steps.iter().filter(|step| step.version <= version) {
            hash.update(&step.up.checksum);
            hash.update(step.down.as_ref().map_or("", |down| &down.checksum));
            hash.update([b'\n']);
        }
        hex(&hash.finalize())
    }

    fn step(&self, version: u32) -> Option<&Migration> {
        self.steps.get((version as usize).checked_sub(1)?)
    }
}

/// The versions a file is at, one for each set.
pub fn applied(reader: &super::reader::Reader<'_>) -> Result<Vec<Applied>> {
    reader.rows("SELECT \"set\", max(version) FROM _tenantry_migrations GROUP BY \"set\" ORDER BY \"set\"", [], |row| {
        Ok(Applied { set: row.get(0)?, version: row.get(1)? })
    })
}

/// A new file with these migrations applied, as bytes: what a tenant's file starts as; it gives back pages if it `shrinks`. Blocking. It is made in
/// memory, so that a server starts, and serves what there is, on a disk without room.
pub fn template(sets: &[Arc<Migrations>], shrinks: bool) -> Result<Vec<u8>> {
    let build = || -> Result<Vec<u8>, Failure> {
        let conn = Connection::open_in_memory()?;
        conn.execute_batch("PRAGMA foreign_keys=ON")?;
        if shrinks {
            conn.execute_batch(super::session::SHRINKS)?;
        }
        bring(&conn, sets, Course::Up, None, &unwatched)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_checked() {
        for files in [&[("0002_b.up.sql", "")][..], &[("x.up.sql", "")], &[("0001_a.sql", "")], &[("0001_a.down.sql", "")]] {
            assert!(Migrations::from_files("test", files.iter().copied()).is_err(), "{files:?}");
        }
    }

    #[test]
    fn a_fingerprint_covers_both_texts_up_to_its_version() {
        let of = |down: &str, second: &str| {
            let files = [("0001_a.up.sql", "CREATE TABLE a(x)"), ("0001_a.down.sql", down), ("0002_b.up.sql", second)];
            Migrations::from_files("test", files).unwrap()
        };
        let set = of("DROP TABLE a", "CREATE TABLE b(x)");
        assert_eq!(set.fingerprint(1), of("DROP TABLE a", "CREATE TABLE c(x)").fingerprint(1));
        assert_ne!(set.fingerprint(2), of("DROP TABLE a", "CREATE TABLE c(x)").fingerprint(2));
        assert_ne!(set.fingerprint(1), of("DROP TABLE IF EXISTS a", "CREATE TABLE b(x)").fingerprint(1));
    }

    #[test]
    fn a_first_line_declares_what_a_text_does() {
        assert_eq!(declared("-- tenantry: destructive\nSELECT 1"), Some(true));
        assert_eq!(declared("--  tenantry: destructive"), None);
        assert_eq!(declared("-- tenantry: harmless"), Some(false));
        assert_eq!(declared("CREATE TABLE t(x) -- tenantry: harmless"), None);
    }
}

//! A *version* is a random name for what a table holds, kept in the file itself (`_tenantry_versions`). A transaction that
//! writes a watched table gives it another one, and both are committed together. So an answer that was read while its
//! tables had these versions ([`Seen`]) is as good as read now exactly while they still have them: also after a restart, in
//! a copy of the file, and in one put back from a backup, since a name never comes again.
//!
//! - Only tables that an answer was made from are watched; the others cost a commit nothing. A change of the schema, a
//!   migration and a VACUUM forget all of them, and [`UNASKED`] commits that nobody asked about forget one.
//! - [`ALL`] stands for the whole file: answers depend on it that are read from anything else than plain tables.
//! - Each row of the file is known to the process while the file is open, so that commits heed it. Versions are put there by
//!   the writer after its commit, and doubted before it: who asks while a commit is in doubt is told by the file. So nobody
//!   who knows of a commit is told that what was before it is current.

mod sources;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension, Params, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::database::{Database, Limits};
use super::session::Session;
use super::written::Written;
use crate::error::Result;

pub use sources::Sources;

/// Where versions are kept.
const TABLE: &str = "_tenantry_versions";

/// The name that stands for all tables.
const ALL: &str = "*";

/// Commits that write a watched table without anybody asking for its version before it is watched no longer.
const UNASKED: u32 = 1_000;

/// What an answer was made from: tables, each with its version in the answer's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(Vec<(Box<str>, i64)>);

/// What the process knows of an open file's versions.
#[derive(Default)]
pub struct Versions(RwLock<HashMap<Box<str>, Watched>>);

#[derive(Default)]
struct Watched {
    /// `None` while it is in doubt.
    version: Option<i64>,
    /// Commits since it was last asked for.
    unasked: AtomicU32,
}

/// What will be known when the commit has happened that it was made for: versions, or that a table is not watched.
#[must_use]
pub struct Renamed(Vec<(Box<str>, Option<i64>)>);

/// What a commit does with a version that is in doubt.
enum Fate {
    Renamed,
    Forgotten,
    /// The commit does not touch it. It was in doubt since an earlier one failed, or is new.
    Kept,
}

impl Versions {
    /// Of a file that was just opened.
    pub fn load(session: &Session) -> rusqlite::Result<Versions> {
        let versions = Versions::default();
        versions.settle(Renamed(kept(&session.conn)?.into_iter().map(|(name, version)| (name, Some(version))).collect()));
        Ok(versions)
    }

    pub fn is_empty(&self) -> bool {
        self.know(|known| known.is_empty())
    }

    /// In a transaction that is about to be committed: gives the tables that it wrote new versions, and has them in doubt
    /// until that is settled. If the commit fails, they stay so.
    pub fn rename(&self, session: &Session, written: &Written) -> rusqlite::Result<Renamed> {
        let conn = &session.conn;
        if written.is_everything() {
            let names = self.change(|known| {
                known.values_mut().for_each(|watched| watched.version = None);
                known.keys().map(|name| (name.clone(), None)).collect()
            });
            // Also of tables that this transaction itself had watched.
            forget(conn)?;
            return Ok(Renamed(names));
        }
        if written.has(TABLE) {
            let rows = kept(conn)?;
            self.change(|known| {
                for (name, _) in rows {
                    known.entry(name).or_default();
                }
            });
        } else if written.is_empty() || self.is_empty() {
            return Ok(Renamed(Vec::new()));
        }
        let fates = self.change(|known| doubt(known, written));
        let mut renamed = Vec::with_capacity(fates.len());
        for (name, fate) in fates {
            let version = match fate {
                Fate::Renamed => version(conn, RENAME, params![name, any()])?,
                Fate::Kept => version(conn, VERSION, [&name])?,
                Fate::Forgotten => {
                    conn.prepare_cached("DELETE FROM main._tenantry_versions WHERE name = ?1")?.execute([&name])?;
                    None
                }
            };
            renamed.push((name, version));
        }
        Ok(Renamed(renamed))
    }

    /// The commit has happened.
    pub fn settle(&self, Renamed(renamed): Renamed) {
        if renamed.is_empty() {
            return;
        }
        self.change(|known| {
            for (name, version) in renamed {
                match version {
                    Some(_) => known.entry(name).or_default().version = version,
                    None => drop(known.remove(&name)),
                }
            }
        });
    }

    /// Whether the tables still have the versions that were seen; `None` where the file has to be asked.
    fn are(&self, seen: &Seen) -> Option<bool> {
        self.know(|known| {
            let mut doubted = false;
            for (name, version) in &seen.0 {
                let Some(watched) = known.get(name) else { return Some(false) };
                watched.unasked.store(0, Relaxed);
                match watched.version {
                    Some(now) if now != *version => return Some(false),
                    Some(_) => {}
                    None => doubted = true,
                }
            }
            if doubted { None } else { Some(true) }
        })
    }

    fn know<T>(&self, f: impl FnOnce(&HashMap<Box<str>, Watched>) -> T) -> T {
        f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, f: impl FnOnce(&mut HashMap<Box<str>, Watched>) -> T) -> T {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Seen {
    /// Bytes it takes, about.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(name, _)| name.len() + 32).sum()
    }

    /// Whether the answer hangs on nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Database {
    /// Whether what was seen is what every read from now on would see. A table's row is not asked for where the process
    /// knows its version.
    pub async fn is_current(self: &Arc<Self>, seen: &Seen) -> Result<bool> {
        if let Some(known) = self.opened().await?.versions.are(seen) {
            return Ok(known);
        }
        let seen = seen.clone();
        let asked = move |reader: &super::Reader<'_>| {
            for (name, version) in &seen.0 {
                if reader.row(VERSION, [name], |row| row.get(0))? != Some(*version) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        self.read_brief(Limits::default(), 0, asked).await
    }

    /// From here on commits that write these tables give them new versions.
    pub async fn watch(self: &Arc<Self>, tables: Arc<[Box<str>]>) -> Result<()> {
        const WATCH: &str = "INSERT OR IGNORE INTO main._tenantry_versions (name, version) VALUES (?1, ?2)";
        self.write(Limits::default(), move |tx| tables.iter().try_for_each(|name| tx.execute(WATCH, params![name, any()]).map(drop))).await
    }
}

/// Which versions a commit that wrote `written` has in doubt.
fn doubt(known: &mut HashMap<Box<str>, Watched>, written: &Written) -> Vec<(Box<str>, Fate)> {
    let doubted = known.iter_mut().filter_map(|(name, watched)| {
        let fate = match &**name {
            name if name == ALL && !written.is_only(TABLE) || written.has(name) => {
                watched.version = None;
                if watched.unasked.fetch_add(1, Relaxed) < UNASKED { Fate::Renamed } else { Fate::Forgotten }
            }
            _ if watched.version.is_none() => Fate::Kept,
            _ => return None,
        };
        Some((name.clone(), fate))
    });
    doubted.collect()
}

/// No table is watched any more, once the transaction is committed.
pub fn forget(conn: &Connection) -> rusqlite::Result<()> {
    if is_there(conn)? { conn.execute_batch("DELETE FROM main._tenantry_versions") } else { Ok(()) }
}

/// Every row; none where a file has no such table.
fn kept(conn: &Connection) -> rusqlite::Result<Vec<(Box<str>, i64)>> {
    let mut all = match conn.prepare("SELECT name, version FROM main._tenantry_versions") {
        Ok(all) => all,
        Err(_) if !is_there(conn)? => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn is_there(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?1)", [TABLE], |row| row.get(0))
}

fn version(conn: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()
}

/// A version that no table ever had.
fn any() -> i64 {
    Uuid::new_v4().as_u128() as i64
}

const VERSION: &str = "SELECT version FROM main._tenantry_versions WHERE name = ?1";

const RENAME: &str = "UPDATE main._tenantry_versions SET version = ?2 WHERE name = ?1 RETURNING version";

#[cfg(test)]
mod tests;

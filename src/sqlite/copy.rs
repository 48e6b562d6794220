//! Copies of a file through SQLite's online backup: a copy is one commit's state, whoever writes meanwhile, and it
//! appears under its name whole or not at all.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{fault, vfs};
use crate::error::{Code, Error, Result};

/// Pages copied in one step.
const STEP: i32 = 4_096;

/// Copies the open file to `to`, replacing what is there: temporary file, fsync, rename, fsync of the folder. Makes
/// the folder. Blocking.
pub fn copy(from: &Connection, to: &Path) -> Result<()> {
    let failed = |cause: std::io::Error| not_copied(to, &cause);
    let folder = to.parent().unwrap_or(to);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let unfinished = with_suffix(to, ".new");
    remove(&unfinished).map_err(failed)?;
    let copied = (|| {
        let mut file = Connection::open(&unfinished)?;
        // What a crash leaves of it is removed, not repaired.
        file.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")?;
        run(from, &mut file)?;
        file.close().map_err(|(_, error)| error)
    })();
    let settled = copied.map_err(|error: rusqlite::Error| not_copied(to, &error)).and_then(|()| {
        let settle = || -> std::io::Result<()> {
            File::open(&unfinished)?.sync_all()?;
            // The log of an earlier copy is not this one's.
            ["-wal", "-shm"].iter().try_for_each(|suffix| remove(&with_suffix(to, suffix)))?;
            std::fs::rename(&unfinished, to)?;
            File::open(folder)?.sync_all()
        };
        settle().map_err(failed)
    });
    if settled.is_err() {
        // Otherwise the next copy does.
        let _ = remove(&unfinished);
    }
    settled
}

/// Removes a copy that nobody has open, with what SQLite keeps beside it.
pub fn remove_copy(path: &Path) -> std::io::Result<()> {
    ["", "-wal", "-shm"].iter().try_for_each(|suffix| remove(&with_suffix(path, suffix)))
}

/// Where a database's header says which SQLite may write it, and up to which number ours does.
const WRITE_VERSION: (u64, u8) = (18, 2);

/// Opens a file and what SQLite keeps beside it, as far as they are there, and closes them again. Nobody has it open. An error
/// too where its header lets SQLite only read it.
pub fn try_to_open(path: &Path) -> std::io::Result<()> {
    if vfs::is_open(path) {
        return Ok(());
    }
    ["", "-wal", "-shm"].iter().try_for_each(|suffix| {
        let path = with_suffix(path, suffix);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => Err(std::io::Error::other("not a regular file")),
            Ok(_) => {
                let (file, (place, newest), mut version) = (File::options().read(true).write(true).open(&path)?, WRITE_VERSION, [0]);
                let is_newer = suffix.is_empty() && file.read_at(&mut version, place)? > 0 && version[0] > newest;
                if is_newer { Err(std::io::Error::other("its header lets it be read only")) } else { Ok(()) }
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => Ok(()),
            Err(cause) => Err(cause),
        }
    })
}

/// Puts the content of the file at `from` in the place of the open file's, in one commit. Nobody reads or writes it.
pub fn restore(from: &Path, to: &mut Connection) -> Result<()> {
    let mut restore = || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NOFOLLOW;
        run(&Connection::open_with_flags(from, flags)?, to)
    };
    restore().map_err(|error: rusqlite::Error| match fault::is_broken(&error) {
        true => fault::unavailable(from, &error).for_operators(),
        false => error.into(),
    })
}

/// In one read transaction, so that nobody's commit has it begin again.
fn run(from: &Connection, to: &mut Connection) -> rusqlite::Result<()> {
    let own = from.is_autocommit();
    if own {
        from.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema")?;
    }
    let copied = Backup::new(from, to).and_then(|backup| {
        loop {
            match backup.step(STEP)? {
                StepResult::Done => return Ok(()),
                StepResult::More => {}
                _ => std::thread::yield_now(),
            }
        }
    });
    if own {
        from.execute_batch("ROLLBACK")?;
    }
    copied
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

fn not_copied(to: &Path, cause: &dyn std::fmt::Display) -> Error {
    tracing::error!(to = %to.display(), %cause, "a file could not be copied");
    Error::new(Code::TenantUnavailable, format!("the file could not be copied to {}: {cause}", to.display()))
        .hint("Make room there, or see that the server may write there.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("file"), folder.path().join("copies/of/file"));
        let mut conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        let other = Connection::open(&path).unwrap();
        copy(&conn, &to).unwrap();
        other.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        copy(&conn, &to).unwrap();
        drop(other);
        conn.execute_batch("DROP TABLE t").unwrap();
        restore(&to, &mut conn).unwrap();
        let rows = |conn: &Connection| conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(rows(&conn), 2);
        drop(conn);
        let conn = Connection::open(&path).unwrap();
        assert_eq!(rows(&conn), 2);
        assert_eq!(conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
        assert_eq!(std::fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "nothing unfinished is left");
    }
}

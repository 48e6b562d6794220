//! SQLite's errors as what a caller is told, in one table. The inside (paths, SQL of ours) is logged, never
//! shown; SQLite's own message about a tenant's statement is.

use rusqlite::ffi;
use serde_json::json;

use super::copy;
use crate::error::{Code, Error};

/// Whether an error at `COMMIT` leaves open what happened: the log may hold the transaction although SQLite
/// could not say so.
pub fn is_undecided(error: &rusqlite::Error) -> bool {
    primary(error) == ffi::SQLITE_IOERR
}

fn is_out_of_memory(error: &rusqlite::Error) -> bool {
    primary(error) == ffi::SQLITE_NOMEM || extended(error) == Some(ffi::SQLITE_IOERR_NOMEM)
}

/// Whether the file itself cannot be served.
pub fn is_broken(error: &rusqlite::Error) -> bool {
    !is_out_of_memory(error)
        && matches!(primary(error), ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_CANTOPEN | ffi::SQLITE_IOERR)
}

/// Whether it is that a file which is there could not be opened: a process that has no descriptor left is told the same.
pub fn may_pass(error: &rusqlite::Error, path: &std::path::Path) -> bool {
    primary(error) == ffi::SQLITE_CANTOPEN && std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Room below which a disk is taken for full, in bytes.
const FULL: u64 = 1 << 20;

/// Whether the disk below the file has no room. SQLite has one code for that and for a file at its plan's bound.
pub fn disk_is_full(path: impl AsRef<std::path::Path>) -> bool {
    rustix::fs::statvfs(path.as_ref()).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < FULL)
}

/// Whether an error at `COMMIT` says that the disk is full: the plan's bound is met before, as pages are taken.
pub fn is_full(error: &rusqlite::Error) -> bool {
    primary(error) == ffi::SQLITE_FULL
}

const WHO_KNOWS: &str = "The operator sees the reason in the server's log and under /admin/v1/tenants/{id}.";

/// Whether an error of our own statements tells of the file and the disk below it, and not of what was asked.
pub fn is_of_the_file(error: &Error) -> bool {
    let sqlite = error.detail_of("sqlite_code").and_then(serde_json::Value::as_i64).unwrap_or(0) as i32;
    match error.code() {
        Code::Unknown => true,
        Code::SqlError => sqlite == ffi::SQLITE_ERROR,
        Code::TenantUnavailable => matches!(sqlite, ffi::SQLITE_IOERR | ffi::SQLITE_READONLY),
        Code::Overloaded => sqlite == ffi::SQLITE_FULL,
        _ => false,
    }
}

/// [`Error::disk_full`], for [`is_of_the_file`] to know.
pub fn disk_full() -> Error {
    Error::disk_full().details(details(ffi::SQLITE_FULL))
}

/// The answer for a file that cannot be opened and brought up to date. What has passed by the next try says so
/// itself; all else is in the file.
pub fn opening(path: &std::path::Path, error: rusqlite::Error) -> Error {
    match primary(&error) {
        ffi::SQLITE_FULL if disk_is_full(path) => disk_full(),
        ffi::SQLITE_FULL | ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_INTERRUPT => error.into(),
        _ if is_out_of_memory(&error) => error.into(),
        _ => unavailable(path, &error),
    }
}

/// The same where no connection to the file is left. SQLite has one code for a file that is not what it should be
/// and for a process that has no descriptor left, so the files are tried without it.
pub fn connecting(path: &std::path::Path, error: rusqlite::Error) -> Error {
    if primary(&error) != ffi::SQLITE_CANTOPEN {
        return opening(path, error);
    }
    // What follows links would find a file there.
    if extended(&error) == Some(ffi::SQLITE_CANTOPEN_SYMLINK) {
        return unavailable(path, &error);
    }
    if disk_is_full(path) {
        return disk_full();
    }
    match copy::try_to_open(path) {
        Err(cause) if !is_out_of_descriptors(&cause) => unavailable(path, &error),
        tried => {
            tracing::warn!(path = %path.display(), %error, ?tried, "a database could not be opened this time");
            Error::new(Code::Overloaded, "the server could not open this database's files just now")
                .hint("It is at its bound of open files, or was.")
                .retry_after(std::time::Duration::from_secs(1))
        }
    }
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM))
}

/// The answer for a file that cannot be served; the cause goes to the log and to operators.
pub fn unavailable(path: &std::path::Path, cause: &dyn std::fmt::Display) -> Error {
    tracing::error!(path = %path.display(), %cause, "a database cannot be served");
    withheld(Error::new(Code::TenantUnavailable, format!("{}: {cause}", path.display())))
}

/// The same where `inside` is the cause; it is logged by the caller.
pub fn withheld(inside: Error) -> Error {
    Error::new(Code::TenantUnavailable, "this database cannot be served right now")
        .hint(WHO_KNOWS)
        .retry_after(std::time::Duration::from_secs(5))
        .inside(inside)
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let Some(extended) = extended(&error) else { return foreign(&error) };
        let message = message(&error);
        let mut details = details(extended);
        details["offset"] = json!(offset(&error));
        let (code, hint) = match extended & 0xff {
            ffi::SQLITE_CONSTRAINT => (Code::ConstraintViolation, None),
            ffi::SQLITE_FULL => (Code::QuotaExceeded, Some("Delete what is no longer needed, or ask for a larger plan.")),
            ffi::SQLITE_INTERRUPT => (Code::StatementTimeout, Some("Nothing of it remains. An index, a LIMIT or smaller steps help.")),
            ffi::SQLITE_TOOBIG => (Code::SqlError, Some("A value or statement is larger than this server takes.")),
            ffi::SQLITE_AUTH => (Code::SqlDenied, None),
            _ if is_out_of_memory(&error) => return short_of_memory(&error),
            ffi::SQLITE_READONLY if extended == ffi::SQLITE_READONLY => (Code::SqlDenied, Some("This transaction only reads.")),
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => {
                return Error::new(Code::Overloaded, "the database stayed busy")
                    .details(details)
                    .retry_after(std::time::Duration::from_secs(1));
            }
            ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => {
                tracing::error!(%error, "a database is damaged");
                return withheld(Error::new(Code::TenantUnavailable, message));
            }
            // For reading only because of what became of the file, not of the connection.
            ffi::SQLITE_CANTOPEN | ffi::SQLITE_IOERR | ffi::SQLITE_READONLY => {
                tracing::error!(%error, "a database failed");
                return Error::new(Code::TenantUnavailable, "this database cannot be served right now").details(details).hint(WHO_KNOWS);
            }
            ffi::SQLITE_MISUSE => return Error::internal("SQLite was misused", &error),
            _ => (Code::SqlError, None),
        };
        let answer = Error::new(code, message).details(details);
        match hint {
            Some(hint) => answer.hint(hint),
            None => answer,
        }
    }
}

/// What an error's details say of a code of SQLite's.
pub fn details(extended: i32) -> serde_json::Value {
    json!({"sqlite_code": extended & 0xff, "sqlite_extended_code": extended, "sqlite_name": name(extended), "offset": null})
}

fn short_of_memory(error: &rusqlite::Error) -> Error {
    tracing::warn!(%error, "SQLite was refused memory");
    Error::new(Code::Overloaded, "the server is short of memory").retry_after(std::time::Duration::from_secs(1))
}

/// Errors that rusqlite finds itself.
fn foreign(error: &rusqlite::Error) -> Error {
    use rusqlite::Error::*;
    match error {
        MultipleStatement => Error::new(Code::SqlError, "more than one statement in one \"sql\"")
            .hint("Send each in its own entry of \"statements\", or all in \"script\"."),
        InvalidParameterCount(given, wanted) => {
            Error::new(Code::SqlError, format!("the statement takes {wanted} parameters, {given} were given"))
        }
        InvalidParameterName(name) => Error::new(Code::SqlError, format!("the statement has no parameter {name}")),
        NulError(_) => Error::new(Code::SqlError, "a NUL byte in SQL"),
        _ => Error::internal("a statement of our own failed", error),
    }
}

fn primary(error: &rusqlite::Error) -> i32 {
    extended(error).unwrap_or(0) & 0xff
}

/// SQLite's own code. rusqlite keeps it elsewhere where SQLite also knows the place in the statement.
fn extended(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.extended_code),
        other => other.sqlite_extended_error_code(),
    }
}

fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// Where in the statement, in bytes, if SQLite knows.
fn offset(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqlInputError { offset, .. } if *offset >= 0 => Some(*offset),
        _ => None,
    }
}

fn name(extended: i32) -> &'static str {
    match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE => "SQLITE_CONSTRAINT_UNIQUE",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "SQLITE_CONSTRAINT_PRIMARYKEY",
        ffi::SQLITE_CONSTRAINT_ROWID => "SQLITE_CONSTRAINT_ROWID",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "SQLITE_CONSTRAINT_FOREIGNKEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "SQLITE_CONSTRAINT_NOTNULL",
        ffi::SQLITE_CONSTRAINT_CHECK => "SQLITE_CONSTRAINT_CHECK",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "SQLITE_CONSTRAINT_TRIGGER",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "SQLITE_CONSTRAINT_DATATYPE",
        _ => match extended & 0xff {
            ffi::SQLITE_ERROR => "SQLITE_ERROR",
            ffi::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
            ffi::SQLITE_FULL => "SQLITE_FULL",
            ffi::SQLITE_INTERRUPT => "SQLITE_INTERRUPT",
            ffi::SQLITE_TOOBIG => "SQLITE_TOOBIG",
            ffi::SQLITE_AUTH => "SQLITE_AUTH",
            ffi::SQLITE_READONLY => "SQLITE_READONLY",
            ffi::SQLITE_MISMATCH => "SQLITE_MISMATCH",
            ffi::SQLITE_RANGE => "SQLITE_RANGE",
            ffi::SQLITE_BUSY => "SQLITE_BUSY",
            ffi::SQLITE_LOCKED => "SQLITE_LOCKED",
            _ => "SQLITE_OTHER",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_the_text_is_the_callers_with_its_place() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        for (sql, offset) in [("SELECT * FORM t", 9), ("SELECT nope", 7), ("SELECT 'open", 7)] {
            let error = Error::from(conn.prepare(sql).unwrap_err());
            assert_eq!((error.code(), &error.to_json()["details"]["offset"]), (Code::SqlError, &json!(offset)), "{sql}");
        }
    }
}

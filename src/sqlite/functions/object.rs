//! `tenantry_object(member, value, …)` is a JSON object: a member is [`Writing`]'s letter and the name as JSON with its colon.
//! `tenantry_members(member, value, …)` is the same without braces, with a comma before each: a part of one.
//!
//! An object is no longer than SQLite lets a value be: that is asked while it is written, since nothing stops a step,
//! and no bound of SQLite's counts what is written here.

use std::ffi::c_int;

use rusqlite::ffi;
use rusqlite::types::ValueRef;

use super::bytes;
use super::rows::Writing;

pub unsafe extern "C" fn object(context: *mut ffi::sqlite3_context, count: c_int, arguments: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as SQLite calls it.
    unsafe { answer(context, count, arguments, b"{", b"}") }
}

pub unsafe extern "C" fn members(context: *mut ffi::sqlite3_context, count: c_int, arguments: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as SQLite calls it.
    unsafe { answer(context, count, arguments, b",", b"") }
}

/// The arguments as members of an object, between `open` and `close`; nothing between them, and no `open` of a part, where
/// all are left out.
///
/// # Safety
/// The three are what SQLite calls a function with.
unsafe fn answer(context: *mut ffi::sqlite3_context, count: c_int, arguments: *mut *mut ffi::sqlite3_value, open: &[u8], close: &[u8]) {
    // SAFETY: there are `count` arguments, each valid while the function runs; SQLite copies the result.
    unsafe {
        let longest = ffi::sqlite3_limit(ffi::sqlite3_context_db_handle(context), ffi::SQLITE_LIMIT_LENGTH, -1) as usize;
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(open);
        let empty = out.len();
        for at in (1..usize::try_from(count).unwrap_or(0)).step_by(2) {
            let Some(ValueRef::Text([letter, name @ ..])) = value(*arguments.add(at - 1)) else { continue };
            let Some((writing, stripped)) = Writing::of(*letter) else { continue };
            let start = out.len();
            if start > empty {
                out.push(b',');
            }
            out.extend_from_slice(name);
            let begins = out.len();
            let Some(value) = value(*arguments.add(at)) else { return ffi::sqlite3_result_error_nomem(context) };
            if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = value
                && begins + bytes.len() > longest
            {
                return ffi::sqlite3_result_error_toobig(context);
            }
            writing.write(value, &mut out);
            if out.len() > longest {
                return ffi::sqlite3_result_error_toobig(context);
            }
            if stripped && out[begins..] == *b"null" {
                out.truncate(start);
            }
        }
        if close.is_empty() && out.len() == empty {
            out.clear();
        }
        out.extend_from_slice(close);
        ffi::sqlite3_result_text64(context, out.as_ptr().cast(), out.len() as u64, ffi::SQLITE_TRANSIENT(), ffi::SQLITE_UTF8 as u8);
    }
}

/// One argument; `None` where there was no memory for it.
///
/// # Safety
/// `value` is an argument of the function that runs.
unsafe fn value<'a>(value: *mut ffi::sqlite3_value) -> Option<ValueRef<'a>> {
    // SAFETY: each is asked for what it is.
    unsafe {
        Some(match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => ValueRef::Text(bytes(value, false)?),
            ffi::SQLITE_BLOB => ValueRef::Blob(bytes(value, true)?),
            _ => ValueRef::Null,
        })
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use rusqlite::limits::Limit;

    fn asked(conn: &Connection, sql: &str) -> rusqlite::Result<String> {
        conn.query_row(&format!("SELECT {sql}"), [], |row| row.get(0))
    }

    fn conn() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        super::super::install(&conn).unwrap();
        conn
    }

    #[test]
    fn an_object_is_written_at_once_or_in_parts() {
        let conn = conn();
        let written = |sql: &str| asked(&conn, sql).unwrap();
        let members = r#"'v"a":', 'x', 'b"b":', 1, 'j"c":', '[1]', 'v"d":', NULL"#;
        assert_eq!(written(&format!("tenantry_object({members})")), r#"{"a":"x","b":true,"c":[1],"d":null}"#);
        assert_eq!(written(&format!("tenantry_members({members})")), r#","a":"x","b":true,"c":[1],"d":null"#);
        let stripped = r#"'V"a":', NULL, 'J"b":', 'null', 'B"c":', 0"#;
        assert_eq!(written(&format!("tenantry_object({stripped})")), r#"{"c":false}"#);
        assert_eq!(written(r#"tenantry_members('V"a":', NULL)"#), "");
        assert_eq!(written(r#"tenantry_object('V"a":', NULL)"#), "{}");
        // Whatever a tenant's own SQL gives it.
        assert_eq!(written("tenantry_object()||tenantry_object(1)||tenantry_object(NULL,1,'',2,'?',3,x'00',4)"), "{}{}{}");
    }

    #[test]
    fn it_is_no_longer_than_a_value_may_be() {
        let conn = conn();
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, 10_000).unwrap();
        let object = |values: usize| {
            let members = vec!["'va', v"; values].join(",");
            asked(&conn, &format!("tenantry_object({members}) FROM (SELECT replace(hex(zeroblob(500)), '0', char(1)) AS v)"))
        };
        // Each character becomes six.
        assert_eq!(object(1).unwrap().len(), 6_000 + 5);
        assert_eq!(object(2).unwrap_err().sqlite_error_code(), Some(rusqlite::ErrorCode::TooBig));
    }

    #[test]
    fn a_text_of_any_bytes_leaves_it_json() {
        let written = asked(&conn(), r#"tenantry_object('j"a":', CAST(x'22ff22' AS TEXT), 'v"b":', CAST(x'ff' AS TEXT))"#).unwrap();
        assert_eq!(written, "{\"a\":\"\u{fffd}\",\"b\":\"\u{fffd}\"}");
    }

    #[test]
    fn a_schema_cannot_stand_on_it() {
        let conn = conn();
        conn.execute_batch("CREATE TABLE t(a)").unwrap();
        assert!(conn.execute_batch("CREATE INDEX i ON t(tenantry_object('va', a))").is_err());
    }
}

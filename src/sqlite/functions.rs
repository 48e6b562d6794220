//! The SQL functions of a tenant's connection that are ours: those of [`rows`], and
//! `instr` and `replace` in time that grows with their arguments' lengths. SQLite's own compare the needle at every
//! place of the haystack, which for two long strings takes minutes in a single step of the virtual machine, and
//! nothing can stop a step. These give the same answers.

mod rows;

pub use rows::Writing;

use std::ffi::{c_int, c_void};
use std::slice;

use memchr::memmem::Finder;
use rusqlite::{Connection, ffi};

/// Adds ours, and puts the two in the place of SQLite's own.
pub fn install(conn: &Connection) -> rusqlite::Result<()> {
    type Function = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);
    let functions: [(&std::ffi::CStr, c_int, Function); 2] = [(c"instr", 2, instr), (c"replace", 3, replace)];
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
    for (name, arguments, function) in functions {
        // SAFETY: the handle is the open connection's, the name ends with NUL, and the function keeps nothing.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                conn.handle(),
                name.as_ptr(),
                arguments,
                flags,
                std::ptr::null_mut(),
                Some(function),
                None,
                None,
                None,
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
    }
    rows::install(conn)
}

/// One argument's bytes, as text unless `as_blob`; valid until the argument is looked at otherwise.
///
/// # Safety
/// `value` is an argument of the function that runs.
unsafe fn bytes<'a>(value: *mut ffi::sqlite3_value, as_blob: bool) -> Option<&'a [u8]> {
    // SAFETY: the length is asked for after the conversion, as SQLite wants it.
    unsafe {
        let start: *const c_void = if as_blob { ffi::sqlite3_value_blob(value) } else { ffi::sqlite3_value_text(value).cast() };
        let length = usize::try_from(ffi::sqlite3_value_bytes(value)).ok()?;
        match (start.is_null(), length) {
            (true, 0) if as_blob => Some(&[]),
            (true, _) => None,
            (false, length) => Some(slice::from_raw_parts(start.cast(), length)),
        }
    }
}

/// The place of the second in the first, from 1, in characters, or in bytes if both are blobs; 0 if it is not there.
unsafe extern "C" fn instr(context: *mut ffi::sqlite3_context, _: c_int, arguments: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite passes two valid arguments.
    unsafe {
        let (haystack, needle) = (*arguments, *arguments.add(1));
        let kinds = (ffi::sqlite3_value_type(haystack), ffi::sqlite3_value_type(needle));
        if kinds.0 == ffi::SQLITE_NULL || kinds.1 == ffi::SQLITE_NULL {
            return;
        }
        let blobs = kinds == (ffi::SQLITE_BLOB, ffi::SQLITE_BLOB);
        let (Some(needle), Some(haystack)) = (bytes(needle, blobs), bytes(haystack, blobs)) else {
            return ffi::sqlite3_result_error_nomem(context);
        };
        let found = Finder::new(needle).find(haystack).map_or(0, |at| 1 + if blobs { at } else { characters(&haystack[..at]) });
        ffi::sqlite3_result_int64(context, found as i64);
    }
}

/// Bytes that do not continue a character.
fn characters(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

/// The first with every place of the second replaced by the third.
unsafe extern "C" fn replace(context: *mut ffi::sqlite3_context, _: c_int, arguments: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite passes three valid arguments, and copies the result.
    unsafe {
        let (text, from, to) = (*arguments, *arguments.add(1), *arguments.add(2));
        let is_null = |value| ffi::sqlite3_value_type(value) == ffi::SQLITE_NULL;
        if is_null(text) || is_null(from) {
            return;
        }
        let (Some(from), Some(whole)) = (bytes(from, false), bytes(text, false)) else { return ffi::sqlite3_result_error_nomem(context) };
        let answer = |text: &[u8]| {
            ffi::sqlite3_result_text64(context, text.as_ptr().cast(), text.len() as u64, ffi::SQLITE_TRANSIENT(), ffi::SQLITE_UTF8 as u8);
        };
        // As SQLite has it: nothing to look for, or what begins with a NUL.
        if from.first().is_none_or(|&first| first == 0) {
            return answer(whole);
        }
        if is_null(to) {
            return;
        }
        let Some(to) = bytes(to, false) else { return ffi::sqlite3_result_error_nomem(context) };
        let longest = ffi::sqlite3_limit(ffi::sqlite3_context_db_handle(context), ffi::SQLITE_LIMIT_LENGTH, -1) as usize;
        let mut replaced = Vec::with_capacity(whole.len());
        let mut rest = 0;
        for at in Finder::new(from).find_iter(whole) {
            replaced.extend_from_slice(&whole[rest..at]);
            replaced.extend_from_slice(to);
            rest = at + from.len();
            if replaced.len() > longest {
                return ffi::sqlite3_result_error_toobig(context);
            }
        }
        replaced.extend_from_slice(&whole[rest..]);
        answer(&replaced);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            (-20_i64..200).prop_map(Value::Integer),
            (-2.0_f64..20.0).prop_map(Value::Real),
            "[abé€]{0,6}".prop_map(Value::Text),
            "[ab]{0,2}".prop_map(Value::Text),
            proptest::collection::vec(97_u8..99, 0..6).prop_map(Value::Blob),
            proptest::collection::vec(prop::sample::select(vec![0, 1, 97, 127]), 0..4).prop_map(Value::Blob),
            "[\0ab]{0,3}".prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn the_answers_are_sqlites(a in value(), b in value(), c in value()) {
            let ours = Connection::open_in_memory().unwrap();
            install(&ours).unwrap();
            let theirs = Connection::open_in_memory().unwrap();
            let ask = |conn: &Connection| {
                conn.query_row("SELECT instr(?1, ?2), replace(?1, ?2, ?3)", (&a, &b, &c), |row| Ok((row.get::<_, Value>(0)?, row.get::<_, Value>(1)?)))
            };
            prop_assert_eq!(ask(&ours).unwrap(), ask(&theirs).unwrap());
        }
    }

    #[test]
    fn a_long_needle_in_a_long_haystack_is_soon_looked_for() {
        let conn = Connection::open_in_memory().unwrap();
        install(&conn).unwrap();
        let sql = "SELECT instr(zeroblob(4000000), zeroblob(2000000) || x'01'), length(replace(hex(zeroblob(1000000)), hex(zeroblob(500000)) || '1', ''))";
        let found: (i64, i64) = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(found, (0, 2_000_000));
        // With SQLite's own this test would not be over within any build's time.
    }
}

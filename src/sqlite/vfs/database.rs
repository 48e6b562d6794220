//! One connection's hold of a database file: what SQLite calls to read and write it, to lock it, and to use its log's index.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};

use rusqlite::ffi;

use super::calls;
use super::index::{self, Held, Index};
use super::log::Pending;
use super::node::{Node, UNLOCKED};
use super::{answer, characteristics, sector_size};

struct Database {
    node: Arc<Node>,
    /// SQLite's number for how far its lock on the file goes.
    level: c_int,
    /// It has the index, and of its slots so many.
    indexed: bool,
    held: Held,
    /// Of its log.
    pending: Pending,
}

/// The index's slot of whoever writes the log.
const WRITE: usize = 0;

#[repr(C)]
pub struct File {
    methods: *const ffi::sqlite3_io_methods,
    database: *mut Database,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map),
    xShmLock: Some(lock_slots),
    xShmBarrier: Some(barrier),
    xShmUnmap: Some(unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Opens a database file. Returns the flags that it is open with.
///
/// # Safety
/// `file` has room for a [`File`].
pub unsafe fn open(path: &CStr, file: *mut File, flags: c_int) -> Result<c_int, calls::Code> {
    let write = flags & ffi::SQLITE_OPEN_READWRITE != 0;
    let node = Node::enter(path, flags & ffi::SQLITE_OPEN_CREATE != 0, write)?;
    let reads_only = write && !node.writable;
    let database = Database { node, level: UNLOCKED, indexed: false, held: Held::default(), pending: Pending::default() };
    // SAFETY: the caller's promise.
    unsafe { file.write(File { methods: &raw const METHODS, database: Box::into_raw(Box::new(database)) }) };
    let writing = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
    Ok(if reads_only { flags & !writing | ffi::SQLITE_OPEN_READONLY } else { flags })
}

/// The node of a database file, if it is one of ours.
///
/// # Safety
/// `file` is null or open, and stays so for `'a`.
pub unsafe fn node<'a>(file: *mut ffi::sqlite3_file) -> Option<&'a Node> {
    // SAFETY: the caller's promise.
    unsafe { file.as_ref().filter(|file| ptr::eq(file.pMethods, &raw const METHODS)).map(|_| &*this(file).node) }
}

/// What its connection has not written of its log.
///
/// # Safety
/// `file` is one of ours, open, and used by one thread at a time.
pub unsafe fn pending<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Pending {
    // SAFETY: the caller's promise.
    unsafe { &mut this(file).pending }
}

/// # Safety
/// `file` is one of ours, open, and used by one thread at a time.
unsafe fn this<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Database {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*file.cast::<File>()).database }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite's own argument, closed once.
    let mut database = unsafe { Box::from_raw(this(file)) };
    // SAFETY: still its argument.
    unsafe { (*file).pMethods = ptr::null() };
    if database.indexed {
        Index::leave(&database.node, &mut database.held, false);
    }
    let unlocked = database.node.unlock(&mut database.level, UNLOCKED);
    database.node.leave();
    answer(unlocked)
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: SQLite's own arguments: room for so many bytes.
    unsafe { answer(calls::read(this(file).node.fd(), std::slice::from_raw_parts_mut(into.cast(), bytes.unsigned_abs() as usize), at)) }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: SQLite's own arguments: so many bytes.
    let (node, from) = unsafe { (&this(file).node, std::slice::from_raw_parts(from.cast::<u8>(), bytes.unsigned_abs() as usize)) };
    let outcome = calls::write(node.fd(), from, at);
    let end = at.saturating_add(bytes.into());
    // Also of a write that failed: it may have made the file longer.
    let _ = node.bytes.fetch_update(SeqCst, SeqCst, |known| match outcome {
        Ok(()) => (known >= 0).then(|| known.max(end)),
        Err(_) => Some(-1),
    });
    answer(outcome)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: i64) -> c_int {
    // SAFETY: SQLite's own argument.
    let node = unsafe { &this(file).node };
    let outcome = calls::truncate(node.fd(), bytes);
    let _ = node.bytes.fetch_update(SeqCst, SeqCst, |known| (known >= 0).then_some(if outcome.is_ok() { bytes } else { -1 }));
    answer(outcome)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite's own argument.
    answer(calls::sync(unsafe { &this(file).node }.fd()))
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe {
        let node = &this(file).node;
        let bytes = index::known_bytes(node).map_or_else(|| calls::size(node.fd()), Ok);
        answer(bytes.map(|bytes| *out = bytes))
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: SQLite's own argument.
    let database = unsafe { this(file) };
    answer(database.node.lock(&mut database.level, to))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: SQLite's own argument.
    let database = unsafe { this(file) };
    answer(database.node.unlock(&mut database.level, to))
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe { answer(this(file).node.is_reserved().map(|reserved| *out = reserved.into())) }
}

unsafe extern "C" fn control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    if what != ffi::SQLITE_FCNTL_HAS_MOVED {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: SQLite's own arguments: this question's answer is an integer.
    unsafe { *argument.cast::<c_int>() = this(file).node.has_moved().into() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn map(file: *mut ffi::sqlite3_file, region: c_int, _: c_int, make: c_int, out: *mut *mut c_void) -> c_int {
    // SAFETY: SQLite's own arguments; it is always asked for regions of the same size.
    unsafe {
        *out = ptr::null_mut();
        let database = this(file);
        if !database.indexed {
            if let Err(code) = Index::enter(&database.node) {
                return code;
            }
            database.indexed = true;
        }
        let mut locks = database.node.locks();
        let Some(index) = &mut locks.index else { return ffi::SQLITE_IOERR_SHMMAP };
        answer(index.map(region.unsigned_abs() as usize, make != 0).map(|at| *out = at))
    }
}

unsafe extern "C" fn lock_slots(file: *mut ffi::sqlite3_file, slot: c_int, n: c_int, how: c_int) -> c_int {
    // SAFETY: SQLite's own argument.
    let database = unsafe { this(file) };
    let (slot, n) = (slot.unsigned_abs() as usize, n.unsigned_abs() as usize);
    let mut locks = database.node.locks();
    let Some(index) = locks.index.as_mut().filter(|_| database.indexed) else { return ffi::SQLITE_IOERR_SHMLOCK };
    answer(if how & ffi::SQLITE_SHM_UNLOCK != 0 {
        if slot == WRITE {
            database.pending.forget();
        }
        index.unlock(&mut database.held, slot, n)
    } else {
        index.lock(&mut database.held, slot, n, how & ffi::SQLITE_SHM_EXCLUSIVE != 0)
    })
}

unsafe extern "C" fn barrier(_: *mut ffi::sqlite3_file) {
    fence(SeqCst);
}

unsafe extern "C" fn unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite's own argument.
    let database = unsafe { this(file) };
    if std::mem::take(&mut database.indexed) {
        Index::leave(&database.node, &mut database.held, delete != 0);
    }
    ffi::SQLITE_OK
}

//! A [`Log`] is one connection's hold of a write-ahead log. SQLite writes a frame as a header and a page, and a commit as
//! some frames, of which the last one's header says so. They are kept together ([`Pending`]) and written in one call when
//! the commit is whole, so before SQLite tells anybody of it. What is pending is written before anything else is done with the
//! log, and forgotten when its transaction comes to nothing: SQLite writes what comes in its place, a write fails, or
//! the connection lets go of the right to write.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_int, c_void};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rusqlite::ffi;

use super::calls::{self, Code};
use super::node::lock;
use super::{answer, characteristics, database, no_control, no_lock, no_reserved_lock, sector_size};

/// Of a frame's header, in bytes; where in it a commit has the size of the database (SQLite's file format, "The WAL File
/// Format").
const FRAME: usize = 24;
const COMMITS: std::ops::Range<usize> = 4..8;

/// Of the log's own header.
const HEADER: usize = 32;

/// What is kept together at most, in bytes. A larger commit is written in parts of about this size.
const PENDING: usize = 256 << 10;

/// What a thread keeps of the memory for it.
const SPARE: usize = 64 << 10;

thread_local! {
    /// Of the thread and not of each log: thousands are open, and few threads write.
    static MEMORY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What all connections to a log have of it.
pub struct Shared {
    file: OwnedFd,
    path: CString,
    /// Its entry in the folder is on the disk.
    entered: AtomicBool,
}

/// The frames of a transaction that are not written yet.
pub struct Pending {
    /// Frames one behind the other, from `at` on; the last one may lack its page.
    frames: Vec<u8>,
    at: i64,
    /// The last one lacks its page.
    half: bool,
    /// The last one ends a commit.
    commits: bool,
    /// Behind all frames that this connection has written: what it writes there is a new one. What it writes before may be
    /// an old one's header alone, with a checksum that was reckoned anew.
    next: i64,
}

struct Log {
    shared: Arc<Shared>,
    /// The connection's database file, which is open for longer.
    database: *mut ffi::sqlite3_file,
}

#[repr(C)]
pub struct File {
    methods: *const ffi::sqlite3_io_methods,
    log: *mut Log,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(no_lock),
    xUnlock: Some(no_lock),
    xCheckReservedLock: Some(no_reserved_lock),
    xFileControl: Some(no_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Opens the log of a database file, whose path it is. Returns the flags that it is open with.
///
/// # Safety
/// `database` is null or open, and stays so for longer than the log; `file` has room for a [`File`].
pub unsafe fn open(database: *mut ffi::sqlite3_file, path: &CStr, file: *mut File, flags: c_int) -> Result<c_int, Code> {
    // SAFETY: the caller's promise.
    let node = unsafe { database::node(database) }.ok_or(ffi::SQLITE_CANTOPEN)?;
    let mut known = lock(&node.log);
    let shared = match known.upgrade() {
        Some(shared) => shared,
        None => {
            let create = if flags & ffi::SQLITE_OPEN_CREATE != 0 { libc::O_CREAT } else { 0 };
            let opened = calls::open(path, libc::O_RDWR | create, node.found.st_mode & 0o777).map_err(|_| ffi::SQLITE_CANTOPEN)?;
            calls::give(opened.as_fd(), &node.found);
            let shared = Arc::new(Shared { file: opened, path: path.to_owned(), entered: AtomicBool::new(create == 0) });
            *known = Arc::downgrade(&shared);
            shared
        }
    };
    // SAFETY: the caller's promise.
    unsafe { file.write(File { methods: &raw const METHODS, log: Box::into_raw(Box::new(Log { shared, database })) }) };
    Ok(flags)
}

impl Default for Pending {
    fn default() -> Pending {
        Pending { frames: Vec::new(), at: 0, half: false, commits: false, next: -1 }
    }
}

impl Pending {
    /// Its transaction has come to nothing.
    pub fn forget(&mut self) {
        if !self.frames.is_empty() {
            self.keep_memory();
        }
    }

    fn keep_memory(&mut self) {
        let mut memory = std::mem::take(&mut self.frames);
        memory.clear();
        memory.shrink_to(SPARE);
        MEMORY.set(memory);
        self.half = false;
    }

    fn end(&self) -> i64 {
        self.at.saturating_add_unsigned(self.frames.len() as u64)
    }

    fn write(&mut self, file: BorrowedFd<'_>, bytes: &[u8], at: i64) -> Result<(), Code> {
        self.take(file, bytes, at).inspect_err(|_| self.forget())
    }

    fn take(&mut self, file: BorrowedFd<'_>, bytes: &[u8], at: i64) -> Result<(), Code> {
        let end = at.saturating_add_unsigned(bytes.len() as u64);
        if (bytes.len() == FRAME || bytes.len() == HEADER) && at < self.end() {
            // What was there is no more part of the log.
            self.frames.truncate(usize::try_from(at.saturating_sub(self.at)).unwrap_or(0));
            self.half = false;
        }
        if bytes.len() == FRAME && !self.half && at == self.next && (self.frames.is_empty() || at == self.end()) {
            if self.frames.is_empty() {
                self.frames = MEMORY.take();
                self.at = at;
            }
            self.frames.extend_from_slice(bytes);
            self.half = true;
            self.commits = bytes.get(COMMITS).is_some_and(|pages| pages != [0; 4]);
            return Ok(());
        }
        if self.half && at == self.end() {
            self.frames.extend_from_slice(bytes);
            self.half = false;
            self.next = end;
            return if self.commits || self.frames.len() >= PENDING { self.settle(file) } else { Ok(()) };
        }
        self.settle(file)?;
        calls::write(file, bytes, at)?;
        match bytes.len() {
            FRAME => {}
            // The log begins anew.
            HEADER => self.next = end,
            _ => self.next = self.next.max(end),
        }
        Ok(())
    }

    /// Writes what is pending.
    fn settle(&mut self, file: BorrowedFd<'_>) -> Result<(), Code> {
        if !self.frames.is_empty() {
            calls::write(file, &self.frames, self.at)?;
            self.keep_memory();
        }
        Ok(())
    }
}

impl Log {
    fn file(&self) -> BorrowedFd<'_> {
        self.shared.file.as_fd()
    }

    /// # Safety
    /// The connection's database file is open, and used by this thread only.
    unsafe fn pending<'a>(&self) -> &'a mut Pending {
        // SAFETY: the caller's promise.
        unsafe { database::pending(self.database) }
    }

    /// # Safety
    /// As for [`Log::pending`].
    unsafe fn sync(&self) -> Result<(), Code> {
        // SAFETY: the caller's promise.
        unsafe { self.pending() }.settle(self.file())?;
        calls::sync(self.file())?;
        if !self.shared.entered.load(Relaxed) {
            calls::sync_folder(&self.shared.path)?;
            self.shared.entered.store(true, Relaxed);
        }
        Ok(())
    }
}

/// # Safety
/// `file` is one of ours, open, and used by one thread at a time.
unsafe fn of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Log {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*file.cast::<File>()).log }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite's own argument, closed once, and before the database file.
    unsafe {
        let log = Box::from_raw(of(file));
        (*file).pMethods = ptr::null();
        // Of a commit nothing is pending.
        *log.pending() = Pending::default();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: SQLite's own arguments: room for so many bytes.
    unsafe {
        let log = of(file);
        let into = std::slice::from_raw_parts_mut(into.cast::<u8>(), bytes.unsigned_abs() as usize);
        answer(log.pending().settle(log.file()).and_then(|()| calls::read(log.file(), into, at)))
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: SQLite's own arguments: so many bytes.
    unsafe {
        let (log, from) = (of(file), std::slice::from_raw_parts(from.cast::<u8>(), bytes.unsigned_abs() as usize));
        answer(log.pending().write(log.file(), from, at))
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: i64) -> c_int {
    // SAFETY: SQLite's own argument.
    unsafe {
        let log = of(file);
        log.pending().next = -1;
        answer(log.pending().settle(log.file()).and_then(|()| calls::truncate(log.file(), bytes)))
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite's own argument.
    unsafe { answer(of(file).sync()) }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: SQLite's own arguments.
    unsafe {
        let log = of(file);
        answer(log.pending().settle(log.file()).and_then(|()| calls::size(log.file())).map(|bytes| *out = bytes))
    }
}

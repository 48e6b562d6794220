//! The [`Vfs`](install) is how SQLite reaches its files: database files and their logs through us, all else (temporary
//! files, journals) through SQLite's own. All connections of this process to one file share a [`Node`]: its descriptors,
//! its locks, its log's index. What always holds:
//!
//! - Files are SQLite's, and so are their locks: another process may open a file that we have open (`sqlite3 FILE`), and
//!   neither harms the other. As long as nobody does, a transaction takes no lock of the system's: the connections of one
//!   process need only what is in its memory ([`index`]).
//! - No descriptor of a file is closed while the process has the file open by another: closing one drops every lock that
//!   the process has on it. So a database file must not be opened beside SQLite, and this is SQLite's default VFS.
//! - What a commit appends to the log is written in one call ([`log`]), before SQLite hears that it is written.

mod calls;
mod database;
mod index;
mod log;
mod node;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::Once;

use rusqlite::ffi;

use calls::Code;
#[cfg(test)]
pub(super) use calls::FailingWrites;

/// Gives way to other processes that want a file, some files at a time. To be called twice a second, where it may wait for a disk.
/// So long another process waits for its first look into an open file, or longer where many thousand are open (SQLite waits up to ten seconds).
pub fn give_way() {
    node::attend();
}

/// Whether this process has the file open: then nobody but SQLite may open and close it, which would drop its locks.
pub fn is_open(path: &Path) -> bool {
    CString::new(path.as_os_str().as_bytes()).is_ok_and(|path| node::is_open(&path))
}

/// Makes it SQLite's default. Before the first file is opened.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: SQLite's own default, which lives as long as the process.
        let own = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        let Some(theirs) = (unsafe { own.as_ref() }) else { return };
        let file = size_of::<database::File>().max(size_of::<log::File>());
        let ours = ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: theirs.szOsFile.max(c_int::try_from(file).unwrap_or(c_int::MAX)),
            pNext: ptr::null_mut(),
            zName: c"tenantry".as_ptr(),
            pAppData: own.cast(),
            xOpen: Some(open),
            xFullPathname: Some(full_pathname),
            xDelete: Some(delete),
            xAccess: Some(access),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
            // None of these looks at the VFS that it is given.
            ..*theirs
        };
        // SAFETY: it is leaked, so it lives as long as the process.
        unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) };
    });
}

/// SQLite's own, which was the default before.
///
/// # Safety
/// `vfs` is ours.
unsafe fn own(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: it was put there when ours was made.
    unsafe { (*vfs).pAppData.cast() }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    opened: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's own arguments: a name that ends with a zero or is none, and room for a file of `szOsFile` bytes. A
    // file without methods is not closed.
    unsafe {
        (*file).pMethods = ptr::null();
        let outcome = if !name.is_null() && flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            database::open(CStr::from_ptr(name), file.cast(), flags)
        } else if !name.is_null() && flags & ffi::SQLITE_OPEN_WAL != 0 {
            log::open(ffi::sqlite3_database_file_object(name), CStr::from_ptr(name), file.cast(), flags)
        } else {
            let own = own(vfs);
            return (*own).xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(own, name, file, flags, opened));
        };
        match outcome {
            Ok(flags) if !opened.is_null() => *opened = flags,
            Ok(_) => {}
            Err(code) => return code,
        }
    }
    ffi::SQLITE_OK
}

/// Folders above a file that may not be links: those that a tenant's id makes. Further up is who set up the server.
const FOLDERS: usize = 2;

/// An absolute path is taken as it is, if no link is near its end. SQLite's own looks at each of its folders, with a call for each.
/// Whether the file itself is a link is asked when it is opened.
unsafe extern "C" fn full_pathname(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite's own arguments: a name that ends with a zero, and `room` bytes for another.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        let theirs = || {
            let own = own(vfs);
            (*own).xFullPathname.map_or(ffi::SQLITE_CANTOPEN, |full| full(own, name, room, out))
        };
        if bytes.first() != Some(&b'/') {
            return theirs();
        }
        let mut folder = bytes;
        for _ in 0..FOLDERS {
            folder = folder.get(..folder.iter().rposition(|&byte| byte == b'/').unwrap_or(0)).unwrap_or_default();
            if calls::is_link(folder) {
                return theirs();
            }
        }
        if usize::try_from(room).is_ok_and(|room| bytes.len() <= room) {
            ptr::copy_nonoverlapping(name, out, bytes.len());
            return ffi::SQLITE_OK;
        }
    }
    ffi::SQLITE_CANTOPEN
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite's own arguments, passed on.
    unsafe {
        let own = own(vfs);
        (*own).xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| delete(own, name, sync_folder))
    }
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, what: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's own arguments, passed on.
    unsafe {
        let own = own(vfs);
        (*own).xAccess.map_or(ffi::SQLITE_IOERR_ACCESS, |access| access(own, name, what, out))
    }
}

/// What a method answers SQLite.
fn answer(outcome: Result<(), Code>) -> c_int {
    outcome.err().unwrap_or(ffi::SQLITE_OK)
}

/// What there is to know of the storage: as SQLite's own VFS says it.
const SECTOR: c_int = 4096;
const CHARACTERISTICS: c_int = ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SUBPAGE_READ;

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR
}

unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    CHARACTERISTICS
}

unsafe extern "C" fn no_lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn no_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's own argument.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn no_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

#[cfg(test)]
mod tests;

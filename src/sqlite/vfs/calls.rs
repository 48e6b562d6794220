//! System calls on files, with what SQLite calls their failures. They go through the C library, where tests step between.

use std::ffi::{CStr, OsStr, c_int, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rusqlite::ffi;

/// A result code of SQLite's.
pub type Code = c_int;

/// A kind of lock: to share, to have alone, none.
pub const SHARE: c_int = libc::F_RDLCK;
pub const ALONE: c_int = libc::F_WRLCK;
pub const NONE: c_int = libc::F_UNLCK;

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Calls again what a signal interrupted.
fn retry<T: PartialOrd + Default>(mut call: impl FnMut() -> T) -> Result<T, c_int> {
    loop {
        let outcome = call();
        if outcome >= T::default() {
            return Ok(outcome);
        }
        let errno = errno();
        if errno != libc::EINTR {
            return Err(errno);
        }
    }
}

/// Opens a file and never follows a link to it. Errors: errno.
pub fn open(path: &CStr, flags: c_int, mode: libc::mode_t) -> Result<OwnedFd, c_int> {
    // SAFETY: the path ends with a zero; the descriptor is new and nobody else's.
    retry(|| unsafe { libc::open(path.as_ptr(), flags | libc::O_NOFOLLOW | libc::O_CLOEXEC, mode as libc::c_uint) })
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is under a path, links not followed. Errors: errno.
pub fn look(path: &CStr) -> Result<libc::stat, c_int> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: the path ends with a zero; the call fills in what it succeeds with.
    retry(|| unsafe { libc::lstat(path.as_ptr(), found.as_mut_ptr()) }).map(|_| unsafe { found.assume_init() })
}

/// Whether it is there, and a link.
pub fn is_link(path: &[u8]) -> bool {
    std::fs::symlink_metadata(OsStr::from_bytes(path)).is_ok_and(|found| found.file_type().is_symlink())
}

/// Errors: errno.
pub fn stat(file: BorrowedFd<'_>) -> Result<libc::stat, c_int> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: the descriptor is open; the call fills in what it succeeds with.
    retry(|| unsafe { libc::fstat(file.as_raw_fd(), found.as_mut_ptr()) }).map(|_| unsafe { found.assume_init() })
}

/// In bytes.
pub fn size(file: BorrowedFd<'_>) -> Result<i64, Code> {
    stat(file).map(|found| found.st_size).map_err(|_| ffi::SQLITE_IOERR_FSTAT)
}

/// Fills `into`, with zeros past the end of the file, which is `SQLITE_IOERR_SHORT_READ`.
pub fn read(file: BorrowedFd<'_>, into: &mut [u8], at: i64) -> Result<(), Code> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let from = at.saturating_add_unsigned(done as u64);
        // SAFETY: the descriptor is open, and there is room for as much.
        match retry(|| unsafe { libc::pread64(file.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), from) }) {
            Ok(0) => {
                rest.fill(0);
                return Err(ffi::SQLITE_IOERR_SHORT_READ);
            }
            Ok(got) => done += got.unsigned_abs(),
            Err(libc::ERANGE | libc::EIO | libc::ENXIO) => return Err(ffi::SQLITE_IOERR_CORRUPTFS),
            Err(_) => return Err(ffi::SQLITE_IOERR_READ),
        }
    }
    Ok(())
}

pub fn write(file: BorrowedFd<'_>, from: &[u8], at: i64) -> Result<(), Code> {
    #[cfg(test)]
    if FailingWrites::are_to(file) {
        return Err(ffi::SQLITE_IOERR_WRITE);
    }
    let mut done = 0;
    while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
        let to = at.saturating_add_unsigned(done as u64);
        // SAFETY: the descriptor is open, and there is as much to read.
        match retry(|| unsafe { libc::pwrite64(file.as_raw_fd(), rest.as_ptr().cast(), rest.len(), to) }) {
            Ok(0) | Err(libc::ENOSPC) => return Err(ffi::SQLITE_FULL),
            Ok(written) => done += written.unsigned_abs(),
            Err(_) => return Err(ffi::SQLITE_IOERR_WRITE),
        }
    }
    Ok(())
}

pub fn truncate(file: BorrowedFd<'_>, bytes: i64) -> Result<(), Code> {
    // SAFETY: the descriptor is open.
    retry(|| unsafe { libc::ftruncate64(file.as_raw_fd(), bytes) }).map(drop).map_err(|_| ffi::SQLITE_IOERR_TRUNCATE)
}

/// Flushes the file's content and its size.
pub fn sync(file: BorrowedFd<'_>) -> Result<(), Code> {
    // SAFETY: the descriptor is open. Not called again when interrupted: what failed may not be tried again.
    if unsafe { libc::fdatasync(file.as_raw_fd()) } == 0 { Ok(()) } else { Err(ffi::SQLITE_IOERR_FSYNC) }
}

/// Flushes the entry of a file in its folder, where the file system can.
pub fn sync_folder(path: &CStr) -> Result<(), Code> {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|&byte| byte == b'/').unwrap_or(0).max(1);
    let failed = ffi::SQLITE_IOERR_DIR_FSYNC;
    let folder = bytes.get(..end).and_then(|folder| std::ffi::CString::new(folder).ok()).ok_or(failed)?;
    let folder = open(&folder, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(|_| failed)?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::fsync(folder.as_raw_fd()) } == 0 || errno() == libc::EINVAL { Ok(()) } else { Err(failed) }
}

/// Gives a file made by root to the owner of the database.
pub fn give(file: BorrowedFd<'_>, to: &libc::stat) {
    // SAFETY: no arguments that could be wrong.
    if (to.st_uid, to.st_gid) != (0, 0) && unsafe { libc::geteuid() } == 0 {
        // SAFETY: the descriptor is open. Its failure is nobody's: whoever may open the file still can.
        unsafe { libc::fchown(file.as_raw_fd(), to.st_uid, to.st_gid) };
    }
}

/// Takes the system's lock on so many bytes at once, or gives it back. Errors: `SQLITE_BUSY` if another process has one that
/// does not go with it, else `failed`.
pub fn lock(file: BorrowedFd<'_>, kind: c_int, from: i64, bytes: i64, failed: Code) -> Result<(), Code> {
    let wanted = range(kind, from, bytes);
    // SAFETY: the descriptor is open, the lock described.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const wanted) } == 0 {
        return Ok(());
    }
    match errno() {
        libc::EACCES | libc::EAGAIN | libc::ETIMEDOUT | libc::EBUSY | libc::EINTR | libc::ENOLCK => Err(ffi::SQLITE_BUSY),
        libc::EPERM => Err(ffi::SQLITE_PERM),
        _ => Err(failed),
    }
}

/// The lock that another process has on some of these bytes.
pub fn lock_of_another(file: BorrowedFd<'_>, from: i64, bytes: i64) -> Result<c_int, Code> {
    let mut asked = range(ALONE, from, bytes);
    // SAFETY: the descriptor is open; the call fills in who has a lock.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut asked) } == 0 {
        Ok(c_int::from(asked.l_type))
    } else {
        Err(ffi::SQLITE_IOERR_LOCK)
    }
}

fn range(kind: c_int, from: i64, bytes: i64) -> libc::flock {
    // SAFETY: a struct of integers.
    let mut range: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    range.l_type = kind as c_short;
    range.l_whence = libc::SEEK_SET as c_short;
    (range.l_start, range.l_len) = (from, bytes);
    range
}

/// Makes the file larger with blocks of its own, so that its memory map never meets a full disk.
pub fn allocate(file: BorrowedFd<'_>, from: i64, to: i64) -> Result<(), Code> {
    // SAFETY: the descriptor is open.
    match retry(|| unsafe { libc::fallocate64(file.as_raw_fd(), 0, from, to - from) }) {
        Ok(_) => Ok(()),
        // A file system that cannot: zeros do.
        Err(libc::EOPNOTSUPP | libc::ENOSYS) => {
            write(file, &vec![0; usize::try_from(to - from).unwrap_or(0)], from).map_err(|_| ffi::SQLITE_IOERR_SHMSIZE)
        }
        Err(_) => Err(ffi::SQLITE_IOERR_SHMSIZE),
    }
}

/// While it lives, writes to a file fail as a broken disk does.
#[cfg(test)]
pub struct FailingWrites;

#[cfg(test)]
static FAILING: std::sync::Mutex<Option<std::path::PathBuf>> = std::sync::Mutex::new(None);

#[cfg(test)]
impl FailingWrites {
    pub fn to(path: std::path::PathBuf) -> FailingWrites {
        *FAILING.lock().unwrap() = Some(path);
        FailingWrites
    }

    fn are_to(file: BorrowedFd<'_>) -> bool {
        let failing = FAILING.lock().unwrap();
        failing.as_ref().is_some_and(|path| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).is_ok_and(|of| of == *path))
    }
}

#[cfg(test)]
impl Drop for FailingWrites {
    fn drop(&mut self) {
        *FAILING.lock().unwrap() = None;
    }
}

//! An [`Index`] is what SQLite keeps of a write-ahead log beside it (`-shm`), mapped into memory, and the locks of those who
//! read and write the log. It is *ours* while no other process has it: then locks are numbers in memory. The
//! system's one lock that says so is the one by which SQLite finds out whether it is the first to open an index. Another process
//! that finds it held waits, for up to ten seconds; it has a lock on the database file by then, by which we see it
//! ([`Index::attend`]), take the system's locks for those that are held here, and share.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use rusqlite::ffi;

use super::calls::{self, ALONE, Code, NONE, SHARE};
use super::node::Node;

/// SQLite's unit of the index, in bytes.
const REGION: i64 = 32 << 10;

/// What is zero of an index that nobody has: both copies of its header, and what checkpoints and readers note (SQLite's file
/// format, "The WAL-Index File Format").
const HEADER: usize = 136;

/// Where its locks lie, and the one that everybody holds who has it open.
const FIRST: i64 = 120;
const SLOTS: usize = ffi::SQLITE_SHM_NLOCK as usize;
const OPEN: i64 = FIRST + SLOTS as i64;

/// It stays shared for so long at least: who looks into a file once does so again.
const SHARING: Duration = Duration::from_secs(5);

pub struct Index {
    path: CString,
    file: OwnedFd,
    /// Each of [`step`] bytes, one behind the other.
    maps: Vec<Map>,
    connections: usize,
    /// Since when others have it, too.
    shared_since: Option<Instant>,
    readers: [u32; SLOTS],
    /// One bit for each slot that somebody has alone.
    alone: u8,
}

/// What one connection holds, a bit for each slot.
#[derive(Default)]
pub struct Held {
    shared: u8,
    alone: u8,
}

struct Map(*mut c_void);

// SAFETY: memory that is not any thread's; SQLite says who may touch what of it.
unsafe impl Send for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `Index::map` with this length; whoever had it open has closed it.
        unsafe { libc::munmap(self.0, step() as usize) };
    }
}

/// Bytes of one map: a region, or a page where pages are larger.
fn step() -> i64 {
    // SAFETY: a plain question.
    REGION.max(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
}

impl Index {
    /// For one more connection, opened if it is the first.
    pub fn enter(node: &Node) -> Result<(), Code> {
        let mut locks = node.locks();
        locks.log_is_used();
        if let Some(index) = &mut locks.index {
            index.connections += 1;
            return Ok(());
        }
        let path = CString::new([node.path.to_bytes(), b"-shm"].concat()).map_err(|_| ffi::SQLITE_CANTOPEN)?;
        let file = calls::open(&path, libc::O_RDWR | libc::O_CREAT, node.found.st_mode & 0o777).map_err(|_| ffi::SQLITE_CANTOPEN)?;
        calls::give(file.as_fd(), &node.found);
        let mut index = Index { path, file, maps: Vec::new(), connections: 1, shared_since: None, readers: [0; SLOTS], alone: 0 };
        if !index.is_first()? {
            index.shared_since = Some(Instant::now());
        } else {
            index.forget()?;
            index.is_ours(node);
            // Who may only read the index holds nothing of it but a reader's slot.
            if node.is_wanted() {
                index.share(node).inspect_err(|_| node.bytes.store(-1, SeqCst))?;
            }
        }
        locks.index = Some(index);
        Ok(())
    }

    /// Whether no other process has it open. Then it is ours, and else open here, too.
    fn is_first(&self) -> Result<bool, Code> {
        if self.system(ALONE, OPEN, 1).is_ok() {
            return Ok(true);
        }
        match calls::lock_of_another(self.fd(), OPEN, 1)? {
            // Who shares it has seen it whole. Who has it alone may not have cleared it yet.
            SHARE => self.system(SHARE, OPEN, 1).map(|()| false),
            _ => Err(ffi::SQLITE_BUSY),
        }
    }

    /// Nobody knows what is in it, so it says nothing. Its first page is written and not touched in the map: the system would read
    /// the others as well, and count them all as this process's memory.
    fn forget(&self) -> Result<(), Code> {
        let bytes = calls::size(self.fd()).map_err(|_| ffi::SQLITE_IOERR_SHMOPEN)?;
        if bytes < step() {
            if bytes > 0 {
                calls::truncate(self.fd(), 0).map_err(|_| ffi::SQLITE_IOERR_SHMOPEN)?;
            }
            calls::allocate(self.fd(), 0, step())?;
        }
        calls::write(self.fd(), &[0; HEADER], 0).map_err(|_| ffi::SQLITE_IOERR_SHMSIZE)
    }

    /// One connection has gone, and what it held. With the last one it is closed, and deleted on demand.
    pub fn leave(node: &Node, held: &mut Held, delete: bool) {
        let mut locks = node.locks();
        let Some(index) = &mut locks.index else { return };
        for slot in 0..SLOTS {
            let _ = index.unlock(held, slot, 1);
        }
        index.connections -= 1;
        if index.connections == 0 {
            if delete {
                // SAFETY: the path ends with a zero.
                unsafe { libc::unlink(index.path.as_ptr()) };
            }
            node.bytes.store(-1, SeqCst);
            locks.index = None;
        }
    }

    /// Region number `region`, or null if there is none and it is not to be made.
    pub fn map(&mut self, region: usize, make: bool) -> Result<*mut c_void, Code> {
        let step = step();
        let at = i64::try_from(region).unwrap_or(i64::MAX).saturating_mul(REGION);
        while self.end() <= at {
            let (from, to) = (self.end(), self.end() + step);
            let bytes = calls::size(self.fd()).map_err(|_| ffi::SQLITE_IOERR_SHMSIZE)?;
            if bytes < to {
                if !make {
                    return Ok(ptr::null_mut());
                }
                calls::allocate(self.fd(), bytes.max(from), to)?;
            }
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new map of an open file.
            let map = unsafe { libc::mmap(ptr::null_mut(), step as usize, access, libc::MAP_SHARED, self.file.as_raw_fd(), from) };
            if map == libc::MAP_FAILED {
                return Err(ffi::SQLITE_IOERR_SHMMAP);
            }
            self.maps.push(Map(map));
        }
        let (map, within) = (at / step, at % step);
        let map = self.maps.get(map as usize).ok_or(ffi::SQLITE_IOERR_SHMMAP)?;
        // SAFETY: within the map.
        Ok(unsafe { map.0.cast::<u8>().add(within as usize) }.cast())
    }

    fn end(&self) -> i64 {
        step() * self.maps.len() as i64
    }

    /// Takes `n` slots from `slot` on, one to share or any number alone. Errors: `SQLITE_BUSY`.
    pub fn lock(&mut self, held: &mut Held, slot: usize, n: usize, alone: bool) -> Result<(), Code> {
        let mask = mask(slot, n);
        if self.alone & mask & !held.alone != 0 {
            return Err(ffi::SQLITE_BUSY);
        }
        let Some(readers) = self.readers.get_mut(slot..slot + n) else { return Err(ffi::SQLITE_IOERR_SHMLOCK) };
        let nobody = readers.iter().all(|&readers| readers == 0);
        if alone {
            if !nobody {
                return Err(ffi::SQLITE_BUSY);
            }
            self.system_while_shared(ALONE, slot, n)?;
            self.alone |= mask;
            held.alone |= mask;
        } else if held.shared & mask == 0 {
            if nobody {
                self.system_while_shared(SHARE, slot, n)?;
            }
            if let Some(readers) = self.readers.get_mut(slot) {
                *readers += 1;
            }
            held.shared |= mask;
        }
        Ok(())
    }

    /// Gives back what it has of these slots.
    pub fn unlock(&mut self, held: &mut Held, slot: usize, n: usize) -> Result<(), Code> {
        let mask = mask(slot, n);
        if held.alone & mask != 0 {
            self.system_while_shared(NONE, slot, n)?;
            self.alone &= !mask;
            held.alone &= !mask;
        }
        if held.shared & mask != 0
            && let Some(&readers) = self.readers.get(slot)
        {
            if readers == 1 {
                self.system_while_shared(NONE, slot, n)?;
            }
            if let Some(readers) = self.readers.get_mut(slot) {
                *readers -= 1;
            }
            held.shared &= !mask;
        }
        Ok(())
    }

    /// Whether another process has it.
    pub fn is_shared(&self) -> bool {
        self.shared_since.is_some() && calls::lock_of_another(self.fd(), OPEN, 1) != Ok(NONE)
    }

    /// Shares it with whoever waits for the file; has it alone again when nobody else has it any more.
    pub fn attend(&mut self, node: &Node) {
        match self.shared_since {
            None if node.is_wanted() => {
                if let Err(code) = self.share(node) {
                    tracing::warn!(path = ?node.path, code, "another process is kept waiting for a file");
                }
            }
            // While somebody has something alone, he may be writing the file.
            Some(since) if since.elapsed() >= SHARING && self.alone == 0 && !node.is_wanted() && self.system(ALONE, OPEN, 1).is_ok() => {
                let _ = self.system(NONE, FIRST, SLOTS as i64);
                self.is_ours(node);
            }
            _ => {}
        }
    }

    fn is_ours(&mut self, node: &Node) {
        self.shared_since = None;
        node.bytes.store(calls::size(node.fd()).unwrap_or(-1), SeqCst);
    }

    fn share(&mut self, node: &Node) -> Result<(), Code> {
        // What an attempt left that failed.
        self.system(NONE, FIRST, SLOTS as i64)?;
        for (slot, &readers) in self.readers.iter().enumerate() {
            let at = FIRST + slot as i64;
            if self.alone & mask(slot, 1) != 0 {
                self.system(ALONE, at, 1)?;
            } else if readers > 0 {
                self.system(SHARE, at, 1)?;
            }
        }
        node.bytes.store(-1, SeqCst);
        self.system(SHARE, OPEN, 1)?;
        self.shared_since = Some(Instant::now());
        Ok(())
    }

    fn system_while_shared(&self, kind: c_int, slot: usize, n: usize) -> Result<(), Code> {
        if self.shared_since.is_none() { Ok(()) } else { self.system(kind, FIRST + slot as i64, n as i64) }
    }

    fn system(&self, kind: c_int, from: i64, bytes: i64) -> Result<(), Code> {
        calls::lock(self.fd(), kind, from, bytes, ffi::SQLITE_BUSY)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn mask(slot: usize, n: usize) -> u8 {
    (((1_u16 << n) - 1) << slot) as u8
}

/// The file's bytes, where they are known without asking.
pub fn known_bytes(node: &Node) -> Option<i64> {
    let bytes = node.bytes.load(Relaxed);
    (bytes >= 0).then_some(bytes)
}

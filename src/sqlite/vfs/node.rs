//! A [`Node`] is a database file that this process has open: one descriptor, however many connections, and the locks that SQLite
//! takes on the file itself. In the mode of a write-ahead log that is one, to share, for as long as the file is open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString, c_int};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rusqlite::ffi;

use super::calls::{self, ALONE, Code, NONE, SHARE};
use super::index::Index;
use super::log::Shared;

/// How far a connection's lock on the file goes: SQLite's own numbers.
pub const UNLOCKED: c_int = ffi::SQLITE_LOCK_NONE;
pub const SHARED: c_int = ffi::SQLITE_LOCK_SHARED;
pub const RESERVED: c_int = ffi::SQLITE_LOCK_RESERVED;
pub const PENDING: c_int = ffi::SQLITE_LOCK_PENDING;
pub const EXCLUSIVE: c_int = ffi::SQLITE_LOCK_EXCLUSIVE;

/// Where SQLite's locks lie in a database file, in bytes.
const PENDING_BYTE: i64 = 0x4000_0000;
const RESERVED_BYTE: i64 = PENDING_BYTE + 1;
const SHARED_FIRST: i64 = PENDING_BYTE + 2;
const SHARED_BYTES: i64 = 510;

/// Device and inode.
type Id = (u64, u64);

pub struct Node {
    id: Id,
    pub path: CString,
    pub file: OwnedFd,
    pub writable: bool,
    /// Of the file when it was opened: what stands beside it gets its mode and owner.
    pub found: libc::stat,
    /// Descriptors of the same file that must not be closed before it is.
    spare: Mutex<Vec<OwnedFd>>,
    pub log: Mutex<Weak<Shared>>,
    pub locks: Mutex<Locks>,
    /// The file's bytes while the index is ours; else less than 0, and asked for each time.
    pub bytes: AtomicI64,
}

#[derive(Default)]
pub struct Locks {
    /// The highest that a connection has.
    level: c_int,
    /// Connections that have one.
    holders: u32,
    /// The system's lock to share the file is held. Its log is in use: kept until the file is closed, which gives it back.
    held: bool,
    logged: bool,
    pub index: Option<Index>,
}

/// Nodes by their ids, in as many parts as seldom meet: a part is locked while a file of it is closed.
struct Nodes([Mutex<HashMap<Id, Open>>; 64]);

struct Open {
    node: Arc<Node>,
    connections: usize,
}

impl Nodes {
    fn of(id: Id) -> MutexGuard<'static, HashMap<Id, Open>> {
        let Nodes(parts) = Nodes::all();
        let part = usize::try_from(id.1).unwrap_or(0) % parts.len();
        parts.get(part).map(lock).unwrap_or_else(|| unreachable!("a remainder"))
    }

    fn all() -> &'static Nodes {
        static NODES: OnceLock<Nodes> = OnceLock::new();
        NODES.get_or_init(|| Nodes(std::array::from_fn(|_| Mutex::default())))
    }
}

impl Node {
    /// The node of the file at `path`, opened if this process does not have it open. To be [left](Node::leave).
    pub fn enter(path: &CStr, create: bool, write: bool) -> Result<Arc<Node>, Code> {
        if let Ok(found) = calls::look(path) {
            if found.st_mode & libc::S_IFMT == libc::S_IFLNK {
                return Err(ffi::SQLITE_CANTOPEN_SYMLINK);
            }
            if let Some(open) = Nodes::of(id(&found)).get_mut(&id(&found)) {
                open.connections += 1;
                return Ok(open.node.clone());
            }
        }
        let flags = if write { libc::O_RDWR } else { libc::O_RDONLY } | if create { libc::O_CREAT } else { 0 };
        let (file, writable) = match calls::open(path, flags, 0o644) {
            Ok(file) => (file, write),
            // As SQLite does: what cannot be opened for writing is opened for reading.
            Err(errno) if write && errno != libc::EISDIR => {
                (calls::open(path, libc::O_RDONLY, 0).map_err(|_| ffi::SQLITE_CANTOPEN)?, false)
            }
            Err(_) => return Err(ffi::SQLITE_CANTOPEN),
        };
        let found = calls::stat(file.as_fd()).map_err(|_| ffi::SQLITE_IOERR_FSTAT)?;
        let id = id(&found);
        match Nodes::of(id).entry(id) {
            Entry::Occupied(mut open) => {
                lock(&open.get().node.spare).push(file);
                open.get_mut().connections += 1;
                Ok(open.get().node.clone())
            }
            Entry::Vacant(place) => {
                let node = Arc::new(Node {
                    id,
                    path: path.to_owned(),
                    file,
                    writable,
                    found,
                    spare: Mutex::default(),
                    log: Mutex::default(),
                    locks: Mutex::default(),
                    bytes: AtomicI64::new(-1),
                });
                Ok(place.insert(Open { node, connections: 1 }).node.clone())
            }
        }
    }

    /// One connection has gone. With the last one the file is closed, under the lock that a new one would be entered
    /// under: the locks of a descriptor that is opened meanwhile would go with it.
    pub fn leave(self: Arc<Node>) {
        let mut nodes = Nodes::of(self.id);
        if let Entry::Occupied(mut open) = nodes.entry(self.id) {
            open.get_mut().connections -= 1;
            if open.get().connections == 0 {
                open.remove();
            }
        }
        drop(self);
    }

    pub fn locks(&self) -> MutexGuard<'_, Locks> {
        lock(&self.locks)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether the path names another file by now.
    pub fn has_moved(&self) -> bool {
        calls::look(&self.path).map_or(true, |found| id(&found) != self.id)
    }

    /// Raises a connection's lock from `level`, which it changes, to `to`. Errors: `SQLITE_BUSY`.
    pub fn lock(&self, level: &mut c_int, to: c_int) -> Result<(), Code> {
        if *level >= to {
            return Ok(());
        }
        let mut locks = self.locks();
        if *level != locks.level && (locks.level >= PENDING || to > SHARED) {
            return Err(ffi::SQLITE_BUSY);
        }
        if to == SHARED {
            if !locks.held {
                // Not by way of the pending byte, which keeps the writer of a file without a log from waiting for ever.
                self.system(SHARE, SHARED_FIRST, SHARED_BYTES)?;
                locks.held = true;
            }
            locks.holders += 1;
            locks.level = locks.level.max(SHARED);
            *level = SHARED;
            return Ok(());
        }
        // A file without a log, or one that is to lose it.
        locks.logged = false;
        if to == EXCLUSIVE && *level == RESERVED {
            self.system(ALONE, PENDING_BYTE, 1)?;
            (*level, locks.level) = (PENDING, PENDING);
        }
        if to == EXCLUSIVE && (locks.holders > 1 || locks.index.as_ref().is_some_and(Index::is_shared)) {
            return Err(ffi::SQLITE_BUSY);
        }
        match to {
            RESERVED => self.system(ALONE, RESERVED_BYTE, 1)?,
            _ => self.system(ALONE, SHARED_FIRST, SHARED_BYTES)?,
        }
        (*level, locks.level) = (to, to);
        Ok(())
    }

    /// Lowers it again, to [`SHARED`] or [`UNLOCKED`].
    pub fn unlock(&self, level: &mut c_int, to: c_int) -> Result<(), Code> {
        if *level <= to {
            return Ok(());
        }
        let mut locks = self.locks();
        let alone = *level > SHARED;
        if alone {
            if to == SHARED {
                self.system(SHARE, SHARED_FIRST, SHARED_BYTES).map_err(|_| ffi::SQLITE_IOERR_RDLOCK)?;
            }
            self.system(NONE, PENDING_BYTE, 2).map_err(|_| ffi::SQLITE_IOERR_UNLOCK)?;
            locks.level = SHARED;
        }
        if to == UNLOCKED {
            *level = UNLOCKED;
            locks.holders -= 1;
            if locks.holders == 0 {
                locks.level = UNLOCKED;
                if !locks.logged || alone {
                    locks.held = false;
                    self.system(NONE, 0, 0).map_err(|_| ffi::SQLITE_IOERR_UNLOCK)?;
                }
            }
        }
        *level = to;
        Ok(())
    }

    /// Whether somebody is about to write the file itself.
    pub fn is_reserved(&self) -> Result<bool, Code> {
        let locks = self.locks();
        let reserved = || calls::lock_of_another(self.fd(), RESERVED_BYTE, 1).map_err(|_| ffi::SQLITE_IOERR_CHECKRESERVEDLOCK);
        Ok(locks.level > SHARED || reserved()? != NONE)
    }

    /// Whether another process has the file open.
    pub fn is_wanted(&self) -> bool {
        calls::lock_of_another(self.fd(), SHARED_FIRST, SHARED_BYTES).is_ok_and(|kind| kind != NONE)
    }

    fn system(&self, kind: c_int, from: i64, bytes: i64) -> Result<(), Code> {
        calls::lock(self.fd(), kind, from, bytes, ffi::SQLITE_IOERR_LOCK)
    }
}

impl Locks {
    /// The file's log is in use.
    pub fn log_is_used(&mut self) {
        self.logged = true;
    }
}

fn id(found: &libc::stat) -> Id {
    (found.st_dev, found.st_ino)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files that one call of [`attend`] looks at, with a call of the system's for each: some milliseconds. Or a part of them all, so that
/// each has its turn within the ten seconds for which SQLite waits.
const ROUND: usize = 4_096;
const PART: usize = 10;

/// Whether this process has the file open.
pub fn is_open(path: &CStr) -> bool {
    calls::look(path).is_ok_and(|found| Nodes::of(id(&found)).contains_key(&id(&found)))
}

/// Gives way to other processes that want a file, and takes files back that no other has any more: some of them in turn.
pub fn attend() {
    static TURN: Mutex<(Vec<Id>, usize)> = Mutex::new((Vec::new(), ROUND));
    let mut turn = lock(&TURN);
    let (turn, round) = &mut *turn;
    if turn.is_empty() {
        let Nodes(parts) = Nodes::all();
        turn.extend(parts.iter().flat_map(|part| lock(part).keys().copied().collect::<Vec<_>>()));
        *round = ROUND.max(turn.len() / PART);
    }
    for id in turn.drain(turn.len().saturating_sub(*round)..) {
        // As a connection would, so that it is closed under the lock.
        let node = Nodes::of(id).get_mut(&id).map(|open| {
            open.connections += 1;
            open.node.clone()
        });
        if let Some(node) = node {
            if let Some(index) = &mut node.locks().index {
                index.attend(&node);
            }
            node.leave();
        }
    }
}

//! A [`Shim`] stands between a server and the kernel (`tests/faults/shim.c`, preloaded): it counts the system calls
//! that change files whose path matches a pattern, and makes the Nth of them fail, or end the process; and it sets the
//! server's wall clock ahead. The rule is in a file that both sides map, so it takes hold at once and the counts can be read while the server runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::{Settings, eventually};

pub const OPEN: u32 = 1;
pub const WRITE: u32 = 2;
pub const SYNC: u32 = 4;
pub const TRUNCATE: u32 = 8;
pub const RENAME: u32 = 16;
pub const UNLINK: u32 = 32;
pub const MKDIR: u32 = 64;
pub const ALL: u32 = OPEN | WRITE | SYNC | TRUNCATE | RENAME | UNLINK | MKDIR;

pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;
/// In the place of an errno: the process gets SIGKILL before the call.
pub const KILL: i32 = -1;
/// The process stands still before the call, and makes it once it gets SIGCONT.
pub const PAUSE: i32 = -2;

/// Offsets in `struct control`.
const OPERATIONS: u64 = 0;
const ERROR: u64 = 4;
const NTH: u64 = 8;
const TIMES: u64 = 16;
const SEEN: u64 = 24;
const HITS: u64 = 32;
const TORN: u64 = 40;
const LOADED: u64 = 44;
const PATTERN: u64 = 48;
const PATTERN_MAX: usize = 208;
const AHEAD: u64 = PATTERN + PATTERN_MAX as u64;
const INSIDE: u64 = AHEAD + 8;

/// Which calls fail, and how.
#[derive(Clone, Debug)]
pub struct Rule {
    pub operations: u32,
    /// As fnmatch(3) has it, with `@(a|b)`; `*` matches `/` too.
    pub pattern: String,
    /// 0: they are only counted.
    pub error: i32,
    /// The first call that fails, from 1.
    pub nth: u64,
    /// How many fail from there on.
    pub times: u64,
    /// A failing write writes the first half of its bytes.
    pub torn: bool,
}

impl Rule {
    pub fn new(operations: u32, pattern: impl Into<String>, error: i32) -> Rule {
        Rule { operations, pattern: pattern.into(), error, nth: 1, times: 1, torn: false }
    }
}

pub struct Shim {
    _folder: TempDir,
    path: PathBuf,
    control: File,
}

impl Shim {
    pub fn new() -> Shim {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let control = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        control.set_len(INSIDE + 8).unwrap();
        Shim { _folder: folder, path, control }
    }

    /// Has the server that is configured run under the shim.
    pub fn under(&self, settings: &mut Settings) {
        settings.env("LD_PRELOAD", &library().display().to_string()).env("FAULT_CONTROL", &self.path.display().to_string());
    }

    /// The rule from here on; counts begin at 0.
    pub fn set(&self, rule: &Rule) {
        assert_ne!(self.number(LOADED) as u32, 0, "the server runs under the shim");
        assert!(rule.pattern.len() < PATTERN_MAX, "{rule:?}");
        self.clear();
        let mut pattern = rule.pattern.clone().into_bytes();
        pattern.push(0);
        self.put(PATTERN, &pattern);
        self.put(ERROR, &rule.error.to_ne_bytes());
        self.put(TORN, &u32::from(rule.torn).to_ne_bytes());
        for (at, value) in [(NTH, rule.nth), (TIMES, rule.times), (SEEN, 0), (HITS, 0)] {
            self.put(at, &value.to_ne_bytes());
        }
        self.put(OPERATIONS, &rule.operations.to_ne_bytes());
    }

    /// Nothing fails any more; how many calls matched, and how many of them failed. Calls that have looked at the rule are
    /// waited for, so that both are final: a server that none of them has killed goes on.
    pub fn clear(&self) -> (u64, u64) {
        self.put(OPERATIONS, &[0; 4]);
        eventually("nobody looks at the rule", || (self.number(INSIDE) as u32 == 0 || self.is_over()).then_some(()));
        (self.number(SEEN), self.number(HITS))
    }

    /// Whether the server has ended: it may have been killed looking at the rule.
    fn is_over(&self) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.number(LOADED) as u32));
        state.map_or(true, |state| state.contains(") Z "))
    }

    /// How many calls have failed under the rule so far.
    pub fn hits(&self) -> u64 {
        self.number(HITS)
    }

    /// The server's wall clock is so many seconds ahead from now on; it goes on as fast as it did.
    pub fn set_clock_ahead(&self, seconds: i64) {
        assert_ne!(self.number(LOADED) as u32, 0, "the server runs under the shim");
        self.put(AHEAD, &seconds.to_ne_bytes());
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.control.write_all_at(bytes, at).unwrap();
    }

    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, at).unwrap();
        u64::from_ne_bytes(bytes)
    }
}

/// Built once for all tests; cargo needs a C compiler for SQLite anyway.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fault-shim.so");
        // Beside its place first: another run of the tests may have it loaded.
        let fresh = path.with_extension(std::process::id().to_string());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/shim.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&fresh).args([source, "-ldl"]).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::rename(&fresh, &path).unwrap();
        path
    })
}

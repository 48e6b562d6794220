//! The harness. A [`Server`] is the real binary running on a directory of its own; a [`Client`] speaks HTTP
//! to it with one bearer key or token; a [`TenantClient`] is a client and the tenant it belongs to. Servers
//! die with the test process, and a failing test shows what its server logged.

mod client;
mod dice;
mod disk;
mod server;
pub mod shim;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use client::{Answer, Client, TenantClient, segment};
pub use dice::Dice;
pub use disk::{Disk, check_files};
pub use serde_json::{Value, json};
pub use server::{ADMIN_KEY, Server, Settings};

/// How long a test waits for something that must happen soon. No test is over sooner for it: it is for machines on which ten
/// other things run.
pub const SOON: Duration = Duration::from_secs(60);

/// Polls until `look` sees it, and returns what it saw. Fails, naming `what`, after [`SOON`].
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(SOON, what, look)
}

/// [`eventually`] with a deadline of its own.
#[track_caller]
pub fn within<T>(wait: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < wait, "{what}: not within {wait:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A slug nobody else in this run uses: `<stem>-<n>`.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs `f(0)`, `f(1)` … `f(n - 1)` at the same moment, each on a thread of its own; results in order. A
/// panic in one is a panic here.
pub fn at_once<T: Send>(n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(n);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n)
            .map(|i| {
                let (start, f) = (&start, &f);
                scope.spawn(move || {
                    start.wait();
                    f(i)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Bytes of memory the server has: `VmRSS`, `VmHWM` (the most so far), `VmSize`.
pub fn memory(server: &Server, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.split(':').next() == Some(what)).unwrap_or_else(|| panic!("no {what} in {status}"));
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// The binary, without any `TENANTRY_*` variable of the machine it runs on.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TENANTRY_")) {
        command.env_remove(name);
    }
    command
}

/// What a finished command said, for assertions: `stdout` and `stderr` as one text.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

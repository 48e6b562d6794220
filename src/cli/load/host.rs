//! The server's side of a run: a server of our own as a child process ([`OwnServer`]), and what a server's process
//! takes of the machine ([`usage`]), read from `/proc`.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Code, Error, Result};

/// How long a server may take to start, and to stop.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// Clock ticks a second in `/proc/<pid>/stat`: the same on every Linux.
const TICKS: f64 = 100.0;

/// A server in a process of its own, stopped with this value.
pub struct OwnServer {
    child: Child,
    pub url: String,
}

impl OwnServer {
    /// Starts this very program as `serve` on `data_dir`, with `options` behind it.
    pub fn start(data_dir: &Path, listen: &str, options: &[String]) -> Result<OwnServer> {
        let failed = |cause: &dyn std::fmt::Display| {
            Error::new(Code::Internal, format!("a server on {} could not be started: {cause}", data_dir.display()))
                .hint("What it said is above. Another server may have this data directory; --url puts load on that one.")
        };
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tenantry").args(["serve", "--listen", listen, "--data-dir"]).arg(data_dir).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // A load that is killed must not leave a server behind. The signal comes with the end of the thread that spawns,
        // which is this program's first.
        // SAFETY: between fork and exec one system call is made, and nothing is allocated.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?));
        }
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let stdout = child.stdout.take().map(BufReader::new);
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(BufRead::lines).map_while(std::result::Result::ok) {
                // Once its address is known nobody listens any more, but it must be able to go on writing.
                let _ = tell.send(line);
            }
        });
        let mut server = OwnServer { child, url: String::new() };
        let until = Instant::now() + START;
        while let Ok(line) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if let Some(url) = line.strip_prefix("listening on ") {
                url.clone_into(&mut server.url);
                return Ok(server);
            }
        }
        Err(failed(&"it did not say where it listens"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it in good order and waits.
    pub fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself, which the wait shows.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let until = Instant::now() + STOP;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(Error::new(Code::Internal, format!("the server ended badly: {status}"))),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Err(Error::new(Code::Internal, format!("the server did not stop within {STOP:?}")))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process takes at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Usage {
    pub rss_bytes: u64,
    /// Seconds of processor time since it started, over all its threads.
    pub cpu_s: f64,
    pub descriptors: u64,
    pub threads: u64,
}

/// `None` where there is no such process, or it may not be looked at.
pub fn usage(pid: u32) -> Option<Usage> {
    let folder = format!("/proc/{pid}");
    let (rss_bytes, threads) = memory(&std::fs::read_to_string(format!("{folder}/status")).ok()?)?;
    let cpu_s = cpu(&std::fs::read_to_string(format!("{folder}/stat")).ok()?)?;
    let descriptors = std::fs::read_dir(format!("{folder}/fd")).ok()?.count() as u64;
    Some(Usage { rss_bytes, cpu_s, descriptors, threads })
}

/// Bytes in memory and number of threads, from `status`.
fn memory(status: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((field("VmRSS")? * 1_024, field("Threads")?))
}

/// Seconds of processor time, from `stat`. The program's name may hold anything, brackets too.
fn cpu(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1 1 1";
        assert_eq!(cpu(stat), Some(3.0));
        assert_eq!(memory("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t9\n"), Some((2 << 20, 9)));
        assert!(cpu("").is_none() && memory("").is_none());
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 1 << 20 && usage.descriptors >= 3 && usage.threads >= 1);
        assert!(super::usage(u32::MAX).is_none());
    }
}

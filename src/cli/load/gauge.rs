//! A [`Gauge`] looks at the server while it is under load: from outside, what its process takes of the machine
//! ([`Usage`]), and from inside, what it says of its tenants' files ([`Inside`]). Either may be missing: the process
//! may be on another machine, and a server that is too busy to say how it is in time is not asked twice.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::host::{Usage, usage};
use super::wire::{self, Caller, Target, Wire};
use crate::error::{Error, Result};

/// How long the server may take to say how it is; shorter than the time between two looks.
const PATIENCE: Duration = Duration::from_millis(200);

pub struct Gauge {
    pid: Option<u32>,
    wire: Wire,
    request: Vec<u8>,
    runtime: Runtime,
}

/// What the server says of its tenants' files at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Inside {
    /// Write-ahead logs of the open files.
    pub wal_bytes: u64,
    /// Tenants with files open.
    pub tenants_open: u64,
    /// Tenants let go for room or idleness since the server started.
    pub evictions: u64,
}

impl Gauge {
    /// `key` is the operator's; `pid` the server's process, if it is on this machine.
    pub fn new(target: &Target, key: &str, pid: Option<u32>) -> Result<Gauge> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::internal("a runtime could not be started", &error))?;
        let mut request = Vec::new();
        wire::get(&mut request, &Caller::new(target, key), "/admin/v1/health");
        Ok(Gauge { pid, wire: Wire::new(target, PATIENCE), request, runtime })
    }

    pub fn look(&mut self) -> (Option<Usage>, Option<Inside>) {
        let Gauge { pid, wire, request, runtime } = self;
        let inside = runtime.block_on(async {
            let answer = wire.call(request).await.ok().filter(|answer| answer.status == 200)?;
            let health: Value = serde_json::from_slice(answer.body).ok()?;
            let of = |name: &str| health["triples"][name].as_u64();
            Some(Inside { wal_bytes: of("wal_bytes")?, tenants_open: of("live")?, evictions: of("evictions")? })
        });
        (pid.and_then(usage), inside)
    }
}

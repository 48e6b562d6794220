//! A [`Boot`] is one run of the machine. A cache's commits do not wait for the disk, so a power cut may take the last of them
//! back: also that something was thrown away, and a value that nobody may see any more would be there again. So what
//! was written in another run of the machine is not trusted: the first use of the file throws it away. A server that is
//! killed or restarted loses nothing.

use uuid::Uuid;

use super::invalidate::everything;
use crate::error::Result;
use crate::sqlite::{Reader, WriteTx};

/// Its name; made by the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot(String);

impl Boot {
    /// The one that runs. Where the system does not name it, this run of the server has to do.
    pub(super) fn current() -> Boot {
        let named = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Boot(named.map_or_else(|_| Uuid::new_v4().to_string(), |name| name.trim().to_owned()))
    }

    /// Whether the file was written in this one.
    pub(super) fn wrote(&self, reader: &Reader<'_>) -> Result<bool> {
        Ok(reader.row("SELECT boot = ?1 FROM clock WHERE one = 1", [&self.0], |row| row.get(0))?.unwrap_or(false))
    }

    /// Throws away what was not.
    pub(super) fn begin(&self, tx: &WriteTx<'_>) -> Result<()> {
        if self.wrote(tx)? {
            return Ok(());
        }
        everything(tx)?;
        tx.execute("UPDATE clock SET boot = ?1 WHERE one = 1", [&self.0]).map(drop)
    }
}

//! The data directory: made at first start, held by one process at a time, and read by its user only: the process
//! makes its folders 0700 and its files 0600, whatever the mode of the directory it is given.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Mode;

use crate::error::{Error, Result};
use crate::tenant::Layout;

/// While it lives, no other process serves this directory.
pub struct DataDir {
    pub layout: Layout,
    _lock: File,
}

impl DataDir {
    pub fn open(path: &Path) -> Result<DataDir> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::bad_request(format!("the data directory {}: cannot {what}: {error}", path.display()))
                .hint("data_dir (--data-dir) names it.")
        };
        // SQLite, too, makes its files with what this leaves of the mode.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("make it", &error))?;
        let layout = Layout::of(path).map_err(|error| failed("find it", &error))?;
        let lock_path = layout.root().join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| failed("open LOCK", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::conflict(format!("another tenantry serves the data directory {}", layout.root().display()))
                    .hint("Stop it, or take another --data-dir. One directory has one process."));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock LOCK", &error)),
        }
        for folder in [layout.system(), layout.keys(), layout.trash(), layout.root().join("backups")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| failed("make its folders", &error))?;
            std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(|error| failed("close its folders", &error))?;
        }
        Ok(DataDir { layout, _lock: lock })
    }
}

//! Disks of a test's own, and what lies on one once a server has let go of it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A small file system, mounted; unmounted when dropped. Only root can have one.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`, said on stderr, where this user cannot mount.
    pub fn tmpfs(bytes: u64) -> Option<Disk> {
        Disk::mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
    }

    /// The file system that is in the file `image`.
    pub fn image(image: &Path) -> Option<Disk> {
        Disk::mount(&["-o", "loop", &image.display().to_string()])
    }

    fn mount(arguments: &[&str]) -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(arguments).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk { folder }),
            refused => {
                // Past the harness, which keeps to itself what a green test prints.
                let test = std::thread::current().name().unwrap_or("a test").to_owned();
                let _ = writeln!(std::io::stderr(), "SKIPPED, not green: {test}: no file system can be mounted here: {refused:?}");
                None
            }
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that is about to end may still be in it.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).output();
    }
}

/// `integrity_check` of every SQLite file below `dir`; how many there were.
#[track_caller]
pub fn check_files(dir: &Path) -> usize {
    let mut checked = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "db" || ext == "sqlite") {
                let file = rusqlite::Connection::open(&path).unwrap();
                let check: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                let dangling: i64 = file.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
                assert_eq!((check.as_str(), dangling), ("ok", 0), "{}", path.display());
                checked += 1;
            }
        }
    }
    checked
}

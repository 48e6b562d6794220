//! A secret on disk: random bytes from the operating system in a file that only its owner may read, written
//! whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Code, Error, Result};

/// The largest secret file that is read, in bytes.
const READ_MAX: u64 = 64 << 10;

/// 32 bytes nobody can guess.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|cause| failed("read", Path::new("/dev/urandom"), &cause))?;
    Ok(bytes)
}

/// The file's content, or `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(failed("open", path, &cause)),
    };
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes).map_err(|cause| failed("read", path, &cause))?;
    Ok(Some(bytes))
}

/// Makes the file with mode 0600: temporary, fsync, rename, fsync of the folder, which is made if need be.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|cause| failed("write", path, &cause))
}

fn failed(verb: &str, path: &Path, cause: &io::Error) -> Error {
    Error::new(Code::Internal, format!("cannot {verb} {}: {cause}", path.display()))
        .hint("Check that the data directory is writable and owned by the user who runs the server.")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_reads_back_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/audit.key");
        assert_eq!(read(&path).unwrap(), None);
        let secret = random().unwrap();
        write_new(&path, &secret).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), secret);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(random().unwrap(), secret);
    }
}

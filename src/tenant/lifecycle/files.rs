//! A tenant's folder on disk, moved as a whole: made beside its place and renamed into it, renamed into the trash
//! and back, removed. Each function is blocking, leaves nothing half done that a second call would not finish,
//! and returns when the disk has it. Nothing here touches a file that is open.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::tenant::template::Template;
use crate::tenant::{Layout, TenantId};

/// Makes the tenant's three files: all of them appear under its folder's name, at once, or none.
pub fn make(layout: &Layout, template: &Template, id: TenantId) -> Result<()> {
    let (shard, folder, unfinished) = (layout.shard(id), layout.tenant(id), unfinished(layout, id));
    let make = || -> io::Result<()> {
        ensure_folder(&shard)?;
        fs::create_dir(&unfinished)?;
        for (role, content) in template.files() {
            let mut file = File::create_new(unfinished.join(Layout::file_name(id, *role)))?;
            file.write_all(content)?;
            file.sync_all()?;
        }
        sync(&unfinished)?;
        rename_new(&unfinished, &folder)?;
        sync(&shard)
    };
    make().map_err(|cause| failed("make", id, &cause))
}

/// Removes every trace of the tenant.
pub fn remove(layout: &Layout, id: TenantId) -> Result<()> {
    let gone = |folder: PathBuf, parent: PathBuf| match fs::remove_dir_all(&folder) {
        Ok(()) => sync(&parent),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    };
    let remove = || -> io::Result<()> {
        gone(unfinished(layout, id), layout.shard(id))?;
        gone(layout.tenant(id), layout.shard(id))?;
        gone(layout.trashed(id), layout.trash())?;
        let kept = layout.kept_folder(id);
        gone(kept.clone(), parent(&kept).to_owned())
    };
    remove().map_err(|cause| failed("remove", id, &cause))
}

/// Moves the tenant's folder to the trash; nothing to do if it is there.
pub fn to_trash(layout: &Layout, id: TenantId) -> Result<()> {
    move_folder(&layout.tenant(id), &layout.trashed(id)).map_err(|cause| failed("move to the trash", id, &cause))
}

/// Moves the tenant's folder back from the trash; nothing to do if it is in place.
pub fn from_trash(layout: &Layout, id: TenantId) -> Result<()> {
    move_folder(&layout.trashed(id), &layout.tenant(id)).map_err(|cause| failed("bring back from the trash", id, &cause))
}

/// Where the files are until they are complete.
fn unfinished(layout: &Layout, id: TenantId) -> PathBuf {
    layout.shard(id).join(format!("{id}.new"))
}

fn move_folder(from: &Path, to: &Path) -> io::Result<()> {
    let (left, entered) = (parent(from), parent(to));
    ensure_folder(entered)?;
    match rename_new(from, to) {
        Ok(()) => {
            sync(entered)?;
            sync(left)
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && to.is_dir() => sync(entered),
        Err(cause) => Err(cause),
    }
}

/// Renames without replacing what may be at `to`. (An empty folder there would be replaced by a plain rename.)
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that do not know the flag; what the caller's row says keeps `to` free.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => fs::rename(from, to),
        done => Ok(done?),
    }
}

/// Makes the folder if need be, so that it outlives a power cut.
fn ensure_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => sync(parent(folder)),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(cause) => Err(cause),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn failed(verb: &str, id: TenantId, cause: &io::Error) -> Error {
    if cause.kind() == io::ErrorKind::StorageFull {
        return Error::disk_full();
    }
    Error::internal(&format!("cannot {verb} the files of tenant {id}"), cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Role;
    use crate::tenant::template::Blueprint;

    #[test]
    fn a_folder_is_made_trashed_brought_back_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::of(root.path()).unwrap();
        let template = Template::build(&Blueprint::load(None).unwrap()).unwrap();
        let id = TenantId::new_v7();

        make(&layout, &template, id).unwrap();
        for role in Role::ALL {
            assert!(layout.file(id, role).is_file());
        }
        assert!(make(&layout, &template, id).is_err(), "nothing is replaced");
        remove(&layout, id).unwrap();
        make(&layout, &template, id).unwrap();

        to_trash(&layout, id).unwrap();
        to_trash(&layout, id).unwrap();
        assert!(layout.trashed(id).is_dir() && !layout.tenant(id).exists());
        from_trash(&layout, id).unwrap();
        from_trash(&layout, id).unwrap();
        assert!(layout.tenant(id).is_dir() && !layout.trashed(id).exists());

        remove(&layout, id).unwrap();
        remove(&layout, id).unwrap();
        assert!(!layout.tenant(id).exists());
        assert!(from_trash(&layout, id).is_err(), "nothing is there");
    }
}

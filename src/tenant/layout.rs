//! The [`Layout`] says where everything is in the data directory (the table stands in `tenants/README.md`).
//! Paths of tenants are made of a [`TenantId`] only. The root is absolute and free of symbolic links, as SQLite
//! is told to follow none.

use std::path::{Path, PathBuf};

use super::TenantId;

/// Which of a tenant's three files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Database,
    Cache,
    Queue,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Database, Role::Cache, Role::Queue];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Database => "database",
            Role::Cache => "cache",
            Role::Queue => "queue",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of an existing directory.
    pub fn of(root: &Path) -> std::io::Result<Layout> {
        Ok(Layout { root: root.canonicalize()? })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn system(&self) -> PathBuf {
        self.root.join("system")
    }

    pub fn keys(&self) -> PathBuf {
        self.root.join("system/keys")
    }

    /// Where deleted tenants' folders wait to be purged or restored.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub fn trashed(&self, id: TenantId) -> PathBuf {
        self.trash().join(id.to_string())
    }

    /// The folder of folders a tenant's folder is in: named by the last two digits of its id, which are random.
    pub fn shard(&self, id: TenantId) -> PathBuf {
        let id = id.to_string();
        self.root.join(&id[id.len() - 2..])
    }

    /// The tenant's folder.
    pub fn tenant(&self, id: TenantId) -> PathBuf {
        self.shard(id).join(id.to_string())
    }

    pub fn file(&self, id: TenantId, role: Role) -> PathBuf {
        self.tenant(id).join(Layout::file_name(id, role))
    }

    /// Tenants whose file has something in its write-ahead log: it was written and not closed. Blocking; a folder that
    /// cannot be read has none.
    pub fn with_log(&self, role: Role) -> Vec<TenantId> {
        let folders = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let shards = folders(&self.root).filter(|path| name(path).is_some_and(|name| name.len() == 2));
        let ids = shards.flat_map(|shard| folders(&shard).filter_map(|path| TenantId::parse(&name(&path)?).ok()).collect::<Vec<_>>());
        let has_log = |id: &TenantId| {
            let mut log = self.file(*id, role).into_os_string();
            log.push("-wal");
            std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
        };
        ids.filter(has_log).collect()
    }

    /// Where copies of the tenant's files are from before the last migration that destroyed something.
    pub fn kept_folder(&self, id: TenantId) -> PathBuf {
        self.root.join("backups/before").join(id.to_string())
    }

    pub fn kept(&self, id: TenantId, role: Role) -> PathBuf {
        self.kept_folder(id).join(Layout::file_name(id, role))
    }

    /// Where a dry run copies files to.
    pub fn plan_folder(&self) -> PathBuf {
        self.root.join("backups/plan")
    }

    pub fn file_name(id: TenantId, role: Role) -> String {
        format!("tenant_{}_{id}.sqlite", role.as_str())
    }
}

//! Looking at one tenant: its row, how large its files are, which migrations they have, whether they are open.

use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Inner, Lifecycle};
use crate::clock::{Millis, rfc3339};
use crate::error::{Error, Result};
use crate::sqlite::{self, Applied, Limits};
use crate::system::app::{Filter, State, TenantRow};
use crate::system::audit::By;
use crate::tenant::{Layout, Lease, Role, TenantId};

#[derive(Debug)]
pub struct Details {
    pub row: TenantRow,
    /// Whether a file of it was open before it was looked at.
    pub open: bool,
    /// Since it was opened.
    pub last_used: Option<Millis>,
    /// In the order of [`Role::ALL`].
    pub files: [FileDetails; 3],
}

impl Details {
    /// The tenant with `files` by role, `schema_versions` by set, `open` and `last_used_at`.
    pub fn to_json(&self) -> Value {
        let applied = self.files.iter().filter_map(|file| file.schema.as_ref()).flatten();
        let versions: Map<_, _> = applied.map(|applied| (applied.set.clone(), applied.version.into())).collect();
        let files: Map<_, _> = Role::ALL.iter().zip(&self.files).map(|(role, file)| (role.as_str().to_owned(), file.to_json())).collect();
        let mut tenant = self.row.to_json();
        tenant["files"] = files.into();
        tenant["schema_versions"] = versions.into();
        tenant["open"] = self.open.into();
        tenant["last_used_at"] = self.last_used.map(rfc3339).into();
        tenant
    }
}

#[derive(Debug)]
pub struct FileDetails {
    /// With its log. `None` if there is no such file.
    pub size_bytes: Option<u64>,
    pub wal_bytes: u64,
    /// The newest migration of each set; `None` where the file cannot be asked.
    pub schema: Option<Vec<Applied>>,
    /// Why it cannot be asked.
    pub error: Option<String>,
}

impl FileDetails {
    fn to_json(&self) -> Value {
        let versions = self.schema.as_ref().map(|sets| sets.iter().map(|set| (set.set.clone(), set.version.into())).collect::<Map<_, _>>());
        json!({ "size_bytes": self.size_bytes, "wal_bytes": self.wal_bytes, "schema_versions": versions, "error": self.error })
    }
}

impl Lifecycle {
    pub async fn list(&self, filter: Filter) -> Result<Vec<TenantRow>> {
        self.inner.app.tenants(filter).await
    }

    /// Looks at one tenant. To ask its files for their migrations opens them, as a request would.
    pub async fn details(&self, id: TenantId) -> Result<Details> {
        let inner = &self.inner;
        let row = inner.existing(id).await?;
        let (open, last_used) = (inner.triples.is_open(id), inner.triples.last_used(id));
        let trashed = row.state == State::Deleted;
        let sizes = inner.blocking(move |inner| sizes(&inner.layout, id, trashed)).await?;
        let schemas = match row.state {
            State::Active | State::Suspended => inner.schemas(&row).await,
            _ => Err(Error::conflict(format!("the tenant is {}", row.state.as_str()))),
        };
        let mut files = sizes;
        match schemas {
            Ok(schemas) => {
                for (file, schema) in files.iter_mut().zip(schemas) {
                    match schema {
                        Ok(applied) => file.schema = Some(applied),
                        Err(error) => file.error = Some(error.for_operators().message().to_owned()),
                    }
                }
            }
            Err(error) => files.iter_mut().for_each(|file| file.error = Some(error.message().to_owned())),
        }
        Ok(Details { row, open, last_used, files })
    }

    /// Brings the tenant's files up to date now, as their next use would. The first that cannot be is the error.
    pub async fn migrate(&self, by: By, id: TenantId) -> Result<Details> {
        self.run(by, "tenant.migrate", Some(id), move |inner, by| async move {
            let row = inner.existing(id).await?;
            if !matches!(row.state, State::Active | State::Suspended) {
                return Err(Error::conflict(format!("tenant {id} is {} and cannot be migrated", row.state.as_str())));
            }
            // An open file is up to date already; one that failed to open is tried again.
            let [database, cache, queue] = inner.schemas(&row).await?;
            let applied = [database, cache, queue].into_iter().collect::<Result<Vec<_>>>().map_err(Error::for_operators)?;
            inner.audit.record(by.did("tenant.migrate", Some(id.to_string()), json!({ "schema": applied }))).await?;
            Ok(())
        })
        .await?;
        self.details(id).await
    }
}

impl Inner {
    async fn schemas(&self, row: &TenantRow) -> Result<[Result<Vec<Applied>>; 3]> {
        let lease = self.triples.lease(row.id.into(), &self.registry.limits(&row.plan)).await?;
        let ask = |role| schema_of(&lease, role);
        Ok([ask(Role::Database).await, ask(Role::Cache).await, ask(Role::Queue).await])
    }
}

async fn schema_of(lease: &Lease, role: Role) -> Result<Vec<Applied>> {
    lease.file(role).read(Limits::default(), sqlite::applied).await
}

fn sizes(layout: &Layout, id: TenantId, trashed: bool) -> Result<[FileDetails; 3]> {
    let folder = if trashed { layout.trashed(id) } else { layout.tenant(id) };
    let of = |role: Role| -> Result<FileDetails> {
        let name = Layout::file_name(id, role);
        let file = length(&folder.join(&name))?;
        let wal_bytes = length(&folder.join(format!("{name}-wal")))?.unwrap_or(0);
        Ok(FileDetails { size_bytes: file.map(|bytes| bytes + wal_bytes), wal_bytes, schema: None, error: None })
    };
    Ok([of(Role::Database)?, of(Role::Cache)?, of(Role::Queue)?])
}

/// `None` if there is no such file.
fn length(path: &Path) -> Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::internal("a tenant's file cannot be looked at", &cause)),
    }
}

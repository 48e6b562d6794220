//! Who is told of what is committed in tenants' databases, whichever triple they belong to at the time.

use std::sync::{Arc, OnceLock};

use super::Triples;
use crate::sqlite::{Database, Written};
use crate::tenant::TenantId;

type Told = Arc<dyn Fn(TenantId, &Written) + Send + Sync>;

/// A question, and who is told.
#[derive(Default)]
pub(super) struct Watch(OnceLock<(&'static str, Told)>);

impl Triples {
    /// Has `told` called after each commit in a tenant's database, and when one is opened in which `question` has a row, as
    /// [`Database::on_commit`] and [`Database::ask_when_opened`] say; for triples made from now on. Only the first one
    /// given is.
    pub fn watch(&self, question: &'static str, told: impl Fn(TenantId, &Written) + Send + Sync + 'static) {
        let _ = self.watch.0.set((question, Arc::new(told)));
    }
}

impl Watch {
    pub fn over(&self, id: TenantId, database: &Database) {
        if let Some((question, told)) = self.0.get() {
            let told = told.clone();
            database.ask_when_opened(question);
            database.on_commit(move |written| told(id, written));
        }
    }
}

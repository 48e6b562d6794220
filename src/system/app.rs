//! `app`: the tenants, the tokens they were given, and what an administrative call must remember. Each public
//! method is one transaction; what an operator does leaves its audit entry in that same transaction, so there
//! is no action without its entry, however the process ends.

pub mod fleet;
mod idempotency;
mod outbox;
mod tenants;
mod tokens;
mod wakeups;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::Notify;

pub use idempotency::{Answer, Begun, Once};
pub use outbox::{Head, Pending};
pub use tenants::no_tenant;
pub use tenants::{Filter, NewTenant, Patch, State, TenantRow};
pub use tokens::TokenRow;
pub use wakeups::Due;

use crate::error::Result;
use crate::sqlite::Database;

#[derive(Clone)]
pub struct App {
    db: Arc<Database>,
    /// Told when a commit has left something in the audit outbox.
    outbox: Arc<Notify>,
    /// Told when a tenant's wake-up may have come nearer.
    wakeups: Arc<Notify>,
    /// Idempotency keys held, as counted at start and kept since.
    keys: Arc<AtomicU64>,
}

impl App {
    /// Opens the file and clears what calls that a crash cut short were holding.
    pub(super) async fn open(db: Arc<Database>) -> Result<App> {
        let app = App { db, outbox: Arc::default(), wakeups: Arc::default(), keys: Arc::default() };
        app.release_unfinished().await?;
        Ok(app)
    }

    /// Told each time the audit outbox has something new.
    pub(super) fn outbox_news(&self) -> &Notify {
        &self.outbox
    }
}

//! The rows of `wakeups`: for each tenant that has one, the earliest moment at which something must be done although
//! nobody asks. Who may put a moment off, and when, is [`crate::tenant::Wakeups`]'s to say; here each call is one
//! transaction.

use rusqlite::params;
use tokio::sync::Notify;
use uuid::Uuid;

use super::App;
use crate::clock::Millis;
use crate::error::Result;
use crate::sqlite::{Limits, WriteTx};
use crate::system::column;

/// A tenant whose moment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub tenant: Uuid,
    pub at: Millis,
}

impl App {
    /// Told when a moment may have come nearer.
    pub fn wakeup_news(&self) -> &Notify {
        &self.wakeups
    }

    /// From the commit on the tenant is looked into at `at` at the latest.
    pub async fn wakeup_by(&self, tenant: Uuid, at: Millis) -> Result<()> {
        self.wakeups_by(vec![tenant], at).await
    }

    /// [`App::wakeup_by`] for several, in one commit.
    pub async fn wakeups_by(&self, tenants: Vec<Uuid>, at: Millis) -> Result<()> {
        let ask = move |tx: &WriteTx<'_>| tenants.iter().try_for_each(|id| tx.execute(ASK, params![id.to_string(), at]).map(drop));
        let done = self.db.write(Limits::default(), ask).await;
        self.wakeups.notify_one();
        done
    }

    /// Active tenants whose moment has come by `now`, the longest overdue first.
    pub async fn wakeups_due(&self, now: Millis, limit: usize) -> Result<Vec<Due>> {
        self.db
            .read(Limits::default(), move |r| {
                r.rows(DUE, params![now, limit as i64], |row| Ok(Due { tenant: column::uuid(row, 0)?, at: row.get(1)? }))
            })
            .await
    }

    /// The first moment after `now`.
    pub async fn wakeup_after(&self, now: Millis) -> Result<Option<Millis>> {
        self.db.read(Limits::default(), move |r| r.row(NEXT, [now], |row| row.get(0))).await
    }

    /// How often a moment was asked for; `None` without a row.
    pub async fn wakeup_asked(&self, tenant: Uuid) -> Result<Option<i64>> {
        self.db.read(Limits::default(), move |r| r.row(ASKED, [tenant.to_string()], |row| row.get(0))).await
    }

    /// Puts the moment off to `next`, or away, unless somebody has asked since `asked`. Whether it did.
    pub async fn wakeup_settle(&self, tenant: Uuid, asked: i64, next: Option<Millis>) -> Result<bool> {
        let done = self.db.write(Limits::default(), move |tx| {
            let changed = match next {
                Some(at) => tx.execute(PUT_OFF, params![tenant.to_string(), asked, at])?,
                None => tx.execute(AWAY, params![tenant.to_string(), asked])?,
            };
            Ok(changed > 0)
        });
        let done = done.await;
        self.wakeups.notify_one();
        done
    }
}

const ASK: &str = "INSERT INTO wakeups (tenant_id, at, asked, dormant) SELECT id, ?2, 1, state <> 'active' FROM tenants WHERE id = ?1
     ON CONFLICT (tenant_id) DO UPDATE SET at = min(at, excluded.at), asked = asked + 1";

const DUE: &str = "SELECT tenant_id, at FROM wakeups INDEXED BY wakeups_due WHERE dormant = 0 AND at <= ?1 ORDER BY at LIMIT ?2";

const NEXT: &str = "SELECT at FROM wakeups INDEXED BY wakeups_due WHERE dormant = 0 AND at > ?1 ORDER BY at LIMIT 1";

const ASKED: &str = "SELECT asked FROM wakeups WHERE tenant_id = ?1";

const PUT_OFF: &str = "UPDATE wakeups SET at = ?3 WHERE tenant_id = ?1 AND asked = ?2";

const AWAY: &str = "DELETE FROM wakeups WHERE tenant_id = ?1 AND asked = ?2";

//! The tokens that were signed for tenants: who they are for, until when, and whether they were revoked. The
//! token itself is not kept. Rows of tokens that are long expired are pruned as new ones are made.
//!
//! Bound: [`LIVE_MAX`] unexpired tokens for each tenant, revoked ones too: a revoked one is remembered until then.

use std::time::Duration;

use rusqlite::{Row, params};
use serde_json::{Value, json};
use uuid::Uuid;

use super::idempotency::finish_in;
use super::outbox::record_in;
use super::tenants::{State, existing_in};
use super::{Answer, App, Begun, Once};
use crate::clock::{Millis, now_ms, rfc3339};
use crate::error::{Error, Result};
use crate::sqlite::{Limits, WriteTx};
use crate::system::audit::Action;
use crate::system::column;

/// Tokens of one tenant that are not expired.
pub const LIVE_MAX: u64 = 10_000;
/// An expired token's row is kept this much longer, in milliseconds.
const EXPIRED_KEPT_MS: Millis = 30 * 86_400 * 1_000;
/// Expired rows deleted each time one is made.
const PRUNE_STEP: u32 = 16;

#[derive(Clone, Debug, PartialEq)]
pub struct TokenRow {
    pub jti: Uuid,
    pub tenant_id: Uuid,
    pub sub: String,
    pub role: String,
    /// Separated by spaces.
    pub scopes: String,
    pub created_at: Millis,
    pub expires_at: Millis,
    pub revoked_at: Option<Millis>,
}

impl TokenRow {
    pub fn to_json(&self) -> Value {
        json!({
            "jti": self.jti,
            "sub": self.sub,
            "role": self.role,
            "scopes": self.scopes.split_whitespace().collect::<Vec<_>>(),
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.expires_at),
            "revoked_at": self.revoked_at.map(rfc3339),
        })
    }
}

const COLUMNS: &str = "jti, tenant_id, sub, role, scopes, created_at, expires_at, revoked_at";

fn token_row(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        jti: column::uuid(row, 0)?,
        tenant_id: column::uuid(row, 1)?,
        sub: row.get(2)?,
        role: row.get(3)?,
        scopes: row.get(4)?,
        created_at: row.get(5)?,
        expires_at: row.get(6)?,
        revoked_at: row.get(7)?,
    })
}

impl App {
    /// Records a token of a living tenant, with the answer its caller gets.
    pub async fn token_create(&self, token: TokenRow, answer: Answer, once: Option<Once>, action: Action) -> Result<Begun> {
        let app = self.clone();
        let done = self.db.write(Limits::default(), move |tx| {
            if let Some(once) = &once
                && let Begun::Answered(answer) = app.begin_in(tx, once)?
            {
                return Ok(Begun::Answered(answer));
            }
            let tenant = existing_in(tx, token.tenant_id)?;
            if !matches!(tenant.state, State::Active | State::Suspended) {
                return Err(Error::conflict(format!("tenant {} is {} and gets no tokens", tenant.id, tenant.state.as_str())));
            }
            bound_in(tx, token.tenant_id)?;
            prune_in(tx)?;
            insert_in(tx, &token)?;
            if let Some(once) = &once {
                finish_in(tx, once, &answer)?;
            }
            record_in(tx, &action)?;
            Ok(Begun::New)
        });
        self.told(done.await)
    }

    /// The tenant's tokens in the order they were made, after `after`.
    pub async fn tokens(&self, tenant: Uuid, after: Option<Uuid>, limit: u32) -> Result<Vec<TokenRow>> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.db
            .read(Limits::default(), move |r| {
                existing_in(r, tenant)?;
                let sql = format!("SELECT {COLUMNS} FROM tenant_tokens WHERE tenant_id = ?1 AND jti > ?2 ORDER BY jti LIMIT ?3");
                r.rows(&sql, params![tenant.to_string(), after, limit], token_row)
            })
            .await
    }

    /// Revokes for good; a token revoked before stays as it was.
    pub async fn token_revoke(&self, tenant: Uuid, jti: Uuid, action: Action) -> Result<TokenRow> {
        let done = self.db.write(Limits::default(), move |tx| {
            tx.execute(
                "UPDATE tenant_tokens SET revoked_at = coalesce(revoked_at, ?3) WHERE jti = ?1 AND tenant_id = ?2",
                params![jti.to_string(), tenant.to_string(), now_ms()],
            )?;
            let sql = format!("SELECT {COLUMNS} FROM tenant_tokens WHERE jti = ?1 AND tenant_id = ?2");
            let token = tx.row(&sql, params![jti.to_string(), tenant.to_string()], token_row)?.ok_or_else(|| {
                Error::not_found(format!("tenant {tenant} has no token {jti}")).hint("`GET /admin/v1/tenants/{id}/tokens` lists them.")
            })?;
            record_in(tx, &action)?;
            Ok(token)
        });
        self.told(done.await)
    }

    /// Every revoked token that would still be valid otherwise, for a verifier that allows `leeway`: its `jti` and
    /// when it expires.
    pub async fn tokens_revoked(&self, leeway: Duration) -> Result<Vec<(Uuid, Millis)>> {
        let since = now_ms() - leeway.as_millis() as Millis;
        self.db
            .read(Limits::default(), move |r| {
                // Of itself SQLite takes the index on expiry, which has every token there is.
                let sql = "SELECT jti, expires_at FROM tenant_tokens INDEXED BY tenant_tokens_revoked
                     WHERE revoked_at IS NOT NULL AND expires_at > ?1";
                r.rows(sql, [since], |row| Ok((column::uuid(row, 0)?, row.get(1)?)))
            })
            .await
    }
}

pub(super) fn insert_in(tx: &WriteTx<'_>, token: &TokenRow) -> Result<()> {
    tx.execute(
        &format!("INSERT INTO tenant_tokens ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        params![
            token.jti.to_string(),
            token.tenant_id.to_string(),
            token.sub,
            token.role,
            token.scopes,
            token.created_at,
            token.expires_at,
            token.revoked_at
        ],
    )?;
    Ok(())
}

fn bound_in(tx: &WriteTx<'_>, tenant: Uuid) -> Result<()> {
    let live: u64 = tx.row(LIVE, params![tenant.to_string(), now_ms()], |row| column::count(row, 0))?.unwrap_or(0);
    if live < LIVE_MAX {
        return Ok(());
    }
    Err(Error::conflict(format!("tenant {tenant} has {LIVE_MAX} unexpired tokens, the most it can have"))
        .hint("Some have to expire first. Ask for shorter lives with `expires_in_s`."))
}

fn prune_in(tx: &WriteTx<'_>) -> Result<()> {
    tx.execute(PRUNE, params![now_ms() - EXPIRED_KEPT_MS, PRUNE_STEP])?;
    Ok(())
}

const LIVE: &str = "SELECT count(*) FROM tenant_tokens INDEXED BY tenant_tokens_bound WHERE tenant_id = ?1 AND expires_at > ?2";

const PRUNE: &str =
    "DELETE FROM tenant_tokens WHERE jti IN (SELECT jti FROM tenant_tokens WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::system::schema;

    fn file() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        for step in schema().app.iter().flat_map(|set| &set.steps) {
            conn.execute_batch(&step.up.sql).unwrap();
        }
        conn
    }

    #[test]
    fn making_a_token_reads_no_more_than_the_unexpired_ones() {
        let conn = file();
        let plan = |sql: &str| -> Vec<String> {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = explain.query_map([rusqlite::types::Null; 2], |row| row.get(3)).unwrap();
            steps.collect::<rusqlite::Result<_>>().unwrap()
        };
        assert_eq!(plan(LIVE), ["SEARCH tenant_tokens USING COVERING INDEX tenant_tokens_bound (tenant_id=? AND expires_at>?)"]);
        assert!(plan(PRUNE).iter().all(|step| !step.contains("SCAN") && !step.contains("TEMP B-TREE")), "{:?}", plan(PRUNE));
    }

    #[test]
    fn a_revoked_token_counts_until_it_expires() {
        let conn = file();
        conn.execute_batch(
            "INSERT INTO tenants (id, slug, name, plan, state, settled, created_at, updated_at) VALUES ('t', 't', 't', 'default', 'active', 1, 0, 0);
             INSERT INTO tenant_tokens VALUES
                 ('live', 't', '', '', '', 0, 200, NULL), ('revoked', 't', '', '', '', 0, 200, 50), ('expired', 't', '', '', '', 0, 100, NULL);",
        )
        .unwrap();
        let live: u64 = conn.query_row(LIVE, params!["t", 100], |row| column::count(row, 0)).unwrap();
        assert_eq!(live, 2);
    }
}

//! Provisioning: a row, three files, a service token, all or nothing.
//!
//! 1. the row, `provisioning`: takes the slug, and the caller's `Idempotency-Key`
//! 2. the files, complete under their final name at once ([`super::files::make`])
//! 3. in one transaction: `active`, the token's row, the answer for the key, the audit entry
//!
//! A crash before 3 leaves a row that says `provisioning`, which start-up removes with what there is of files; a
//! crash after 3 leaves a tenant, and an answer for whoever asks again with the key.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Inner, Lifecycle, PROVISIONING_MAX, files, undecided};
use crate::auth::{Mint, Minted, Scopes};
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::system::app::{Answer, Begun, NewTenant, Once, State, TenantRow, TokenRow};
use crate::system::audit::By;
use crate::tenant::TenantId;
use crate::tenant::registry::DEFAULT_PLAN;

/// Tenants in one batch.
pub const BATCH_MAX: usize = 1_000;

/// When what is left of a failed provisioning is looked at again.
const SETTLING: [Duration; 4] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

const SLUG_MAX: usize = 63;
const NAME_MAX: usize = 200;

/// `sub` and `role` of the token that a new tenant comes with.
const SERVICE: &str = crate::auth::SERVICE;

/// What a tenant shall be, as it was asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    pub slug: String,
    pub name: String,
    /// [`DEFAULT_PLAN`] unless given.
    pub plan: Option<String>,
}

/// The body that answers a provisioning call.
pub type Provisioned = Answer;

impl Lifecycle {
    /// Makes a tenant: 201 with it and its service token. With `once`, the answer of the first such call.
    pub async fn provision(&self, by: By, wish: Wish, once: Option<Once>) -> Result<Provisioned> {
        self.run(by, "tenant.create", None, move |inner, by| async move { provision(&inner, &by, wish, once).await }).await
    }

    /// Makes many tenants, each by itself: 200 with a result for each, in order, `{"status","tenant","token"}` or
    /// `{"status","error"}`. At most [`BATCH_MAX`], some at a time. Under `once`, what a call that was cut short has
    /// made is not made again: it has its original result in the answer to the next.
    pub async fn provision_batch(&self, by: By, wishes: Vec<Wish>, once: Option<Once>) -> Result<Provisioned> {
        let lifecycle = self.clone();
        self.run(by, "tenant.create_batch", None, move |inner, by| async move {
            if wishes.is_empty() || wishes.len() > BATCH_MAX {
                return Err(Error::bad_request(format!("a batch has 1 to {BATCH_MAX} tenants, not {}", wishes.len())));
            }
            if let Some(once) = &once
                && let Begun::Answered(answer) = inner.app.once_begin(once).await?
            {
                return Ok(answer);
            }
            let one = |(index, wish): (usize, Wish)| {
                let once = once.as_ref().map(|once| once.part(index, body_hash(&wish)));
                lifecycle.one_of_batch(by.clone(), wish, once)
            };
            let results: Vec<Value> = stream::iter(wishes.into_iter().enumerate()).map(one).buffered(PROVISIONING_MAX).collect().await;
            let answer = answer(200, &json!({ "results": results }));
            if let Some(once) = &once
                && let Err(error) = inner.app.once_finish(once, &answer).await
            {
                // A repeat finds what was made under the parts' keys.
                inner.app.once_release(once).await?;
                return Err(error);
            }
            Ok(answer)
        })
        .await
    }

    pub(super) async fn one_of_batch(&self, by: By, wish: Wish, once: Option<Once>) -> Value {
        let made = self.provision(by, wish, once).await;
        let made = made.and_then(|made| {
            let body =
                serde_json::from_slice::<Value>(&made.body).map_err(|cause| Error::internal("an answer of ours does not parse", &cause))?;
            Ok(json!({ "status": made.status, "tenant": body["tenant"], "token": body["token"] }))
        });
        made.unwrap_or_else(|error| json!({ "status": error.code().status(), "error": error.to_json() }))
    }
}

async fn provision(inner: &Arc<Inner>, by: &By, wish: Wish, once: Option<Once>) -> Result<Provisioned> {
    let plan = wish.plan.as_deref().unwrap_or(DEFAULT_PLAN);
    check_slug(&wish.slug)?;
    check_name(&wish.name)?;
    inner.known_plan(plan)?;
    let _permit = inner.provisioning.acquire().await.map_err(|closed| Error::internal("provisioning is closed", &closed))?;
    let id = TenantId::new_v7();
    let new = NewTenant { id: id.uuid(), slug: wish.slug.clone(), name: wish.name.clone(), plan: plan.to_owned() };
    match inner.app.tenant_begin(new, once.clone()).await {
        Ok(Begun::New) => {}
        Ok(Begun::Answered(answer)) => return Ok(answer),
        // The row may be there all the same.
        Err(error) if undecided(&error) => return settle(inner, id, once, error).await,
        Err(error) => return Err(error),
    }
    match complete(inner, by, id, &wish, once.clone()).await {
        Ok(answer) => Ok(answer),
        Err(error) => settle(inner, id, once, error).await,
    }
}

/// Steps 2 and 3.
async fn complete(inner: &Arc<Inner>, by: &By, id: TenantId, wish: &Wish, once: Option<Once>) -> Result<Provisioned> {
    inner.blocking(move |inner| files::make(&inner.layout, &inner.target.now().template, id)).await?;
    let mint = Mint {
        tenant: id.uuid(),
        sub: SERVICE.to_owned(),
        role: SERVICE.to_owned(),
        scopes: Scopes::ALL,
        ttl_s: inner.service_token_ttl_s,
    };
    let minted = inner.signer.sign(mint.clone())?;
    let token = token_row(&mint, &minted);
    let details = json!({ "slug": wish.slug, "name": wish.name, "plan": wish.plan, "jti": minted.jti });
    let action = by.did("tenant.create", Some(id.to_string()), details);
    let made = move |row: &TenantRow| answer(201, &json!({ "tenant": row.to_json(), "token": minted.token }));
    let row = {
        let _changed = inner.changing(id);
        inner.app.tenant_activate(id.uuid(), token, once, made.clone(), action).await?
    };
    Ok(made(&row))
}

/// Nothing remains of what failed. What it failed for may be `app` itself: then it takes a moment until that is served again.
async fn settle(inner: &Arc<Inner>, id: TenantId, once: Option<Once>, error: Error) -> Result<Provisioned> {
    let mut left = clear_away(inner, id, once.clone(), &error).await;
    for pause in SETTLING {
        if left.is_ok() {
            break;
        }
        tokio::time::sleep(pause).await;
        left = clear_away(inner, id, once.clone(), &error).await;
    }
    if let Err(left) = left {
        tracing::error!(error = %left, tenant = %id, "a tenant that could not be provisioned leaves a row; the next start removes it");
    }
    Err(error)
}

/// Where the last commit's outcome is not known, the row is asked.
async fn clear_away(inner: &Arc<Inner>, id: TenantId, once: Option<Once>, error: &Error) -> Result<()> {
    if undecided(error) && inner.app.tenant(id.uuid()).await?.is_none_or(|row| row.state != State::Provisioning) {
        // If it lives, whoever has a key asks again and gets the token.
        return Ok(());
    }
    let work = inner.clone();
    inner.engine.blocking_reserved(move || files::remove(&work.layout, id)).await?;
    inner.app.tenant_abandon(id.uuid(), once).await
}

pub(super) fn token_row(mint: &Mint, minted: &Minted) -> TokenRow {
    TokenRow {
        jti: minted.jti,
        tenant_id: mint.tenant,
        sub: mint.sub.clone(),
        role: mint.role.clone(),
        scopes: mint.scopes.to_string(),
        created_at: now_ms(),
        expires_at: minted.expires_at.saturating_mul(1_000),
        revoked_at: None,
    }
}

pub(super) fn answer(status: u16, body: &Value) -> Answer {
    Answer { status, body: body.to_string().into_bytes() }
}

pub(super) fn body_hash(wish: &Wish) -> [u8; 32] {
    Sha256::digest(json!(wish).to_string()).into()
}

fn check_slug(slug: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = slug.len() <= SLUG_MAX && slug.bytes().all(|byte| plain(byte) || byte == b'-') && slug.bytes().next().is_some_and(plain);
    if fits {
        return Ok(());
    }
    Err(Error::bad_request("`slug` is not a slug")
        .hint(format!("1 to {SLUG_MAX} characters: lower-case letters, digits and hyphens, not starting with a hyphen.")))
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::bad_request("`name` is not a name").hint(format!("1 to {NAME_MAX} characters, none of them a control character.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_a_host_name_s_label_in_lower_case() {
        for slug in ["a", "0", "acme", "acme-2", "a-", &"x".repeat(63)] {
            assert!(check_slug(slug).is_ok(), "{slug}");
        }
        for slug in ["", "-a", "A", "a_b", "a b", "ä", "../x", "a\0", &"x".repeat(64)] {
            assert!(check_slug(slug).is_err(), "{slug}");
        }
    }

    #[test]
    fn a_name_is_any_text_without_control_characters() {
        for name in ["Acme", "Ünïcödé & Söhne", "株式会社", &"é".repeat(200)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "a\nb", "a\u{7f}", &"x".repeat(201)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}

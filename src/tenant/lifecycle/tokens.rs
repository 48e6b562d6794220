//! Tokens for a tenant: signed, listed, revoked. A revoked token is refused from the moment the call returns, also
//! where it is remembered as good.

use serde_json::json;
use uuid::Uuid;

use super::provision::{answer, token_row};
use super::{Lifecycle, Provisioned, undecided};
use crate::auth::{Mint, Scopes};
use crate::clock::rfc3339;
use crate::error::Result;
use crate::system::app::{Begun, Once, TokenRow};
use crate::system::audit::By;
use crate::tenant::TenantId;

/// What a token shall say; checked when it is signed.
#[derive(Clone, Debug)]
pub struct TokenWish {
    pub sub: String,
    pub role: String,
    pub scopes: Scopes,
    /// `None` for the configured life.
    pub expires_in_s: Option<u64>,
}

impl Lifecycle {
    /// Makes a token: 201 with `{"token","expires_at","jti"}`. With `once`, the answer of the first such call.
    pub async fn token_create(&self, by: By, id: TenantId, wish: TokenWish, once: Option<Once>) -> Result<Provisioned> {
        self.run(by, "token.create", Some(id), move |inner, by| async move {
            let ttl_s = wish.expires_in_s.unwrap_or(inner.token_ttl_s);
            let mint = Mint { tenant: id.uuid(), sub: wish.sub, role: wish.role, scopes: wish.scopes, ttl_s };
            let minted = inner.signer.sign(mint.clone())?;
            let row = token_row(&mint, &minted);
            let made = answer(201, &json!({ "token": minted.token, "expires_at": rfc3339(row.expires_at), "jti": row.jti }));
            let details =
                json!({ "jti": row.jti, "sub": row.sub, "role": row.role, "scopes": row.scopes, "expires_at": rfc3339(row.expires_at) });
            let action = by.did("token.create", Some(id.to_string()), details);
            match inner.app.token_create(row, made.clone(), once, action).await? {
                Begun::New => Ok(made),
                Begun::Answered(answer) => Ok(answer),
            }
        })
        .await
    }

    /// In the order they were made, after `after`.
    pub async fn tokens(&self, id: TenantId, after: Option<Uuid>, limit: u32) -> Result<Vec<TokenRow>> {
        self.inner.app.tokens(id.uuid(), after, limit).await
    }

    /// Revokes for good. Where nobody knows whether that was stored (`unknown`), the token is refused until the
    /// server is started again.
    pub async fn token_revoke(&self, by: By, id: TenantId, jti: Uuid) -> Result<TokenRow> {
        self.run(by, "token.revoke", Some(id), move |inner, by| async move {
            let action = by.did("token.revoke", Some(id.to_string()), json!({ "jti": jti }));
            let revoked = inner.app.token_revoke(id.uuid(), jti, action).await;
            if let Some(exp) = refused_until(&revoked) {
                inner.verifier.revoke(jti, exp);
            }
            revoked
        })
        .await
    }
}

/// When a token expires that is refused now, in seconds since the epoch.
fn refused_until(revoked: &Result<TokenRow>) -> Option<i64> {
    match revoked {
        Ok(row) => Some(row.expires_at / 1_000),
        // Its row is not known either.
        Err(error) if undecided(error) => Some(i64::MAX),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};

    #[test]
    fn a_token_is_refused_also_when_nobody_knows_whether_its_revocation_was_stored() {
        assert_eq!(refused_until(&Err(Error::new(Code::Unknown, "the disk failed"))), Some(i64::MAX));
        assert_eq!(refused_until(&Err(Error::not_found("no such token"))), None);
    }
}

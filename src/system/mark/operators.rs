//! An [`Operator`] is a person of the SaaS company. What makes one is the admin key.
//!
//! Bound: [`OPERATORS_MAX`] of them, all in memory.

use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::params;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Mark;
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::sqlite::Limits;
use crate::system::{column, secret};

/// What generated keys begin with, so that secret scanners know one.
pub const KEY_PREFIX: &str = "tnt_";
/// The shortest key that can be given, in bytes.
const KEY_MIN: usize = 16;
const KEY_MAX: usize = 512;
const OPERATORS_MAX: u32 = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    pub id: Uuid,
    pub name: String,
}

/// A new admin key: the prefix and 256 random bits.
pub fn generate_key() -> Result<String> {
    Ok(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret::random()?)))
}

impl Mark {
    /// Who the key belongs to. No I/O.
    pub fn verify_key(&self, key: &str) -> Option<Operator> {
        if key.len() > KEY_MAX {
            return None;
        }
        self.operators.read().unwrap_or_else(PoisonError::into_inner).get(&hash(key)).cloned()
    }

    pub fn has_operators(&self) -> bool {
        !self.operators.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Makes the operator, or gives them another key; the key they had works no more.
    pub async fn put_operator(&self, name: &str, key: &str) -> Result<Operator> {
        if key.len() < KEY_MIN || key.len() > KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::bad_request(format!("an admin key is {KEY_MIN} to {KEY_MAX} visible ASCII characters without spaces"))
                .hint("Leave it out to have one generated."));
        }
        let (name, hash) = (name.to_owned(), hash(key));
        let operator = self
            .db
            .write(Limits::default(), move |tx| {
                let taken = tx.row("SELECT 1 FROM mark_users WHERE key_hash = ?1 AND name <> ?2", params![hash, name], |_| Ok(()))?;
                if taken.is_some() {
                    return Err(Error::conflict("another operator has this admin key").hint("Give each operator a key of their own."));
                }
                tx.execute(
                    "INSERT INTO mark_users (id, name, key_hash, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
                     ON CONFLICT (name) DO UPDATE SET key_hash = excluded.key_hash, updated_at = excluded.updated_at, disabled_at = NULL
                     WHERE key_hash <> excluded.key_hash OR disabled_at IS NOT NULL",
                    params![Uuid::now_v7().to_string(), name, hash, now_ms()],
                )?;
                let id = tx.row("SELECT id FROM mark_users WHERE name = ?1", [&name], |row| column::uuid(row, 0))?;
                let id = id.ok_or_else(|| Error::internal("an operator just written is not there", &name))?;
                Ok(Operator { id, name: name.clone() })
            })
            .await?;
        self.load_operators().await?;
        Ok(operator)
    }

    pub(super) async fn load_operators(&self) -> Result<()> {
        let rows = self
            .db
            .read(Limits::default(), |r| {
                r.rows("SELECT id, name, key_hash FROM mark_users WHERE disabled_at IS NULL ORDER BY id LIMIT ?1", [OPERATORS_MAX], |row| {
                    Ok((row.get::<_, [u8; 32]>(2)?, Operator { id: column::uuid(row, 0)?, name: row.get(1)? }))
                })
            })
            .await?;
        *self.operators.write().unwrap_or_else(PoisonError::into_inner) = rows.into_iter().collect();
        Ok(())
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_its_prefix_and_256_bits() {
        let key = generate_key().unwrap();
        assert_eq!(key.len(), KEY_PREFIX.len() + 43);
        assert!(key.starts_with(KEY_PREFIX));
        assert_ne!(key, generate_key().unwrap());
    }
}

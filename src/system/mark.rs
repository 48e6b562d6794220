//! `mark`: the operators, and what they did. An operator shows an admin key; only its SHA-256 is stored, and all
//! operators are in memory, so that knowing one costs no I/O. The audit chain is appended to here by the relay
//! ([`super::Audit`]) alone.

mod log;
mod operators;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

pub use log::Appended;
pub use operators::{KEY_PREFIX, Operator, generate_key};

use crate::error::Result;
use crate::sqlite::Database;

#[derive(Clone)]
pub struct Mark {
    db: Arc<Database>,
    /// By the SHA-256 of their key. The file is the truth; this is filled from it at start and after a change.
    operators: Arc<RwLock<HashMap<[u8; 32], Operator>>>,
}

impl Mark {
    pub(super) async fn open(db: Arc<Database>) -> Result<Mark> {
        let mark = Mark { db, operators: Arc::default() };
        mark.load_operators().await?;
        Ok(mark)
    }
}

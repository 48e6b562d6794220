//! What is [`InForce`]: the [`Dialect`] that requests begin with. The application's policies and functions are read anew while
//! the server runs, all or nothing: where anything cannot be read, what was in force stays so.
//!
//! A request keeps to its end what was in force when it began. Each dialect has its own schemas and statements, so nothing
//! that was remembered under the policies of one is used under those of another.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;

use super::Dialect;
use super::policy::Problem;
use crate::error::Result;

/// Reads what the application declares. Blocking.
pub type Load = Box<dyn Fn() -> Result<(Dialect, Declared)> + Send + Sync>;

pub struct InForce {
    now: RwLock<Arc<Dialect>>,
    load: Load,
    /// Held from the reading on, so that what was read last is what is in force.
    loading: Mutex<()>,
}

/// What was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Declared {
    pub policies: usize,
    pub grants: usize,
    pub functions: usize,
    /// Of policies that do not hold on the tables that the migrations make: such tables are closed.
    pub problems: Vec<Problem>,
}

impl InForce {
    /// With what is declared now. Blocking. Errors: `bad_request` with file, line and column.
    pub fn begin(load: Load) -> Result<InForce> {
        let (dialect, _) = load()?;
        Ok(InForce { now: RwLock::new(Arc::new(dialect)), load, loading: Mutex::default() })
    }

    pub fn now(&self) -> Arc<Dialect> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts in force what is declared now. Blocking. Errors as of [`InForce::begin`]: then nothing has changed.
    pub fn read_anew(&self) -> Result<Declared> {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let (dialect, declared) = (self.load)()?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(dialect);
        Ok(declared)
    }
}

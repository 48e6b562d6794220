//! [`Limits`] are what one call to a database may take. Its time counts from when the closure starts: waiting for a lane has
//! bounds of its own.

use std::time::Duration;

use crate::config::Plan;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub time: Duration,
}

impl Limits {
    /// Of a tenant's statements.
    pub fn of(plan: &Plan) -> Limits {
        match plan.statement_ms {
            0 => Limits::default(),
            ms => Limits { time: Duration::from_millis(ms) },
        }
    }
}

impl Default for Limits {
    /// For our own statements.
    fn default() -> Self {
        Limits { time: Duration::from_secs(10) }
    }
}

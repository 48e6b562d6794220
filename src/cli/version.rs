//! `tenantry version`: what this binary is made of, for a bug report or a compatibility check.

use serde_json::json;

use super::{Global, print};
use crate::error::Result;

const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

pub fn run(global: &Global) -> Result<()> {
    let (tenantry, sqlite) = (env!("CARGO_PKG_VERSION"), rusqlite::version());
    if global.json {
        print::line(&json!({ "tenantry": tenantry, "sqlite": sqlite, "profile": PROFILE }).to_string());
    } else {
        print::line(&format!("tenantry {tenantry}\nSQLite {sqlite}\nprofile {PROFILE}"));
    }
    Ok(())
}

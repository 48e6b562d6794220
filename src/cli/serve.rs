//! `tenantry serve`: the configuration, then the server, until it is told to stop.

use super::Global;
use crate::config::source::Ambient;
use crate::error::Result;
use crate::server;

pub fn run(global: &Global) -> Result<()> {
    let ambient = Ambient::read()?;
    let admin_key = ambient.admin_key.clone();
    server::run(global.effective(ambient)?.config, admin_key)
}

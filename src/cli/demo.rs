//! `tenantry demo`: a server in this process, filled and called over HTTP as a SaaS product would, with every
//! answer checked. What it prints is an account of calls that were made: the first answer that is not what it
//! should be ends the demo with an error. It can run again on the same data.

mod break_in;
mod caller;
mod people;
mod story;

use std::fs::DirBuilder;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::client::{Client, url_of};
use super::{Global, print};
use crate::config::Config;
use crate::config::source::{Ambient, Effective, Origin};
use crate::error::{Error, Result};
use crate::server::{self, Running};

/// The example application's rules, which the server reads when it starts. Its migration is not among them: a server that
/// does not know it would refuse the files that have had it, and this data directory may be served without the demo.
const RULES: [(&str, &str, &str); 2] = [
    ("policies", "board.sql", include_str!("../../deploy/example/policies/board.sql")),
    ("functions", "whoami.sql", include_str!("../../deploy/example/functions/whoami.sql")),
];

#[derive(Args)]
pub struct Demo {
    /// Stop after the account instead of serving on
    #[arg(long)]
    exit: bool,
}

impl Demo {
    pub fn run(&self, global: &Global) -> Result<()> {
        let ambient = Ambient::read()?;
        let (first_key, program) = (ambient.admin_key.clone(), ambient.program.clone());
        let key = global.key.clone().or(first_key.clone());
        let mut config = settled(global.effective(ambient)?);
        let data_dir = config.data_dir.clone();
        // Where an application is configured, its own rules hold.
        let with_rules = config.tenants.migrations_dir.is_none();
        if with_rules {
            config.tenants.migrations_dir = Some(rules(&data_dir)?);
        }
        let running = server::start(config, first_key)?;
        let told = operator(&running, key).and_then(|client| story::tell(&client, &data_dir, &program, with_rules));
        if told.is_err() || self.exit {
            running.stop()?;
            return told;
        }
        print::line(&format!("\nServing on {} until Ctrl-C.", url_of(running.addr)));
        running.wait()
    }
}

/// The configuration for a demo: the account is not to be drowned by the log, and a default port that somebody
/// else has is no reason not to show anything. What was configured on purpose stays as it is.
fn settled(effective: Effective) -> Config {
    let by_default = |key: &str| *effective.origin(key) == Origin::Default;
    let (quiet, any_port) = (by_default("telemetry.log"), by_default("listen"));
    let mut config = effective.config;
    if quiet {
        "warn".clone_into(&mut config.telemetry.log);
    }
    if any_port && is_taken(config.listen) {
        print::line(&format!("Port {} is taken, so the demo takes a free one.", config.listen.port()));
        config.listen.set_port(0);
    }
    config
}

/// Writes the rules to a folder of the data directory: which.
fn rules(data_dir: &Path) -> Result<PathBuf> {
    let folder = data_dir.join("example");
    for (kind, file, text) in RULES {
        let path = folder.join(kind).join(file);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder.join(kind));
        made.and_then(|()| std::fs::write(&path, text))
            .map_err(|e| Error::bad_request(format!("{} cannot be written: {e}", path.display())).hint("--data-dir names where."))?;
    }
    Ok(folder)
}

fn is_taken(addr: SocketAddr) -> bool {
    TcpListener::bind(addr).is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
}

fn operator(running: &Running, key: Option<String>) -> Result<Client> {
    let path = &running.admin_key_path;
    let key = match key {
        Some(key) => key,
        None => std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|e| {
            Error::bad_request(format!("the operator's key in {} cannot be read: {e}", path.display()))
                .hint("This data directory was first started with a key of its own: give it as TENANTRY_ADMIN_KEY.")
        })?,
    };
    Client::new(&url_of(running.addr), Some(key))
}

//! The command line: a tree of commands, one file per noun. `serve` and `demo` run a server in this process;
//! every other command is a client of the admin API and can do nothing that its HTTP caller could not.
//!
//! Exit codes: 0 it worked, 1 it did not (one `error:` line on stderr, with the next step under it), 2 the
//! arguments make no sense. Answers go to stdout, everything about them to stderr, so output can be piped.

mod audit;
mod client;
mod config;
mod demo;
mod health;
pub mod load;
mod migrate;
mod policy;
mod print;
mod serve;
mod sql;
mod tenant;
mod token;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::client::Client;
use crate::config::source::{self, Ambient, Effective, Inputs};
use crate::error::{Error, Result};

#[derive(Parser)]
#[command(name = "tenantry", version, about = "A multi-tenant SQLite backend for SaaS products, in one binary.")]
#[command(arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until SIGTERM or Ctrl-C
    Serve,
    /// Run a server, fill it with three example tenants, call everything once, and go on serving
    Demo(demo::Demo),
    /// Tenants: create, list, change, suspend, delete, restore
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Tenants' tokens: create, list, revoke
    #[command(subcommand)]
    Token(token::Token),
    /// Migrations: what there is and where it was applied; bring tenants up to date
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// Policies: read them, and try them on a caller
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Run SQL in one tenant's database
    Sql(sql::Sql),
    /// The record of what operators did
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Put many tenants under load, check every answer, and report
    Load(load::Load),
    /// What the server says of itself: system databases, pools, bounds
    Health(health::Health),
    /// The effective configuration, and where each value came from
    Config,
    /// The versions of Tenantry and of the SQLite in it
    Version,
}

/// Options of every command. `serve`, `demo` and `config` read the configuration from them; the others find
/// the server with them.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Print what the API answered, as JSON
    #[arg(long, global = true)]
    json: bool,
    /// The server to call [env: TENANTRY_URL] [default: the configured listen address]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// The operator's key [env: TENANTRY_ADMIN_KEY] [default: the one in <data-dir>/system/admin.key]
    #[arg(long, global = true, value_name = "KEY")]
    key: Option<String>,
    /// The configuration file [env: TENANTRY_CONFIG] [default: ./tenantry.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the server's files live
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address the server accepts on; port 0 takes a free one
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<String>,
    /// Set one configuration key (may be repeated)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command, &cli.global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, global: &Global) -> Result<()> {
    match command {
        Command::Serve => serve::run(global),
        Command::Demo(demo) => demo.run(global),
        Command::Config => config::run(global),
        Command::Version => version::run(global),
        Command::Tenant(tenant) => tenant.run(&global.client()?, global.json),
        Command::Token(token) => token.run(&global.client()?, global.json),
        Command::Migrate(migrate) => migrate.run(&global.client()?, global.json),
        Command::Policy(policy) => policy.run(global),
        Command::Sql(sql) => sql.run(&global.client()?, global.json),
        Command::Audit(audit) => audit.run(&global.client()?, global.json),
        Command::Load(load) => load.run(global),
        Command::Health(health) => health.run(&global.client()?, global.json),
    }
}

impl Global {
    fn effective(&self, ambient: Ambient) -> Result<Effective> {
        source::load(&Inputs {
            file: self.config.clone(),
            data_dir: self.data_dir.clone(),
            listen: self.listen.clone(),
            set: self.set.clone(),
            ambient,
        })
    }

    /// A client for the server these options mean.
    fn client(&self) -> Result<Client> {
        let (url, key) = self.server()?;
        Client::new(&url, key)
    }

    /// The server these options mean, and the operator's key for it. The configuration is read only for what they
    /// leave open. The key that lies in the data directory goes to the server of that directory only: not to another
    /// machine that --url names, unless --data-dir names the directory too.
    fn server(&self) -> Result<(String, Option<String>)> {
        let ambient = Ambient::read()?;
        let (url, key) = (self.url.clone().or(ambient.url.clone()), self.key.clone().or(ambient.admin_key.clone()));
        if let (Some(url), Some(key)) = (&url, &key) {
            return Ok((url.clone(), Some(key.clone())));
        }
        let config = self.effective(ambient)?.config;
        let its_own = self.data_dir.is_some() || url.as_deref().is_none_or(client::is_on_this_machine);
        let key = key.or_else(|| its_own.then(|| client::key_in(&config.data_dir)).flatten());
        let url = match url {
            Some(url) => url,
            None if config.listen.port() == 0 => {
                return Err(Error::bad_request("the configured address has port 0, so where the server listens is not known from it")
                    .hint("Name the server with --url or TENANTRY_URL; it printed its address when it started."));
            }
            None => client::url_of(config.listen),
        };
        Ok((url, key))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_holds_together() {
        super::Cli::command().debug_assert();
    }
}

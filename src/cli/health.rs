//! `tenantry health`: what `GET /admin/v1/health` says, as a page; or only whether the server takes requests,
//! which needs no key and is what a container's health check asks.

use clap::Args;

use super::client::{Call, Client};
use super::print;
use crate::error::Result;

#[derive(Args)]
pub struct Health {
    /// Only whether the server is ready to serve (/readyz); needs no key
    #[arg(long)]
    ready: bool,
}

impl Health {
    pub fn run(&self, client: &Client, json: bool) -> Result<()> {
        let answer = if self.ready {
            client.checked(&Call { method: "GET", path: "/readyz", bearer: None, headers: &[], body: Vec::new() })?
        } else {
            client.get("/admin/v1/health")?
        };
        match json {
            true => print::body(&answer),
            false if self.ready => print::line("ready"),
            false => print::line(&print::document(&answer.json())),
        }
        Ok(())
    }
}

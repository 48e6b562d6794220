//! Tenantry, from the top: the life of a request.
//!
//! A front end sends `POST /v1/sql` with a token. [`http`] has one table of routes; the one for this path takes a
//! [`http::guard::TenantCall`], and getting one is the whole way from a token to files:
//!
//! 1. [`auth`] verifies the token and gives its claims. One claim is a UUID, and it names the tenant; nothing else
//!    in the request can.
//! 2. [`tenant::registry`] says whether that tenant is there and active, and under which plan; the plan's rate is
//!    checked.
//! 3. [`tenant::triples`] gives a lease of the tenant's triple: three databases that cost nothing until their
//!    first use and are not closed while the lease lives. Only a [`tenant::TenantId`] ever makes a path.
//!
//! The handler then calls one feature ([`sql`], [`hrana`], [`rest`], [`cache`], [`queue`], [`locks`]), which sends a closure to the file's
//! [`sqlite::Database`]: to a reader when SQLite says it only reads, else to the file's one writer, which gathers
//! what waits into one transaction, commits it, and only then lets anybody be answered. Blocking happens on the
//! lanes of [`sqlite::Engine`], in turn between tenants and under a deadline; async code never holds a connection.
//! Rows become bytes of JSON while SQLite steps, and those bytes are the answer.
//!
//! An operator's request goes the same way to [`tenant::lifecycle`] and [`system`], which remember tenants, tokens
//! and who did what, and to [`fleet`], which visits all tenants. [`server`] wires the parts and closes them; [`cli`] is another client of the same API.
//!
//! Imports run downward: cli, server, http, features, tenant, auth, system, sqlite, then config, telemetry, clock
//! and error. `tests/it/tidy.rs` holds that.

pub mod auth;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod fleet;
pub mod hrana;
pub mod http;
pub mod locks;
pub mod queue;
pub mod rest;
pub mod server;
pub mod sql;
pub mod sqlite;
pub mod system;
pub mod telemetry;
pub mod tenant;

//! Tenantry.

pub mod auth;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod http;
pub mod queue;
pub mod server;
pub mod sql;
pub mod sqlite;
pub mod system;
pub mod telemetry;
pub mod tenant;

//! Tenantry seen from outside: every test starts the real binary on a directory of its own (or shares one
//! server, with tenants of its own), and speaks HTTP to it. `docs/testing.md` says how to write one.

mod support;

mod audit;
mod auth;
mod bad_input;
mod bombs;
mod cache;
mod config;
mod cors;
mod crash;
mod damage;
mod demo;
mod differential;
mod eviction;
mod faults;
mod files;
mod fleet;
mod hrana;
mod images;
mod isolation;
mod lifecycle;
mod load;
mod locks;
mod openapi;
mod plans;
mod policy;
mod provisioning;
mod queue;
mod rest;
mod sandbox;
mod shutdown;
mod sql;
mod system;
mod tidy;

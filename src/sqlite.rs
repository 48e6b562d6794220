//! SQLite, in one place. A [`Database`] is one file: one writer that commits in groups, a few readers, opened on
//! first use. Async code never holds a connection: a closure goes in, runs on a lane of the [`Engine`], and its
//! value comes out. A [`Reader`] cannot write; a [`WriteTx`] cannot commit: the writer does, for a whole group.

mod authorizer;
mod checkpoint;
mod counters;
mod database;
mod descriptors;
mod engine;
mod executor;
mod fault;
mod functions;
mod gate;
mod idempotency;
mod memory;
mod migrate;
mod pool;
mod reader;
mod room;
mod session;
mod statement;
mod watch;
mod writer;

pub use authorizer::Needs;
pub use counters::Counters;
pub use database::{Database, FileState, Limits, Options};
pub use engine::Engine;
pub use executor::{Load, Party};
pub use gate::{Gate, Pass};
pub use idempotency::{Idempotency, IdempotencyKey};
pub use migrate::{Applied, Migration, Migrations, applied, template};
pub use reader::{Reader, WriteTx};
pub use room::Room;
pub use session::LENGTH_MAX;
pub use statement::{Cells, Effect, Output, Prepared, Script, is_vacuum};
pub use writer::Exclusive;

//! SQLite, in one place. A [`Database`] is one file: one writer that commits in groups, a few readers, opened on
//! first use. Async code never holds a connection: a closure goes in, runs on a lane of the [`Engine`], and its
//! value comes out. A [`Reader`] cannot write; a [`WriteTx`] cannot commit: the writer does, for a whole group.

mod authorizer;
mod checkpoint;
mod copy;
mod counters;
mod database;
mod descriptors;
mod engine;
mod executor;
mod fault;
mod few;
mod functions;
mod gate;
mod idempotency;
mod interactive;
mod key_index;
mod memory;
mod migrate;
mod origin;
mod pool;
mod reader;
mod room;
mod session;
mod shape;
mod statement;
mod trial;
mod turn;
mod versions;
mod watch;
mod workpiece;
mod writer;
mod written;

pub use authorizer::Needs;
pub use checkpoint::Leave;
pub use copy::remove_copy;
pub use counters::Counters;
pub use database::{Database, FileState, Limits, Options};
pub use engine::Engine;
pub use executor::{Load, Party};
pub use functions::Writing;
pub use gate::{Gate, Pass};
pub use idempotency::{Idempotency, IdempotencyKey};
pub use interactive::{Begin, Bounds, Interaction, Interactive};
pub use migrate::{Applied, Course, Examined, Migration, Migrations, Move, Moved, Problem, Text, Wanted, applied, rehearse, template};
pub use origin::Origin;
pub use reader::{Reader, WriteTx};
pub use room::has_room;
pub use session::LENGTH_MAX;
pub use shape::{Drift, Shape};
pub use statement::{ANYTHING, Cells, Effect, Prepared, Script, is_vacuum, may_only_read};
pub use trial::Trial;
pub use versions::{Seen, Sources};
pub use workpiece::{Access, Workpiece};
pub use writer::Exclusive;
pub use written::Written;

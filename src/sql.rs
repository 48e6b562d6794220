//! A tenant's SQL: a [`Request`] is statements or a script, run as one transaction (unless told otherwise) on
//! the tenant's database, answered in JSON that is written while SQLite steps.
//!
//! A request goes to a reader when SQLite says that all its statements only read, else to the writer. The first
//! word of a statement is used as a short cut to the writer only, where any statement is in good hands.
//!
//! A [`Query`] is one statement that reads, answered in the same way together with what the answer hangs on, for who
//! wants to keep it.

mod encode;
pub mod once;
pub mod outbox;
mod params;
mod query;
mod request;
mod run;

pub use encode::{Answering, Integers};
pub use params::{Param, Params};
pub use query::{Made, Query};
pub use request::{Mode, Request, STATEMENTS_MAX, Statement};
pub use run::{Answer, Caller, run};

//! Hrana: the protocol of the libSQL clients, versions 2 and 3, in its JSON encoding. A [`Stream`] is what a client takes
//! for its connection; [`proto`] is what goes over the wire.
//!
//! A statement outside a transaction goes the way of one of `/v1/sql`. A whole transaction in one batch, as the clients
//! send it, is one job among others that share a commit. Only a transaction that lives over several requests has a
//! connection of its own, from its BEGIN to its end. Over HTTP a stream waits for its client's next request in [`Streams`].

mod batch;
mod control;
pub mod proto;
mod statement;
mod stored;
mod stream;
mod streams;
mod text;

pub use stored::Stored;
pub use stream::{Context, Stream};
pub use streams::{Held, Owner, Place, Streams};

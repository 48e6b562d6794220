//! Hrana: the protocol of the libSQL clients, versions 2 and 3, in its JSON encoding. A *stream* is what a client takes
//! for its connection; [`proto`] is what goes over the wire.

pub mod proto;

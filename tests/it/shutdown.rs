//! Behaviour of shutdown, seen from outside.

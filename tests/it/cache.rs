//! Behaviour of cache, seen from outside.

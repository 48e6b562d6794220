//! Behaviour of eviction, seen from outside.

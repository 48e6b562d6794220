//! Behaviour of demo, seen from outside.

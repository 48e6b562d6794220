//! Behaviour of system, seen from outside.

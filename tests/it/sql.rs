//! Behaviour of sql, seen from outside.

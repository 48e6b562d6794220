//! Behaviour of audit, seen from outside.

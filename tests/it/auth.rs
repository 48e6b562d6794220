//! Behaviour of auth, seen from outside.

//! Behaviour of tidy, seen from outside.

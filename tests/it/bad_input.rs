//! Behaviour of bad_input, seen from outside.

//! Behaviour of config, seen from outside.

//! Behaviour of lifecycle, seen from outside.

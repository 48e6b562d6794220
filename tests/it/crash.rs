//! Behaviour of crash, seen from outside.

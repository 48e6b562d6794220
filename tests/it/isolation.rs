//! Behaviour of isolation, seen from outside.

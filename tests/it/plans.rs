//! Behaviour of plans, seen from outside.

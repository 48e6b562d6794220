//! Behaviour of queue, seen from outside.

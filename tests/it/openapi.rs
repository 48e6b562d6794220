//! Behaviour of openapi, seen from outside.

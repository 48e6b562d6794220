//! Behaviour of provisioning, seen from outside.

//! A tenant: its id, where its files are, what the registry knows of it, and its triple of open databases.

pub mod id;
pub mod layout;
pub mod triples;

pub use id::TenantId;
pub use layout::{Layout, Role};
pub use triples::{Lease, Triples};

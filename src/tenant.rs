//! A tenant: its id, where its files are, what the registry knows of it, and its triple of open databases.

pub mod id;
pub mod layout;
pub mod lease;
pub mod lifecycle;
pub mod rate;
pub mod registry;
pub mod target;
pub mod template;
pub mod triples;
pub mod wakeups;

pub use id::TenantId;
pub use layout::{Layout, Role};
pub use lifecycle::Lifecycle;
pub use registry::{Registry, Tenant};
pub use target::Target;
pub use template::{Blueprint, Template};
pub use triples::{Lease, Triples};
pub use wakeups::Wakeups;

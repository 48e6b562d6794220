//! Who is calling. A request carries a token; [`Verifier`] turns it into [`Claims`], one of which names the
//! tenant, and nothing else in a request can. Tokens are ours ([`Signer`], keys in the [`KeyRing`]) or an identity
//! provider's, whose keys the configuration says where to find.
//!
//! What holds for every token:
//!
//! - The key decides the algorithm, and the configuration decides the keys. A token's header chooses among them
//!   and can add nothing.
//! - `iss`, `aud` and `exp` are required and checked, `nbf` where it is there; names and values exactly.
//! - A payload with a name in it twice is no payload.
//! - Every refusal is [`invalid_token`], byte for byte.
//!
//! This layer is below the tenants and knows them as [`Uuid`](uuid::Uuid)s: whether one exists, is suspended or
//! was deleted is for the registry, which answers a foreign or unknown tenant with the same [`invalid_token`].

mod claims;
mod issuer;
mod jwk;
mod jwks;
mod key;
mod revoked;
pub mod scope;
mod strict;
mod token;
mod verifier;

pub use claims::{Claims, ROLE_MAX, SERVICE, SUB_MAX};
pub use key::KeyRing;
pub use scope::{Scope, Scopes};
pub use token::{Mint, Minted, Signer, TOKEN_MAX};
pub use verifier::{Fingerprint, Verified, Verifier, fingerprint};

use crate::error::{Code, Error};

/// What every token is answered that gives no access, whatever the reason.
pub fn invalid_token() -> Error {
    Error::new(Code::Unauthenticated, "the token is not valid")
        .hint("It may have expired, been revoked, or be meant for another server. Get a new one and try again.")
}

/// What a request without a token is answered.
pub fn missing_token() -> Error {
    Error::new(Code::Unauthenticated, "this needs a token").hint("Send it as `Authorization: Bearer <token>`.")
}

//! A [`Secret`] signs deliveries, in the form of Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 over
//! `id.timestamp.body`. It is written `whsec_` and base64.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::error::{Error, Result};

const PREFIX: &str = "whsec_";

/// The shortest and the longest, in bytes.
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Errors: `bad_request`.
    pub fn parse(text: &str) -> Result<Secret> {
        let bytes = text.strip_prefix(PREFIX).and_then(|base64| BASE64.decode(base64).ok());
        let fits = |bytes: &Vec<u8>| (BYTES_MIN..=BYTES_MAX).contains(&bytes.len());
        bytes.filter(fits).map(Secret).ok_or_else(|| {
            Error::bad_request(format!("secret is not {PREFIX} and the base64 of {BYTES_MIN} to {BYTES_MAX} bytes"))
                .hint("Leave it out to have one made.")
        })
    }

    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it is shown, once.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }

    pub(super) fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length is one");
        for part in [id.as_bytes(), b".", timestamp_s.to_string().as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_standard_webhooks_does() {
        // The example of the specification's own libraries.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.text(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn what_is_too_short_or_no_base64_is_refused() {
        for text in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!", &format!("whsec_{}", BASE64.encode([1; 65]))]
        {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
    }
}

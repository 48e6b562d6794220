//! `tenantry token`: tokens of one tenant. A new token is the only thing on stdout, so that
//! `TOKEN=$(tenantry token create acme)` works.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, encode, query};
use super::print;
use super::tenant::{Live, resolve};
use crate::auth::scope::Scopes;
use crate::error::{Code, Error, Result};

#[derive(Subcommand)]
pub enum Token {
    /// Make a token and print it
    Create {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
        /// Who it is for
        #[arg(long, default_value = "cli")]
        sub: String,
        #[arg(long, default_value = "service")]
        role: String,
        /// What it may do, comma-separated or repeated [default: everything]
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
        scopes: Vec<String>,
        /// How long it lives: seconds, or with a unit: 90s, 15m, 24h, 30d [default: auth.token_ttl_s]
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires_in: Option<u64>,
    },
    /// List a tenant's tokens (never the tokens themselves)
    List {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
        /// Tokens in this page
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// The cursor that the page before ended with
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Revoke a token; acts at once
    Revoke {
        #[arg(value_name = "ID|SLUG")]
        tenant: String,
        /// The token's id, as `list` shows it
        jti: String,
    },
}

impl Token {
    pub fn run(&self, client: &Client, json: bool) -> Result<()> {
        match self {
            Token::Create { tenant, sub, role, scopes, expires_in } => {
                let id = resolve(client, tenant, Live::Yes)?;
                let scopes = if scopes.is_empty() { Scopes::ALL } else { Scopes::parse(scopes.iter().map(String::as_str))? };
                let mut body = json!({ "role": role, "sub": sub, "scopes": scopes });
                if let Some(seconds) = expires_in {
                    body["expires_in_s"] = json!(seconds);
                }
                let answer = client.post(&format!("/admin/v1/tenants/{id}/tokens"), &body)?;
                if json {
                    print::body(&answer);
                    return Ok(());
                }
                let minted = answer.json();
                print::note(&format!(
                    "token {} of {tenant}, good until {}:",
                    print::cell(&minted["jti"]),
                    print::cell(&minted["expires_at"])
                ));
                print::line(token_in(&minted)?);
                Ok(())
            }
            Token::List { tenant, limit, after } => {
                let id = resolve(client, tenant, Live::Yes)?;
                let page = query(&[("limit", Some(&limit.to_string())), ("after", after.as_deref())]);
                let answer = client.get(&format!("/admin/v1/tenants/{id}/tokens{page}"))?;
                if json {
                    print::body(&answer);
                    return Ok(());
                }
                let body = answer.json();
                let tokens = body["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
                print::line(&print::list(tokens, &["jti", "sub", "role", "scopes", "created_at", "expires_at", "revoked_at"]));
                print::more(&body);
                Ok(())
            }
            Token::Revoke { tenant, jti } => {
                let id = resolve(client, tenant, Live::Yes)?;
                let answer = client.delete(&format!("/admin/v1/tenants/{id}/tokens/{}", encode(jti)))?;
                match json {
                    true if !answer.body.is_empty() => print::body(&answer),
                    true => {}
                    false => print::line(&format!("{jti}: revoked")),
                }
                Ok(())
            }
        }
    }
}

/// Mints a token for one use by this program: `seconds` of life, these scopes only.
pub fn mint(client: &Client, tenant_id: &str, sub: &str, role: &str, scopes: Scopes, seconds: u64) -> Result<String> {
    let body = json!({ "role": role, "sub": sub, "scopes": scopes, "expires_in_s": seconds });
    let minted = client.post(&format!("/admin/v1/tenants/{tenant_id}/tokens"), &body)?.json();
    token_in(&minted).map(str::to_owned)
}

fn token_in(minted: &Value) -> Result<&str> {
    minted["token"].as_str().ok_or_else(|| Error::new(Code::Internal, "the server's answer has no token in it"))
}

/// `90`, `90s`, `15m`, `24h`, `30d`.
fn seconds(text: &str) -> std::result::Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 1,
    };
    let parsed = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    let seconds = parsed.and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0);
    seconds.ok_or_else(|| "expected a time such as 90, 90s, 15m, 24h or 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_life_is_given_in_seconds_or_with_a_unit() {
        assert_eq!(["90", "90s", "15m", "24h", "30d"].map(|t| seconds(t).unwrap()), [90, 90, 900, 86_400, 2_592_000]);
        for wrong in ["", "0", "-1", "+5", "1.5h", "h", "1w", "18446744073709551615d", "5 m"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

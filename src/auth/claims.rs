//! [`Claims`]: what a verified token says. [`Rules`] say what an issuer's tokens must say, and turn a payload
//! into claims or refuse it. Names and values are compared exactly: another case, another type or a look-alike
//! letter is another claim, and a missing one.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::scope::{Scope, Scopes};
use crate::config;
use crate::error::{Error, Result};

/// The longest `sub`, in bytes.
pub const SUB_MAX: usize = 256;
/// The longest role, in bytes.
pub const ROLE_MAX: usize = 64;
/// The role that no policy holds back: of a tenant's own back end, and of our own tokens only.
pub const SERVICE: &str = "service";
/// The role of a token that names none.
const ROLE_DEFAULT: &str = "authenticated";
/// The latest instant a token may name: the end of the year 9999, in seconds since the epoch.
const LATEST: i64 = 253_402_300_799;

/// Why a token was refused; for the log at level debug, never for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// What a verified token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    pub tenant: Uuid,
    /// Who it is within the tenant; not empty.
    pub sub: String,
    pub role: String,
    pub scopes: Scopes,
    /// Our own tokens have one; another issuer's only when it is a UUID.
    pub jti: Option<Uuid>,
    /// Seconds since the epoch.
    pub exp: i64,
    /// The whole payload as it was signed, one JSON object.
    pub payload: Box<str>,
}

impl Claims {
    /// What an operator's key says where a token is asked for.
    pub fn of_operator(name: &str) -> Claims {
        Claims {
            tenant: Uuid::nil(),
            sub: name.to_owned(),
            role: "operator".to_owned(),
            scopes: Scopes::ALL,
            jti: None,
            exp: LATEST,
            payload: "{}".into(),
        }
    }

    /// `forbidden`, naming the scope, unless the token carries it.
    pub fn require(&self, scope: Scope) -> Result<()> {
        self.scopes.require(scope)
    }
}

/// Where a claim stands in the payload: `org_id`, or as a JSON pointer `/app_metadata/tenant_id`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// `setting` names the setting for the error.
    pub fn parse(text: &str, setting: &str) -> Result<ClaimPath> {
        let names: Option<Vec<String>> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect(),
            None => Some(vec![text.to_owned()]),
        };
        names.filter(|names| names.iter().all(|name| !name.is_empty())).map(ClaimPath).ok_or_else(|| {
            Error::bad_request(format!("`{setting}` = {text:?} names no claim"))
                .hint("It is a claim's name such as `tenant_id`, or a JSON pointer such as `/app_metadata/tenant_id`.")
        })
    }

    pub fn first(&self) -> &str {
        &self.0[0]
    }

    pub fn find<'a>(&self, payload: &'a Map<String, Value>) -> Option<&'a Value> {
        let (last, objects) = self.0.split_last()?;
        let mut at = payload;
        for name in objects {
            at = at.get(name)?.as_object()?;
        }
        at.get(last)
    }

    /// Writes `value` where [`find`](ClaimPath::find) finds it.
    pub fn put(&self, payload: &mut Map<String, Value>, value: Value) {
        let Some((last, objects)) = self.0.split_last() else { return };
        let mut at = payload;
        for name in objects {
            let next = at.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = next else { return };
            at = next;
        }
        at.insert(last.clone(), value);
    }
}

/// RFC 6901: `~1` is `/` and `~0` is `~`.
fn unescape(name: &str) -> Option<String> {
    let valid = name.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    valid.then(|| name.replace("~1", "/").replace("~0", "~"))
}

/// What the tokens of one issuer must say.
pub struct Rules {
    pub issuer: String,
    audience: String,
    tenant: ClaimPath,
    role: ClaimPath,
    /// For tokens that name no scope of ours; `None` when they must carry `scopes`, as our own do.
    default_scopes: Option<Scopes>,
    leeway: i64,
}

impl Rules {
    /// For our own tokens.
    pub fn own(config: &config::Auth) -> Result<Rules> {
        Ok(Rules {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            tenant: ClaimPath::parse(&config.tenant_claim, "auth.tenant_claim")?,
            role: ClaimPath::parse("role", "auth.role_claim")?,
            default_scopes: None,
            leeway: leeway(config),
        })
    }

    /// For an identity provider's tokens.
    pub fn of(issuer: &config::Issuer, config: &config::Auth) -> Result<Rules> {
        let scopes = Scopes::parse(issuer.default_scopes.iter().map(String::as_str))
            .map_err(|e| Error::bad_request(format!("`default_scopes` of the issuer {}: {}", issuer.issuer, e.message())))?;
        Ok(Rules {
            issuer: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            tenant: ClaimPath::parse(issuer.tenant_claim.as_deref().unwrap_or(&config.tenant_claim), "auth.issuers.tenant_claim")?,
            role: ClaimPath::parse(issuer.role_claim.as_deref().unwrap_or("role"), "auth.issuers.role_claim")?,
            default_scopes: Some(scopes),
            leeway: leeway(config),
        })
    }

    /// Reads a payload whose signature holds and whose `iss` chose these rules. `text` is the payload, `members`
    /// the same parsed.
    pub fn read(&self, members: &Map<String, Value>, text: &str, now: i64) -> Result<Claims, Refused> {
        let for_us = match members.get("aud") {
            Some(Value::String(audience)) => *audience == self.audience,
            Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience.as_str() == Some(&self.audience)),
            _ => false,
        };
        if !for_us {
            return Err(Refused("aud is missing or another"));
        }
        let exp = members.get("exp").and_then(instant).ok_or(Refused("exp is missing or no instant"))?;
        if now >= exp + self.leeway {
            return Err(Refused("it has expired"));
        }
        if let Some(nbf) = members.get("nbf") {
            let nbf = instant(nbf).ok_or(Refused("nbf is no instant"))?;
            if now + self.leeway < nbf {
                return Err(Refused("it is not valid yet"));
            }
        }
        let role = match self.role.find(members) {
            None => ROLE_DEFAULT.to_owned(),
            role => text_claim(role, ROLE_MAX).ok_or(Refused("the role is no bounded text"))?,
        };
        // Only our own must carry scopes.
        if role == SERVICE && self.default_scopes.is_some() {
            return Err(Refused("the role service is another issuer's to give"));
        }
        Ok(Claims {
            tenant: self
                .tenant
                .find(members)
                .and_then(Value::as_str)
                .and_then(tenant_id)
                .ok_or(Refused("no tenant claim that is a UUID"))?,
            sub: text_claim(members.get("sub"), SUB_MAX).ok_or(Refused("sub is missing or no bounded text"))?,
            role,
            scopes: self.scopes(members)?,
            jti: members.get("jti").and_then(Value::as_str).and_then(|jti| Uuid::try_parse(jti).ok()),
            exp,
            payload: text.into(),
        })
    }

    fn scopes(&self, members: &Map<String, Value>) -> Result<Scopes, Refused> {
        let claimed = match members.get("scopes").or_else(|| members.get("scope")) {
            None => None,
            Some(Value::String(list)) => Some(Scopes::known(list.split_ascii_whitespace())),
            Some(Value::Array(names)) => {
                let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                Some(Scopes::known(names.ok_or(Refused("the scopes are not all text"))?))
            }
            Some(_) => return Err(Refused("the scopes are no list")),
        };
        match (claimed, self.default_scopes) {
            (Some(claimed), Some(default)) if claimed.is_empty() => Ok(default),
            (Some(claimed), _) => Ok(claimed),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(Refused("a token of ours without scopes")),
        }
    }

    /// When a token that expires at `exp` is refused for good, in seconds since the epoch.
    pub fn end_of(&self, exp: i64) -> i64 {
        exp.saturating_add(self.leeway)
    }
}

fn leeway(config: &config::Auth) -> i64 {
    i64::try_from(config.leeway_s).unwrap_or(LATEST).min(LATEST)
}

/// A NumericDate: a JSON number of seconds from 0 to the end of the year 9999. A fraction is cut off.
fn instant(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    let seconds = match number.as_i64() {
        Some(seconds) => seconds,
        None => {
            let seconds = number.as_f64()?.floor();
            (0.0..=LATEST as f64).contains(&seconds).then_some(seconds as i64)?
        }
    };
    (0..=LATEST).contains(&seconds).then_some(seconds)
}

/// A UUID in its one canonical spelling, so that no two texts name one tenant.
fn tenant_id(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(id)
}

fn text_claim(value: Option<&Value>, max: usize) -> Option<String> {
    value?.as_str().filter(|text| !text.is_empty() && text.len() <= max).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_named_or_pointed_to() {
        let payload = serde_json::json!({"a": 1, "https://x.example/t": 2, "m": {"t": 3, "a/b": 4, "~1": 5}, "l": [6]});
        let find = |path: &str| ClaimPath::parse(path, "x").unwrap().find(payload.as_object().unwrap()).and_then(Value::as_i64);
        assert_eq!(find("a"), Some(1));
        assert_eq!(find("https://x.example/t"), Some(2));
        assert_eq!(find("/m/t"), Some(3));
        assert_eq!(find("/m/a~1b"), Some(4));
        assert_eq!(find("/m/~01"), Some(5));
        assert_eq!(find("A"), None);
        assert_eq!(find("/l/0"), None);
        for broken in ["", "/", "/a//b", "/a/", "/a~2b", "/a~"] {
            assert!(ClaimPath::parse(broken, "x").is_err(), "{broken}");
        }
    }

    #[test]
    fn a_claim_is_written_where_it_is_found() {
        let path = ClaimPath::parse("/app_metadata/tenant_id", "x").unwrap();
        let mut payload = Map::new();
        path.put(&mut payload, 7.into());
        assert_eq!(path.find(&payload), Some(&Value::from(7)));
    }

    #[test]
    fn an_instant_is_a_number_within_reach() {
        let of = |json: &str| serde_json::from_str::<Value>(json).ok().as_ref().and_then(instant);
        assert_eq!(of("1795214602"), Some(1_795_214_602));
        assert_eq!(of("1795214602.9"), Some(1_795_214_602));
        for refused in
            ["-1", "-0.5", "\"1795214602\"", "1e400", "1e300", "9223372036854775807", "18446744073709551615", "null", "[1]", "true"]
        {
            assert_eq!(of(refused), None, "{refused}");
        }
    }

    #[test]
    fn a_tenant_has_one_spelling() {
        let id = "019391f4-8a2b-7c3d-9e4f-5a6b7c8d9e0f";
        assert!(tenant_id(id).is_some());
        for other in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            format!("{id} "),
            id.replace('a', "а"),
            "../x".to_owned(),
        ] {
            assert_eq!(tenant_id(&other), None, "{other}");
        }
    }
}

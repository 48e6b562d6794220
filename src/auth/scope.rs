//! A [`Scope`] is one thing a token may do on its tenant's files; [`Scopes`] is the set of them a token
//! carries, one byte wide. A name that is not ours is an error where somebody asks for it and means nothing
//! where a verified token already carries it: identity providers put scopes of their own in there.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::sqlite::Needs;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    SqlRead,
    SqlWrite,
    SqlSchema,
    Cache,
    QueueProduce,
    QueueConsume,
}

impl Scope {
    pub const ALL: [Scope; 6] = [Scope::SqlRead, Scope::SqlWrite, Scope::SqlSchema, Scope::Cache, Scope::QueueProduce, Scope::QueueConsume];

    /// The name in tokens and in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::SqlRead => "sql:read",
            Scope::SqlWrite => "sql:write",
            Scope::SqlSchema => "sql:schema",
            Scope::Cache => "cache",
            Scope::QueueProduce => "queue:produce",
            Scope::QueueConsume => "queue:consume",
        }
    }

    /// The scope of exactly this name.
    pub fn named(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes. On the wire a list of names; shown with spaces between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    pub const NONE: Scopes = Scopes(0);

    /// What a service token carries.
    pub const ALL: Scopes = Scopes((1 << Scope::ALL.len()) - 1);

    pub const fn of(scope: Scope) -> Scopes {
        Scopes(scope.bit())
    }

    #[must_use]
    pub const fn with(self, scope: Scope) -> Scopes {
        Scopes(self.0 | scope.bit())
    }

    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// `forbidden`, naming the scope, unless the set has it.
    pub fn require(self, scope: Scope) -> Result<()> {
        if self.has(scope) {
            return Ok(());
        }
        Err(Error::forbidden(format!("this token lacks the scope `{scope}`")).hint(format!(
            "It has: {}. Ask for a token with `{scope}`.",
            if self.is_empty() { "none".to_owned() } else { self.to_string() }
        )))
    }

    /// `forbidden`, naming the scope, unless the set has what a statement needs.
    pub fn permit(self, needs: Needs) -> Result<()> {
        if needs.has(Needs::SCHEMA) {
            return self.require(Scope::SqlSchema);
        }
        if needs.has(Needs::WRITE) {
            self.require(Scope::SqlWrite)?;
        }
        if needs.has(Needs::READ) { self.require(Scope::SqlRead) } else { Ok(()) }
    }

    /// Reads names somebody asks for. An unknown one is `bad_request` and names the nearest that exists.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Scopes> {
        names.into_iter().try_fold(Scopes::NONE, |set, name| match Scope::named(name) {
            Some(scope) => Ok(set.with(scope)),
            None => Err(unknown(name)),
        })
    }

    /// [`parse`](Scopes::parse) for names with white space between them.
    pub fn parse_list(names: &str) -> Result<Scopes> {
        Self::parse(names.split_ascii_whitespace())
    }

    /// Takes the names that are ours and passes over the others: for a token that was already verified.
    pub fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> Scopes {
        names.into_iter().filter_map(Scope::named).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Scopes {
        scopes.into_iter().fold(Scopes::NONE, Scopes::with)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            write!(f, "{}{scope}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Scope::as_str))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scopes, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Scopes::parse(names.iter().map(String::as_str)).map_err(|e| serde::de::Error::custom(e.message()))
    }
}

/// The longest piece of an unknown name that is shown back, in characters.
const SHOWN: usize = 40;

fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(SHOWN).collect();
    let nearest = Scope::ALL.into_iter().max_by(|a, b| {
        let near = |scope: &Scope| strsim::jaro_winkler(scope.as_str(), &shown);
        near(a).total_cmp(&near(b))
    });
    let nearest = nearest.map(|scope| format!(", did you mean `{scope}`?")).unwrap_or_default();
    Error::bad_request(format!("there is no scope `{}`{nearest}", shown.escape_debug())).hint(format!("The scopes are: {}.", Scopes::ALL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_set_survives_text_and_json() {
        let set = Scopes::of(Scope::SqlRead).with(Scope::QueueConsume);
        assert_eq!(set.to_string(), "sql:read queue:consume");
        assert_eq!(Scopes::parse_list(&set.to_string()).unwrap(), set);
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"["sql:read","queue:consume"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(&json).unwrap(), set);
        assert_eq!(Scope::ALL.into_iter().collect::<Scopes>(), Scopes::ALL);
    }

    #[test]
    fn an_unknown_name_asked_for_is_refused_with_the_nearest() {
        let error = Scopes::parse(["sql:read", "sql:wriet"]).unwrap_err();
        assert_eq!(error.code(), Code::BadRequest);
        assert!(error.message().contains("did you mean `sql:write`?"), "{}", error.message());
        assert!(Scopes::parse(["SQL:READ"]).is_err());
        assert!(Scopes::parse(["sql:read sql:write"]).is_err());
        assert!(serde_json::from_str::<Scopes>(r#"["everything"]"#).is_err());
    }

    #[test]
    fn an_unknown_name_in_a_verified_token_means_nothing() {
        assert_eq!(Scopes::known(["openid", "sql:read", "admin"]), Scopes::of(Scope::SqlRead));
    }

    #[test]
    fn a_missing_scope_is_named() {
        let error = Scopes::of(Scope::Cache).require(Scope::SqlSchema).unwrap_err();
        assert_eq!(error.code(), Code::Forbidden);
        assert!(error.message().contains("`sql:schema`"));
        assert!(Scopes::ALL.require(Scope::SqlSchema).is_ok());
    }
}

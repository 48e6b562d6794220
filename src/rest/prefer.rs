//! What a request prefers: the `Prefer` header. What of it was followed is said in `Preference-Applied`.

use super::refusal;
use crate::error::Result;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    pub resolution: Option<Resolution>,
    pub missing: Option<Missing>,
    pub returns: Option<Returns>,
    pub count: Option<Count>,
    pub handling: Option<Handling>,
    pub max_affected: Option<u64>,
}

macro_rules! preferences {
    ($($(#[$about:meta])* $name:ident { $($variant:ident $text:literal)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            fn parse(text: &str) -> Option<$name> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }

            const fn text(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    )+};
}

preferences! {
    /// Of a row that is there already.
    Resolution { Merge "resolution=merge-duplicates" Ignore "resolution=ignore-duplicates" }
    /// What a member that a row lacks becomes.
    Missing { Default "missing=default" Null "missing=null" }
    Returns { Minimal "return=minimal" HeadersOnly "return=headers-only" Representation "return=representation" }
    Count { Exact "count=exact" Planned "count=planned" Estimated "count=estimated" }
    /// Of preferences that are not known.
    Handling { Strict "handling=strict" Lenient "handling=lenient" }
}

/// What a request can be made to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    Read,
    Insert,
    Change,
}

impl Prefer {
    /// From the values of all `Prefer` headers. The first of each kind counts.
    pub fn parse<'h>(headers: impl Iterator<Item = &'h str>) -> Result<Prefer> {
        let mut prefer = Prefer::default();
        let mut unknown = Vec::new();
        for text in headers.flat_map(|header| header.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
            let known = first(&mut prefer.resolution, Resolution::parse(text))
                || first(&mut prefer.missing, Missing::parse(text))
                || first(&mut prefer.returns, Returns::parse(text))
                || first(&mut prefer.count, Count::parse(text))
                || first(&mut prefer.handling, Handling::parse(text))
                || first(&mut prefer.max_affected, text.strip_prefix("max-affected=").and_then(|most| most.parse().ok()));
            // Known to PostgREST, and without effect here.
            if !known && !["tx=commit", "tx=rollback"].contains(&text) && !text.starts_with("timezone=") {
                unknown.push(text);
            }
        }
        match prefer.handling {
            Some(Handling::Strict) if !unknown.is_empty() => Err(refusal::unknown_preferences(&unknown)),
            _ => Ok(prefer),
        }
    }

    /// The most rows that may be changed.
    pub fn most(&self) -> Option<u64> {
        self.max_affected.filter(|_| self.handling == Some(Handling::Strict))
    }

    /// `Preference-Applied`, if anything was.
    pub fn applied(&self, to: Applies) -> Option<String> {
        let (insert, write) = (to == Applies::Insert, to != Applies::Read);
        let parts = [
            self.resolution.filter(|_| insert).map(|it| it.text().to_owned()),
            self.missing.filter(|_| write).map(|it| it.text().to_owned()),
            self.returns.filter(|_| write).map(|it| it.text().to_owned()),
            self.count.map(|it| it.text().to_owned()),
            self.handling.map(|it| it.text().to_owned()),
            self.most().filter(|_| write).map(|most| format!("max-affected={most}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn first<T>(slot: &mut Option<T>, found: Option<T>) -> bool {
    let known = found.is_some();
    if slot.is_none() {
        *slot = found;
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_followed_is_said_in_postgrests_order() {
        let prefer = Prefer::parse(["return=representation, count=exact", "resolution=merge-duplicates"].into_iter()).unwrap();
        assert_eq!(prefer.applied(Applies::Insert).unwrap(), "resolution=merge-duplicates, return=representation, count=exact");
        assert_eq!(prefer.applied(Applies::Read).unwrap(), "count=exact");
        assert_eq!(Prefer::default().applied(Applies::Insert), None);
    }

    #[test]
    fn only_strict_handling_minds() {
        assert!(Prefer::parse(["handling=strict, anything=else"].into_iter()).is_err());
        let lenient = Prefer::parse(["anything=else, max-affected=3"].into_iter()).unwrap();
        assert_eq!(lenient.most(), None);
        assert_eq!(Prefer::parse(["max-affected=3, handling=strict"].into_iter()).unwrap().most(), Some(3));
    }
}

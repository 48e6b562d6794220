//! [`Terms`] are for how long an entry is kept and under which tags, as they were said when it was set; [`Seconds`] are
//! how all of that is said. [`Life`] is what has become of them: the instants at which the entry ends to be what it was.

use uuid::Uuid;

use crate::clock::Millis;
use crate::error::{Error, Result};

/// The longest time, in seconds: ten years. Without a `ttl` an entry has no expiry at all.
pub const SECONDS_MAX: u32 = 10 * 365 * 86_400;

/// The most tags of an entry.
pub const TAGS_MAX: usize = 16;

/// The longest tag, in bytes.
pub const TAG_BYTES: usize = 128;

/// Whole seconds from 1 to [`SECONDS_MAX`], so that no instant overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(u32);

/// Something that entries have in common: 1 to [`TAG_BYTES`] bytes of text without control characters and commas.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tag(String);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    ttl: Option<Seconds>,
    sliding: Option<Seconds>,
    swr: Option<Seconds>,
    sie: Option<Seconds>,
    jitter: Option<Seconds>,
    tags: Vec<Tag>,
}

/// [`Terms`] before they are known to fit together.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Fresh for so long at most.
    pub ttl: Option<Seconds>,
    /// Fresh for so long after it was read last.
    pub sliding: Option<Seconds>,
    /// Stale while revalidate: answered for so long after it was fresh, as stale.
    pub swr: Option<Seconds>,
    /// Stale if error: for so long after it was fresh, answered to who could not make it anew.
    pub sie: Option<Seconds>,
    /// `ttl` is shortened by a part of this, by chance, so that what was set together does not expire together.
    pub jitter: Option<Seconds>,
    pub tags: Vec<Tag>,
}

/// Until when an entry is what.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Life {
    /// Fresh until then; `None` for good.
    pub expires_at: Option<Millis>,
    /// Of a sliding entry: not beyond.
    pub ends_at: Option<Millis>,
    pub sliding_ms: Option<Millis>,
    pub swr_ms: Millis,
    pub sie_ms: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// Expired, but may be answered while it is made anew.
    Stale,
    /// Expired, but better than nothing.
    IfError,
    Gone,
}

impl Seconds {
    /// Errors: `bad_request`, naming `what`.
    pub fn new(what: &str, seconds: i64) -> Result<Seconds> {
        u32::try_from(seconds).ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds)).map(Seconds).ok_or_else(|| {
            Error::bad_request(format!("{what} is a whole number of seconds from 1 to {SECONDS_MAX}"))
                .hint("Leave ttl out for an entry that does not expire.")
        })
    }

    /// From decimal digits and nothing else. Errors as for [`Seconds::new`].
    pub fn parse(what: &str, text: &str) -> Result<Seconds> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        Seconds::new(what, if digits { text.parse().unwrap_or(-1) } else { -1 })
    }

    pub fn ms(self) -> Millis {
        Millis::from(self.0) * 1_000
    }
}

impl Tag {
    /// Errors: `bad_request`.
    pub fn parse(text: &str) -> Result<Tag> {
        if (1..=TAG_BYTES).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == ',') {
            return Ok(Tag(text.to_owned()));
        }
        Err(Error::bad_request(format!("a tag is 1 to {TAG_BYTES} bytes of text without control characters and commas")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Terms {
    /// Errors: `bad_request` for terms that contradict each other.
    pub fn new(wanted: Wanted) -> Result<Terms> {
        let Wanted { ttl, sliding, swr, sie, jitter, mut tags } = wanted;
        let refuse = |why: &'static str| Err(Error::bad_request(why));
        match (ttl, sliding) {
            (None, None) if swr.is_some() || sie.is_some() => {
                return refuse("swr and sie begin when an entry expires: give ttl or sliding");
            }
            (Some(ttl), Some(sliding)) if sliding.0 > ttl.0 => return refuse("sliding is longer than ttl, which ends the entry"),
            (None, _) if jitter.is_some() => return refuse("jitter shortens ttl: give ttl"),
            (Some(ttl), _) if jitter.is_some_and(|jitter| jitter.0 >= ttl.0) => return refuse("jitter is as long as ttl, or longer"),
            _ => {}
        }
        tags.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        tags.dedup();
        if tags.len() > TAGS_MAX {
            return Err(Error::bad_request(format!("an entry has at most {TAGS_MAX} tags, this one has {}", tags.len())));
        }
        Ok(Terms { ttl, sliding, swr, sie, jitter, tags })
    }

    /// Of an entry that is set at `now`; `chance` is any number.
    pub fn begin(&self, now: Millis, chance: u32) -> Life {
        let shortened = self.jitter.map_or(0, |jitter| (jitter.ms() * Millis::from(chance)) >> 32);
        let ends_at = self.ttl.map(|ttl| now + ttl.ms() - shortened);
        let mut life = Life {
            expires_at: ends_at,
            ends_at: None,
            sliding_ms: None,
            swr_ms: self.swr.map_or(0, Seconds::ms),
            sie_ms: self.sie.map_or(0, Seconds::ms),
        };
        if let Some(sliding) = self.sliding {
            life = Life { ends_at, sliding_ms: Some(sliding.ms()), ..life };
            life.expires_at = life.slid(now);
        }
        life
    }

    /// A number for [`Terms::begin`].
    pub fn chance(&self) -> u32 {
        if self.jitter.is_some() { Uuid::new_v4().as_u128() as u32 } else { 0 }
    }

    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

impl Life {
    pub fn at(&self, now: Millis) -> Freshness {
        let Some(late) = self.expires_at.map(|at| now - at) else { return Freshness::Fresh };
        match late {
            _ if late < 0 => Freshness::Fresh,
            _ if late < self.swr_ms => Freshness::Stale,
            _ if late < self.sie_ms => Freshness::IfError,
            _ => Freshness::Gone,
        }
    }

    /// The instant from which on it is of no use to anybody.
    pub fn gone_at(&self) -> Option<Millis> {
        self.expires_at.map(|at| at + self.swr_ms.max(self.sie_ms))
    }

    /// The expiry of a sliding entry that is read at `now`.
    fn slid(&self, now: Millis) -> Option<Millis> {
        let slid = self.sliding_ms.map(|ms| now + ms);
        slid.map(|slid| self.ends_at.map_or(slid, |ends| slid.min(ends)))
    }

    /// The new expiry of a sliding entry that is read at `now`, once a quarter of its time has passed: so that reading
    /// writes at most four times in that time.
    pub fn slides_to(&self, now: Millis) -> Option<Millis> {
        let (sliding, expires_at) = (self.sliding_ms?, self.expires_at?);
        self.slid(now).filter(|slid| expires_at > now && slid - expires_at >= sliding / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: i64) -> Option<Seconds> {
        Some(Seconds::new("ttl", n).unwrap())
    }

    #[test]
    fn only_whole_seconds_in_range_are_a_time() {
        assert_eq!(Seconds::parse("ttl", "1").unwrap().ms(), 1_000);
        assert!(Seconds::parse("ttl", &SECONDS_MAX.to_string()).is_ok());
        for refused in ["", "0", "-1", "+1", "1.5", "1e3", " 1", "NaN", "inf", "0x10", "315360001", "4294967297", "99999999999999999999"] {
            assert!(Seconds::parse("ttl", refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn an_entry_is_fresh_then_stale_then_better_than_nothing_then_gone() {
        let terms = Terms::new(Wanted { ttl: seconds(10), swr: seconds(5), sie: seconds(20), ..Wanted::default() }).unwrap();
        let life = terms.begin(0, 0);
        let at = [0, 9_999, 10_000, 14_999, 15_000, 29_999, 30_000].map(|now| life.at(now));
        use Freshness::*;
        assert_eq!(at, [Fresh, Fresh, Stale, Stale, IfError, IfError, Gone]);
        assert_eq!(life.gone_at(), Some(30_000));
    }

    #[test]
    fn jitter_only_shortens() {
        let terms = Terms::new(Wanted { ttl: seconds(100), jitter: seconds(40), ..Wanted::default() }).unwrap();
        let ends = |chance| terms.begin(0, chance).expires_at.unwrap();
        assert_eq!((ends(0), ends(u32::MAX / 2 + 1)), (100_000, 80_000));
        assert!((60_000..60_010).contains(&ends(u32::MAX)));
    }

    #[test]
    fn a_sliding_entry_moves_seldom_and_never_past_its_end() {
        let life = Terms::new(Wanted { ttl: seconds(100), sliding: seconds(40), ..Wanted::default() }).unwrap().begin(0, 0);
        assert_eq!(life.expires_at, Some(40_000));
        assert_eq!((life.slides_to(9_999), life.slides_to(10_000)), (None, Some(50_000)));
        assert_eq!(life.slides_to(40_000), None, "it has expired");
        let later = Life { expires_at: Some(85_000), ..life };
        assert_eq!(later.slides_to(70_000), Some(100_000));
        assert_eq!(Life { expires_at: Some(100_000), ..life }.slides_to(99_000), None);
    }

    #[test]
    fn terms_that_contradict_each_other_are_refused() {
        let tag = |n: usize| Tag::parse(&n.to_string()).unwrap();
        for wanted in [
            Wanted { swr: seconds(1), ..Wanted::default() },
            Wanted { sie: seconds(1), ..Wanted::default() },
            Wanted { jitter: seconds(1), sliding: seconds(5), ..Wanted::default() },
            Wanted { jitter: seconds(5), ttl: seconds(5), ..Wanted::default() },
            Wanted { sliding: seconds(6), ttl: seconds(5), ..Wanted::default() },
            Wanted { tags: (0..=TAGS_MAX).map(tag).collect(), ..Wanted::default() },
        ] {
            assert!(Terms::new(wanted).is_err());
        }
        let twice = Wanted { tags: vec![tag(2), tag(1), tag(2)], ..Wanted::default() };
        assert_eq!(Terms::new(twice).unwrap().tags(), [tag(1), tag(2)]);
        for refused in ["", "a,b", "a\n", &"t".repeat(TAG_BYTES + 1)] {
            assert!(Tag::parse(refused).is_err(), "{refused:?}");
        }
    }
}

//! The time, in one place: wall-clock instants are milliseconds since the Unix epoch everywhere inside
//! ([`Millis`]) and RFC 3339 UTC on the wire.

use std::time::{SystemTime, UNIX_EPOCH};

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcDateTime};

/// Milliseconds since the Unix epoch, UTC: what the databases store.
pub type Millis = i64;

pub fn now_ms() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Millis)
}

/// Seconds since the Unix epoch: what JWTs speak.
pub fn now_s() -> i64 {
    now_ms() / 1000
}

/// `2026-11-20T22:43:22.123Z`. An instant before the year 0 is shown as the first of 1970, one after 9999 as its last. Written without
/// a formatter: answers have several of each job.
pub fn rfc3339(at: Millis) -> String {
    let nanos = i128::from(at) * 1_000_000;
    let nearest = if at < 0 { UtcDateTime::UNIX_EPOCH } else { UtcDateTime::MAX };
    let at = UtcDateTime::from_unix_timestamp_nanos(nanos).ok().filter(|at| at.year() >= 0).unwrap_or(nearest);
    let (year, month, day) = at.to_calendar_date();
    let mut text = b"0000-00-00T00:00:00.000Z".to_vec();
    let numbers = [
        (0..4, year.unsigned_abs()),
        (5..7, u32::from(month as u8)),
        (8..10, u32::from(day)),
        (11..13, u32::from(at.hour())),
        (14..16, u32::from(at.minute())),
        (17..19, u32::from(at.second())),
        (20..23, u32::from(at.millisecond())),
    ];
    for (place, mut number) in numbers {
        for digit in text[place].iter_mut().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
        }
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Reads an RFC 3339 instant, with any offset.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Millis::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives_the_wire() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_214_602_123), "2026-11-20T22:43:22.123Z");
        assert_eq!(parse_rfc3339(&rfc3339(1_795_214_602_123)), Some(1_795_214_602_123));
        assert_eq!(rfc3339(Millis::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!((rfc3339(Millis::MIN), rfc3339(-70_000_000_000_000)), (rfc3339(0), rfc3339(0)));
        assert_eq!(parse_rfc3339("2026-11-20T22:43:22+02:00"), parse_rfc3339("2026-11-20T20:43:22Z"));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}

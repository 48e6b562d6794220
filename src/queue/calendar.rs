//! A [`Calendar`] is a cron expression in a time zone: the instants at which something runs. Five fields (minute, hour,
//! day of the month, month, day of the week) or six (seconds first), with names, `L`, `W`, `#` and `@daily` and its like;
//! the zones are those that the binary was built with, so that every machine gives the same answer.
//!
//! Where the clock is changed: an expression that names its hours and minutes runs once on that day, at the end of the
//! hour that is left out, in the first of two that are the same. One with `*` or `*/n` in hours, minutes or seconds goes
//! by the clock: not in the hour that is left out, in both of those that are the same.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::clock::Millis;
use crate::error::{Error, Result};

/// The longest expression, and the longest name of a zone, in bytes.
const TEXT_BYTES: usize = 255;

#[derive(Clone, Debug)]
pub(super) struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Errors: `bad_request` for what cannot be read, and for what will never run after `now`.
    pub(super) fn parse(cron: &str, time_zone: &str, now: Millis) -> Result<Calendar> {
        let calendar = Calendar::read(cron, time_zone)?;
        match calendar.after(now) {
            Some(_) => Ok(calendar),
            None => Err(Error::bad_request("cron: no day is ever like this").hint("Such as a 30th of February.")),
        }
    }

    /// The same for what was parsed before.
    pub(super) fn read(cron: &str, time_zone: &str) -> Result<Calendar> {
        if cron.len() > TEXT_BYTES || time_zone.len() > TEXT_BYTES {
            return Err(Error::bad_request(format!("cron or time_zone is longer than {TEXT_BYTES} bytes")));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser
            .parse(cron)
            .map_err(|error| Error::bad_request(format!("cron: {error}")).hint("Such as `0 3 * * MON-FRI`; see docs/schedules.md."))?;
        let zone = TimeZone::get(time_zone)
            .map_err(|_| Error::bad_request("there is no such time_zone").hint("A name of the IANA's, such as Europe/Berlin, or UTC."))?;
        Ok(Calendar { cron, zone })
    }

    /// The first run after `at`.
    pub(super) fn after(&self, at: Millis) -> Option<Millis> {
        self.run(self.cron.find_next_occurrence(&self.clock(at)?, false))
    }

    /// The last run at or before `at`.
    pub(super) fn until(&self, at: Millis) -> Option<Millis> {
        // The library looks at whole seconds.
        self.run(self.cron.find_previous_occurrence(&self.clock(at - at.rem_euclid(1_000))?, true))
    }

    fn clock(&self, at: Millis) -> Option<Zoned> {
        Some(Timestamp::from_millisecond(at).ok()?.to_zoned(self.zone.clone()))
    }

    fn run(&self, found: std::result::Result<Zoned, croner::errors::CronError>) -> Option<Millis> {
        found.ok().map(|at| at.timestamp().as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{parse_rfc3339, rfc3339};

    fn runs(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let calendar = Calendar::read(cron, zone).unwrap();
        let mut at = parse_rfc3339(from).unwrap();
        let mut found = Vec::new();
        for _ in 0..count {
            at = calendar.after(at).unwrap();
            found.push(rfc3339(at).replace(":00.000Z", "Z"));
        }
        found
    }

    #[test]
    fn a_day_that_leaves_an_hour_out_runs_what_is_named_at_its_end() {
        assert_eq!(
            runs("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]
        );
        // By the clock, from 01:45 to 03:00.
        assert_eq!(
            runs("*/15 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", 3),
            ["2026-03-29T00:45Z", "2026-03-29T01:00Z", "2026-03-29T01:15Z"]
        );
    }

    #[test]
    fn an_hour_that_comes_twice_runs_what_is_named_once() {
        assert_eq!(runs("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
        assert_eq!(
            runs("30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 3),
            ["2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-25T02:30Z"]
        );
    }

    #[test]
    fn expressions_have_five_or_six_fields_and_their_names() {
        for (cron, first) in [
            ("*/20 0 0 * * *", "2026-11-22T00:00Z"),
            ("0 9 * * MON-FRI", "2026-11-23T09:00Z"),
            ("0 9 L * *", "2026-11-30T09:00Z"),
            ("0 9 15W * *", "2026-12-15T09:00Z"),
            ("0 9 * * MON#2", "2026-12-14T09:00Z"),
            ("0 0 29 FEB *", "2028-02-29T00:00Z"),
            ("@hourly", "2026-11-21T13:00Z"),
        ] {
            assert_eq!(runs(cron, "UTC", "2026-11-21T12:30:00Z", 1), [first], "{cron}");
        }
        let now = parse_rfc3339("2026-11-21T12:30:00Z").unwrap();
        for (cron, zone) in [
            ("", "UTC"),
            ("* * * *", "UTC"),
            ("60 * * * *", "UTC"),
            ("0 0 0 1 1 * 2030", "UTC"),
            ("0 0 30 2 *", "UTC"),
            ("* * * * *", "Europe/Nowhere"),
        ] {
            assert!(Calendar::parse(cron, zone, now).is_err(), "{cron} {zone}");
        }
    }

    #[test]
    fn forward_and_backward_meet_also_where_the_clock_is_changed() {
        for cron in ["30 2 * * *", "*/15 * * * *", "15 2,3 * * *", "0 */2 * * *"] {
            for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"] {
                let calendar = Calendar::read(cron, zone).unwrap();
                for day in
                    ["2026-03-07T00:00:00Z", "2026-03-28T12:00:00Z", "2026-04-04T00:00:00Z", "2026-10-03T00:00:00Z", "2026-10-24T12:00:00Z"]
                {
                    let mut at = parse_rfc3339(day).unwrap();
                    for _ in 0..20 {
                        let next = calendar.after(at).unwrap();
                        assert!(next > at);
                        assert_eq!(calendar.until(next), Some(next), "{cron} {zone} {}", rfc3339(next));
                        assert_eq!(calendar.until(next + 999), Some(next), "{cron} {zone} {}", rfc3339(next));
                        at = next;
                    }
                }
            }
        }
    }
}

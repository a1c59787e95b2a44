//! One type for time: milliseconds since 1970 in UTC.
//!
//! Milliseconds as an integer are exact in both databases; SQLite's and PostgreSQL's own types
//! differ in precision (nanoseconds, microseconds).

use serde::{Deserialize, Serialize};
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From seconds since the Unix epoch.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
    /// The day in UTC, counted from the Unix epoch.
    pub const fn day(self) -> i64 {
        self.unix_seconds().div_euclid(86_400)
    }
    /// This moment plus a duration. Saturates.
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }
    /// This moment minus a duration. Saturates.
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }
    /// The duration from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
    /// The start of the step of this length that contains this moment; steps are counted from the
    /// Unix epoch, so hours and days are those of UTC.
    pub fn start_of(self, step: Duration) -> Self {
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        Self(self.0.div_euclid(step).saturating_mul(step))
    }
    fn date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
    /// RFC 3339 in UTC, cut to whole seconds: `2026-01-31T08:00:00Z`.
    pub fn rfc3339(self) -> String {
        let whole = self
            .date_time()
            .replace_nanosecond(0)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        whole.format(&Rfc3339).unwrap_or_default()
    }
    /// For pages: `3 February 2026, 08:00 UTC`.
    pub fn absolute(self) -> String {
        let format =
            format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
        self.date_time().format(format).unwrap_or_default()
    }
    /// For pages: `3 February 2026`.
    pub fn date(self) -> String {
        let format = format_description!("[day padding:none] [month repr:long] [year]");
        self.date_time().format(format).unwrap_or_default()
    }
    /// `2026-02-03`, the format of `<input type=date>`.
    pub fn iso_date(self) -> String {
        self.date_time()
            .format(format_description!("[year]-[month]-[day]"))
            .unwrap_or_default()
    }
    /// The start of a day in UTC; `None` unless the text is an existing date as `YYYY-MM-DD`.
    pub fn from_iso_date(text: &str) -> Option<Self> {
        let date = time::Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
        Some(Self::from_unix_seconds(
            date.midnight().assume_utc().unix_timestamp(),
        ))
    }
    /// Parses RFC 3339, cut to whole seconds.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        Some(Self::from_unix_seconds(moment.unix_timestamp()))
    }
    /// For pages, relative to `now`: `3 days ago`, `in 12 minutes`; a date beyond 30 days.
    pub fn relative(self, now: Self) -> String {
        let (distance, future) = if self > now {
            (self.since(now), true)
        } else {
            (now.since(self), false)
        };
        let seconds = distance.as_secs();
        let phrase = match seconds {
            0..=44 => {
                return if future {
                    "in a moment".into()
                } else {
                    "just now".into()
                };
            }
            45..=89 => "a minute".to_owned(),
            90..=3569 => format!("{} minutes", (seconds + 30) / 60),
            3570..=5399 => "an hour".to_owned(),
            5400..=84_599 => format!("{} hours", (seconds + 1800) / 3600),
            84_600..=129_599 => {
                return if future {
                    "tomorrow".into()
                } else {
                    "yesterday".into()
                };
            }
            129_600..=2_591_999 => format!("{} days", (seconds + 43_200) / 86_400),
            _ => {
                return if future {
                    format!("on {}", self.date())
                } else {
                    self.date()
                };
            }
        };
        if future {
            format!("in {phrase}")
        } else {
            format!("{phrase} ago")
        }
    }
}

/// The source of time. Passed in, so that tests are deterministic.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_times_are_whole_seconds_in_utc() {
        assert_eq!(
            Timestamp(1_769_846_400_987).rfc3339(),
            "2026-01-31T08:00:00Z"
        );
        assert_eq!(
            Timestamp::parse_rfc3339("2026-01-31T08:00:00.5Z"),
            Some(Timestamp(1_769_846_400_000))
        );
    }
    #[test]
    fn steps_start_at_whole_hours_and_days() {
        let at = Timestamp(1_769_846_400_987);
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        assert_eq!(at.start_of(hour).rfc3339(), "2026-01-31T08:00:00Z");
        assert_eq!(at.start_of(day).rfc3339(), "2026-01-31T00:00:00Z");
    }
    #[test]
    fn relative_times_read_as_people_speak() {
        let now = Timestamp(1_769_846_400_000);
        assert_eq!(
            now.minus(Duration::from_secs(300)).relative(now),
            "5 minutes ago"
        );
        assert_eq!(
            now.minus(Duration::from_secs(3 * 86_400)).relative(now),
            "3 days ago"
        );
        assert_eq!(
            now.plus(Duration::from_secs(12 * 86_400)).relative(now),
            "in 12 days"
        );
        assert_eq!(now.relative(now), "just now");
    }
    #[test]
    fn dates_that_do_not_exist_are_refused() {
        assert!(Timestamp::from_iso_date("2026-02-30").is_none());
        assert_eq!(
            Timestamp::from_iso_date("2026-02-28")
                .map(Timestamp::iso_date)
                .as_deref(),
            Some("2026-02-28")
        );
    }
}

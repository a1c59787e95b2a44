//! View data that all pages share: the frame around a page ([`Chrome`]) and small value types that
//! templates print. No lookups and no decisions.

use crate::{
    domain::{
        Timestamp,
        person::{Person, Role},
    },
    http::assets::{Assets, assets},
};
use chrono::{DateTime, TimeZone as _};
use chrono_tz::Tz;
use std::ops::Deref;

/// The present, as a reader of a page tells it: the time, and the time zone in which the page prints
/// others. UTC unless the reader chose one.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    at: Timestamp,
    zone: Tz,
}

impl Deref for Now {
    type Target = Timestamp;
    fn deref(&self) -> &Timestamp {
        &self.at
    }
}

impl Now {
    /// In UTC.
    pub const fn utc(at: Timestamp) -> Self {
        Self { at, zone: Tz::UTC }
    }

    /// In the zone of this name (IANA), or else in UTC.
    pub fn in_zone(at: Timestamp, zone: Option<&str>) -> Self {
        let zone = zone.and_then(|name| name.parse().ok());
        Self {
            at,
            zone: zone.unwrap_or(Tz::UTC),
        }
    }

    fn local(self, at: Timestamp) -> DateTime<Tz> {
        let moment = DateTime::from_timestamp_millis(at.0).unwrap_or_default();
        self.zone.from_utc_datetime(&moment.naive_utc())
    }

    /// `3 February 2026, 08:00 UTC`.
    pub fn absolute(self, at: Timestamp) -> String {
        self.local(at).format("%-d %B %Y, %H:%M %Z").to_string()
    }

    /// `3 February 2026`.
    pub fn date(self, at: Timestamp) -> String {
        self.local(at).format("%-d %B %Y").to_string()
    }

    /// `08:00 UTC`.
    pub fn hour(self, at: Timestamp) -> String {
        self.local(at).format("%H:%M %Z").to_string()
    }
}

/// The frame of a page: title, navigation, flash message.
pub struct Chrome {
    pub title: String,
    /// The current entry of the navigation bar; empty for none.
    pub area: &'static str,
    pub person: Option<SignedInPerson>,
    /// The session's anti-forgery token; empty if the session has none yet.
    pub csrf: String,
    /// A message from the previous request, shown once.
    pub flash: Option<String>,
    /// `light`, `dark`, or empty to follow the system's preference.
    pub theme: String,
    /// Whether content shares the portal's origin; the list pages then show a warning.
    pub shares_portal_origin: bool,
    /// Prefix of the frame's links: empty on the portal, the portal's base URL on content hosts.
    pub home: String,
    /// Whom to ask for help; empty if the operator did not say.
    pub contact: String,
    pub assets: &'static Assets,
}

impl Chrome {
    /// The frame for a request without a browser session.
    pub fn anonymous(title: &str) -> Self {
        Self {
            title: title.into(),
            area: "",
            person: None,
            csrf: String::new(),
            flash: None,
            theme: String::new(),
            shares_portal_origin: false,
            home: String::new(),
            contact: String::new(),
            assets: assets(),
        }
    }
}

/// The signed-in person, as the navigation bar shows them.
pub struct SignedInPerson {
    pub name: String,
    pub administrator: bool,
    /// May choose integrations for content.
    pub publisher: bool,
    /// What others changed about their account, until they dismiss it.
    pub notice: Option<String>,
}

impl SignedInPerson {
    /// A person who acts with this role.
    pub fn new(person: &Person, role: Role) -> Self {
        Self {
            name: person.display_name(),
            administrator: role == Role::Administrator,
            publisher: role >= Role::Publisher,
            notice: person.notice.clone(),
        }
    }
}

/// A point in time, in the three forms that a page prints.
pub struct Moment {
    /// RFC 3339, for `<time datetime>`.
    pub machine: String,
    pub absolute: String,
    /// Relative to now, such as “3 minutes ago”.
    pub phrase: String,
}

impl Moment {
    /// All three forms of `at`.
    pub fn new(at: Timestamp, now: Now) -> Self {
        Self {
            machine: at.rfc3339(),
            absolute: now.absolute(at),
            phrase: at.relative(*now),
        }
    }
}

/// A state: a word, a tone and an icon, so that colour is never the only signal.
pub struct Status {
    pub word: String,
    /// The CSS tone: `positive`, `warning`, `negative` or `neutral`.
    pub tone: &'static str,
    /// The icon's name; empty for none.
    pub icon: &'static str,
}

impl Status {
    /// Works as intended.
    pub fn positive(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "positive",
            icon: "check",
        }
    }
    /// Works, but needs attention soon.
    pub fn warning(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "warning",
            icon: "warning",
        }
    }
    /// Does not work.
    pub fn negative(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "negative",
            icon: "cross",
        }
    }
    /// Neither good nor bad.
    pub fn neutral(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "neutral",
            icon: "",
        }
    }
}

/// A link as a template prints it: address and text.
pub struct NavLink {
    pub href: String,
    pub label: String,
}

impl NavLink {
    /// A link to `href` with the text `label`.
    pub fn new(href: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            href: href.into(),
            label: label.into(),
        }
    }
}

/// A link to one of the pages of the same thing.
pub struct Tab {
    pub href: String,
    pub label: &'static str,
    pub is_current: bool,
}

/// Tabs below `base`: their paths there and their labels, of which `current` (a path) is open.
pub fn tabs(base: &str, pages: &[(&str, &'static str)], current: &str) -> Vec<Tab> {
    let tab = |(path, label): &(&str, &'static str)| Tab {
        href: format!("{base}{path}"),
        label,
        is_current: *path == current,
    };
    pages.iter().map(tab).collect()
}

/// Names in a list for people, at most.
const MAX_NAMES: usize = 20;

/// The first names of a long list, and how many more there are.
pub fn some_of(mut names: Vec<String>) -> Vec<String> {
    let more = names.len().saturating_sub(MAX_NAMES);
    if more > 0 {
        names.truncate(MAX_NAMES);
        names.push(format!("and {more} more"));
    }
    names
}

/// A number that is not negative, with separators: `2,004`.
pub fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 content item`, `4 content items`, or `none` for 0.
pub fn count_noun(number: impl TryInto<i64>, one: &str, many: &str) -> String {
    match number.try_into().unwrap_or(i64::MAX) {
        0 => "none".into(),
        1 => format!("1 {one}"),
        number => format!("{} {many}", grouped(number)),
    }
}

/// Initials of the first two words of a title, for its tile; `•` if it has no letters or digits.
pub fn monogram(title: &str) -> String {
    let letters: String = title
        .split_whitespace()
        .filter_map(|word| word.chars().find(|letter| letter.is_alphanumeric()))
        .take(2)
        .collect();
    if letters.is_empty() {
        "•".into()
    } else {
        letters.to_uppercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_zone_of_the_reader() {
        let at = Timestamp(1_769_846_400_987);
        let told = |zone| Now::in_zone(at, zone).absolute(at);
        assert_eq!(told(None), "31 January 2026, 08:00 UTC");
        assert_eq!(told(Some("Europe/Berlin")), "31 January 2026, 09:00 CET");
        assert_eq!(told(Some("Asia/Kolkata")), "31 January 2026, 13:30 IST");
        assert_eq!(told(Some("nowhere")), "31 January 2026, 08:00 UTC");
    }
}

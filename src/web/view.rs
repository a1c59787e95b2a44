//! View data that all pages share: the frame around a page ([`Chrome`]) and small value types that
//! templates print. No lookups and no decisions.

use crate::{
    domain::Timestamp,
    http::assets::{Assets, assets},
};

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
            assets: assets(),
        }
    }
}

/// The signed-in person, as the navigation bar shows them.
pub struct SignedInPerson {
    pub name: String,
    pub administrator: bool,
    /// What others changed about their account, until they dismiss it.
    pub notice: Option<String>,
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
    /// All three forms of `at`; `now` is the reference for the relative one.
    pub fn new(at: Timestamp, now: Timestamp) -> Self {
        Self {
            machine: at.rfc3339(),
            absolute: at.absolute(),
            phrase: at.relative(now),
        }
    }
}

/// A state: a word, a tone and an icon, so that colour is never the only signal.
pub struct Status {
    pub word: String,
    /// The CSS tone: `positive`, `due_expiry_warning`, `negative` or `neutral`.
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

/// A number with its noun: `1 content item`, `4 content items`, or `none` for 0.
pub fn count_noun(number: impl TryInto<i64>, one: &str, many: &str) -> String {
    match number.try_into().unwrap_or(i64::MAX) {
        0 => "none".into(),
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
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

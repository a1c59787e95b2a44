//! What all pages show: the frame around them and the small shapes that templates print.

use super::assets::{Assets, assets};
use crate::domain::Timestamp;

/// The frame of a page: title, navigation, the message on top.
pub struct Chrome {
    pub title: String,
    /// The current entry of the navigation bar.
    pub area: &'static str,
    pub person: Option<Signed>,
    pub csrf: String,
    pub flash: Option<String>,
    /// `light`, `dark`, or empty for what the system says.
    pub theme: String,
    /// Content shares the portal's origin: said on the pages of those who should know.
    pub open_wall: bool,
    /// What stands before the links of the frame: nothing on the portal, its address elsewhere.
    pub home: String,
    pub assets: &'static Assets,
}

impl Chrome {
    pub fn anonymous(title: &str) -> Self {
        Self {
            title: title.into(),
            area: "",
            person: None,
            csrf: String::new(),
            flash: None,
            theme: String::new(),
            open_wall: false,
            home: String::new(),
            assets: assets(),
        }
    }
}

/// Who is signed in.
pub struct Signed {
    pub name: String,
    pub administrator: bool,
}

/// A moment as a page prints it.
pub struct Moment {
    pub machine: String,
    pub absolute: String,
    pub phrase: String,
}

impl Moment {
    pub fn new(at: Timestamp, now: Timestamp) -> Self {
        Self {
            machine: at.rfc3339(),
            absolute: at.absolute(),
            phrase: at.relative(now),
        }
    }
}

/// A state: a word, an icon and a tone, never colour alone.
pub struct Status {
    pub word: String,
    pub tone: &'static str,
    pub icon: &'static str,
}

impl Status {
    pub fn positive(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "positive",
            icon: "check",
        }
    }
    pub fn warning(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "warning",
            icon: "warning",
        }
    }
    pub fn negative(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "negative",
            icon: "cross",
        }
    }
    pub fn neutral(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            tone: "neutral",
            icon: "",
        }
    }
}

pub struct Link {
    pub href: String,
    pub label: String,
}

impl Link {
    pub fn new(href: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            href: href.into(),
            label: label.into(),
        }
    }
}

/// `1 content item`, `4 content items`, `none`.
pub fn count(number: i64, one: &str, many: &str) -> String {
    match number {
        0 => "none".into(),
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

/// Two letters for a tile.
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

//! People and their roles.

use super::{Id, Timestamp};
use serde::{Deserialize, Serialize};

/// What a person may do here; a higher role may do all that a lower one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    Publisher,
    Administrator,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Publisher, Role::Administrator];
    /// The word used in the API, in tables and (capitalised) on pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Publisher => "publisher",
            Role::Administrator => "administrator",
        }
    }
    pub const fn label(self) -> &'static str {
        match self {
            Role::Viewer => "Viewer",
            Role::Publisher => "Publisher",
            Role::Administrator => "Administrator",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Somebody with an account here.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: Id<Person>,
    pub username: String,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub role: Role,
    pub locked: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub active_at: Option<Timestamp>,
}

impl Person {
    /// The name that pages show: first and last name, or the user name.
    pub fn display_name(&self) -> String {
        let name = format!("{} {}", self.first_name, self.last_name);
        if name.trim().is_empty() {
            self.username.clone()
        } else {
            name.trim().to_owned()
        }
    }
    /// How the identity provider is likely to know this person.
    pub fn login_hint(&self) -> &str {
        if self.email.is_empty() {
            &self.username
        } else {
            &self.email
        }
    }
}

/// A browser session, as its person and an administrator may see it. The marker type of session
/// ids.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: Id<Session>,
    pub person: Id<Person>,
    pub created_at: Timestamp,
    pub seen_at: Timestamp,
    pub address: String,
}

/// An API key without its secret.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub number: i64,
    pub person: Id<Person>,
    pub name: String,
    /// The key acts with this role at most.
    pub role: Role,
    /// A content key acts for this item only.
    pub content: Option<Id<super::content::Content>>,
    pub created_at: Timestamp,
    pub active_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

/// Letters that names must not hold: control characters, and those that turn the direction of
/// writing or cannot be seen, by which one name passes for another.
pub fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

//! People, their roles, their browser sessions and API keys; without any secret.

use super::{Id, Timestamp};
use serde::{Deserialize, Serialize};

/// A role; a higher role may do everything that a lower one may.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    Viewer,
    Publisher,
    Administrator,
}

impl Role {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The word on pages.
    pub const fn label(self) -> &'static str {
        match self {
            Role::Viewer => "Viewer",
            Role::Publisher => "Publisher",
            Role::Administrator => "Administrator",
        }
    }
    /// The inverse of [`Role::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// How a viewer is signed in at content. What is given out for it (session tokens, open WebSockets)
/// ends with it. In session tokens: the session's id, or `key:` and the key's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum SignedIn {
    Browser(Id<Session>),
    /// By a person's API key, without a browser.
    Key(i64),
}

impl SignedIn {
    /// The browser session, if it is one.
    pub fn browser(self) -> Option<Id<Session>> {
        match self {
            SignedIn::Browser(session) => Some(session),
            SignedIn::Key(_) => None,
        }
    }
}

impl From<SignedIn> for String {
    fn from(signed_in: SignedIn) -> Self {
        match signed_in {
            SignedIn::Browser(session) => session.to_string(),
            SignedIn::Key(number) => format!("key:{number}"),
        }
    }
}

impl TryFrom<String> for SignedIn {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let found = match text.strip_prefix("key:") {
            Some(number) => number.parse().ok().map(SignedIn::Key),
            None => text.parse().ok().map(SignedIn::Browser),
        };
        found.ok_or("neither a session nor a key")
    }
}

/// A person with an account.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: Id<Person>,
    pub username: String,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub role: Role,
    /// A locked person cannot sign in, and none of their sessions and keys work.
    pub locked: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When they last signed in.
    pub active_at: Option<Timestamp>,
    /// The name of their account at the organisation's provider, if they sign in there.
    pub organisation_label: Option<String>,
    /// That account's object id, `oid:…`, if the provider has such (Microsoft Entra ID): the same
    /// for all of the organisation's applications, unlike its subject.
    pub organisation_subject: Option<String>,
    /// What they are told on every page until they dismiss it: what others changed about their
    /// account.
    pub notice: Option<String>,
    /// The time zone in which pages tell times, by its name in the IANA database; `None` for UTC.
    pub time_zone: Option<String>,
    /// Wants no mail from this portal.
    pub mail_off: bool,
}

impl Person {
    /// A viewer without a name, who never signed in.
    pub fn new(now: Timestamp) -> Self {
        Self {
            id: Id::random(),
            username: String::new(),
            email: String::new(),
            first_name: String::new(),
            last_name: String::new(),
            role: Role::Viewer,
            locked: false,
            created_at: now,
            updated_at: now,
            active_at: None,
            organisation_label: None,
            organisation_subject: None,
            notice: None,
            time_zone: None,
            mail_off: false,
        }
    }
    /// The name that pages show: first and last name, or the user name.
    pub fn display_name(&self) -> String {
        let name = format!("{} {}", self.first_name, self.last_name);
        if name.trim().is_empty() {
            self.username.clone()
        } else {
            name.trim().to_owned()
        }
    }
    /// The name, and the user name that tells people of the same name apart: `Ann Field (ann)`.
    pub fn name_and_username(&self) -> String {
        format!("{} ({})", self.display_name(), self.username)
    }
    /// The `login_hint` for the identity provider: the e-mail address, or the user name.
    pub fn login_hint(&self) -> &str {
        if self.email.is_empty() {
            &self.username
        } else {
            &self.email
        }
    }
}

/// A browser session, as its person and administrators see it; also the marker type of session ids.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: Id<Session>,
    pub person: Id<Person>,
    pub created_at: Timestamp,
    /// When it was last used, to about a minute.
    pub seen_at: Timestamp,
    /// The network address at sign-in.
    pub address: String,
    /// The browser and system at sign-in, in words, as far as they are known.
    pub client: Option<String>,
}

/// Characters that names must not contain: control characters, invisible ones and those that change
/// the direction of writing, since they let one name pass for another.
pub fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

//! Integrations: one OAuth client each, configured by an administrator.

use super::{Id, Timestamp, group::Principal, person::Person};
use serde_json::{Map, Value};

/// The non-secret settings of an integration, keyed as in the API.
pub type Config = Map<String, Value>;

/// What we know about the client secret from using it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretHealth {
    /// No secret is needed (public client).
    NotNeeded,
    /// Stored, not used yet.
    Untried,
    /// The provider accepted it, last at this time.
    Works { at: Timestamp },
    /// The provider refused it or the configuration; `cause` is one of our own sentences.
    Rejected { at: Timestamp, cause: String },
}

/// Which publishers may choose an integration for their content. Administrators always may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    #[default]
    Everyone,
    /// Those on its list; with an empty list, nobody.
    Listed,
    Nobody,
}

impl Availability {
    pub const ALL: [Self; 3] = [Self::Everyone, Self::Listed, Self::Nobody];
    pub const fn as_str(self) -> &'static str {
        match self {
            Availability::Everyone => "everyone",
            Availability::Listed => "listed",
            Availability::Nobody => "nobody",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

/// Whether the account at the identity provider must be the person who is signed in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityCheck {
    /// Not compared.
    Off,
    /// Another account is used only after the viewer said that it is theirs.
    #[default]
    Warn,
    /// Another account, or one that cannot be compared, is refused.
    Require,
}

impl IdentityCheck {
    pub const ALL: [Self; 3] = [Self::Warn, Self::Require, Self::Off];
    pub const fn as_str(self) -> &'static str {
        match self {
            IdentityCheck::Off => "off",
            IdentityCheck::Warn => "warn",
            IdentityCheck::Require => "require",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

/// One entry of the list of those who may choose an integration.
#[derive(Clone, Debug)]
pub struct Listing {
    pub number: i64,
    pub id: Id<Listing>,
    pub integration: Id<Integration>,
    pub principal: Principal,
}

/// One OAuth client at an identity provider.
#[derive(Clone, Debug)]
pub struct Integration {
    pub number: i64,
    pub id: Id<Integration>,
    pub name: Option<String>,
    /// Written by the administrator for publishers.
    pub description: Option<String>,
    pub template: String,
    pub auth_type: String,
    pub config: Config,
    pub secret_set_at: Option<Timestamp>,
    pub secret_set_by: Option<String>,
    /// When the identity provider will stop accepting the secret, as the administrator told us.
    pub secret_expires_at: Option<Timestamp>,
    pub secret_health: SecretHealth,
    /// Grows with each change of where tokens come from; connections made under another value are
    /// dead.
    pub era: i64,
    pub availability: Availability,
    pub identity_check: IdentityCheck,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Integration {
    /// The name that pages show.
    pub fn display_name(&self) -> &str {
        match &self.name {
            Some(name) if !name.is_empty() => name,
            _ => "Unnamed integration",
        }
    }
    /// A string setting, or the empty string.
    pub fn setting(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or("")
    }
    /// The scopes asked for, in order.
    pub fn scopes(&self) -> Vec<&str> {
        self.setting("scopes").split_whitespace().collect()
    }
}

/// "This content item uses this integration."
#[derive(Clone, Debug)]
pub struct Association {
    pub content: Id<super::content::Content>,
    pub integration: Id<Integration>,
    pub created_at: Timestamp,
}

/// How much an integration is used.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub contents: i64,
    pub people: i64,
}

/// Somebody who is connected through an integration.
pub type Connected = (Person, Timestamp);

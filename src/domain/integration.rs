//! Integrations: one OAuth client each, configured by an administrator.
//!
//! Client secrets are not part of these types: they are stored sealed
//! (`store::integrations::Secrets`).

use super::{Id, Timestamp, group::Principal, person::Person};
use serde_json::{Map, Value};

/// The non-secret settings of an integration, keyed as in the API.
pub type Config = Map<String, Value>;

/// State of the client secret, as the last use of it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretHealth {
    /// Public client: there is no secret.
    NotNeeded,
    /// A secret is stored and was not used yet.
    Untried,
    /// The provider accepted the secret, last at this time.
    Works { at: Timestamp },
    /// The provider refused the secret or the configuration. `cause` is a sentence of the portal's,
    /// never text of the provider's.
    Rejected { at: Timestamp, cause: String },
}

/// As whom content acts through an integration. The words are those of the API.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantArray,
)]
pub enum AuthType {
    /// As the person who looks at it, with tokens of theirs.
    Viewer,
    /// As itself, with tokens of an account that belongs to no person.
    #[strum(serialize = "Service Account")]
    ServiceAccount,
    /// As the person who looks at it, at this portal.
    #[strum(serialize = "Visitor API Key")]
    VisitorApiKey,
}

impl serde::Serialize for AuthType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl AuthType {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Which publishers may choose an integration for their content. Administrators always may.
///
/// The API shows it beside `permissions`: an empty list means nobody, and a list whose last entry
/// is removed stays closed instead of opening to everyone.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Availability {
    #[default]
    Everyone,
    /// The people and groups on its list; an empty list means nobody.
    Listed,
    Nobody,
}

impl Availability {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`Availability::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Whether the account at the identity provider must be that of the viewer who is signed in here.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum IdentityCheck {
    /// Not compared.
    Off,
    /// A different account is used only after the viewer confirmed that it is theirs.
    #[default]
    Warn,
    /// A different account, or one that cannot be compared, is refused.
    Require,
}

impl IdentityCheck {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`IdentityCheck::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// One entry of an integration's list: a person or group that may choose it.
#[derive(Clone, Debug)]
pub struct ListEntry {
    pub number: i64,
    pub id: Id<ListEntry>,
    pub integration: Id<Integration>,
    pub principal: Principal,
}

/// One OAuth client at an identity provider.
#[derive(Clone, Debug)]
pub struct Integration {
    /// The database's row number; the `id` of the API.
    pub number: i64,
    pub id: Id<Integration>,
    pub name: Option<String>,
    /// For publishers; written by the administrator.
    pub description: Option<String>,
    /// The name of its template (`providers`).
    pub template: String,
    pub auth_type: AuthType,
    pub config: Config,
    pub secret_set_at: Option<Timestamp>,
    pub secret_set_by: Option<String>,
    /// When the provider will stop accepting the secret, as entered by the administrator.
    pub secret_expires_at: Option<Timestamp>,
    pub secret_health: SecretHealth,
    /// Incremented whenever the integration starts to get tokens from elsewhere (endpoints, tenant,
    /// client). Connections and attempts of an earlier value are void.
    pub endpoint_version: i64,
    pub availability: Availability,
    pub identity_check: IdentityCheck,
    /// Since when it hands out no tokens and gets no new consents, on an administrator's wish;
    /// connections and consents are kept.
    pub paused_at: Option<Timestamp>,
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
    /// The requested scopes, in order.
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
    /// The owner allowed the item to act as itself through this service account although another
    /// integration acts for its viewers at the same service.
    pub beside_viewers: bool,
}

/// How much an integration is used.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Content items that are associated with it.
    pub contents: i64,
    /// People with an active connection.
    pub people: i64,
}

/// A person with a connection through an integration, and when they connected.
pub type Connected = (Person, Timestamp);

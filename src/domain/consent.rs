//! Consents: one viewer's permission for one content item to use one connection.
//!
//! A consent exists per content item, on top of the connection, so that a second app does not get a
//! viewer's token without asking the viewer.

use super::{Id, Timestamp, content::Content, integration::Integration, person::Person};

/// A viewer's consent.
#[derive(Clone, Debug)]
pub struct Consent {
    pub id: Id<Consent>,
    pub person: Id<Person>,
    pub content: Id<Content>,
    pub integration: Id<Integration>,
    /// The scopes that the viewer was shown, in the form of [`sorted_scopes`].
    pub scopes: String,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    /// Number of exchanges.
    pub uses: i64,
}

impl Consent {
    /// Whether the viewer agreed to all that the integration asks for now.
    pub fn covers(&self, integration: &Integration) -> bool {
        let agreed: Vec<&str> = self.scopes.split_whitespace().collect();
        integration
            .scopes()
            .iter()
            .all(|scope| agreed.contains(scope))
    }
}

/// An integration's scopes, sorted and separated by blanks, so that their order does not matter.
pub fn sorted_scopes(integration: &Integration) -> String {
    let mut scopes = integration.scopes();
    scopes.sort_unstable();
    scopes.dedup();
    scopes.join(" ")
}

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
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    /// Number of exchanges.
    pub uses: i64,
}

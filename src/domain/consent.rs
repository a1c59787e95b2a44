//! Consents: one viewer's permission for one content item to use one connection.

use super::{Id, Timestamp, content::Content, integration::Integration, person::Person};

#[derive(Clone, Debug)]
pub struct Consent {
    pub id: Id<Consent>,
    pub person: Id<Person>,
    pub content: Id<Content>,
    pub integration: Id<Integration>,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub uses: i64,
}

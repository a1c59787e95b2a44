//! API keys: how programs act as a person.

use super::{
    Id, Timestamp,
    content::Content,
    person::{Person, Role},
};

/// An API key, without its secret.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The database's row number; the `id` of the API.
    pub number: i64,
    pub person: Id<Person>,
    pub name: String,
    /// Upper bound of the key's rights: it acts with the lower of this and its person's role.
    pub role: Role,
    /// Set for a content key: it acts for this item only.
    pub content: Option<Id<Content>>,
    pub created_at: Timestamp,
    /// When it was last used.
    pub active_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

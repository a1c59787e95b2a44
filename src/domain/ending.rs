//! Endings: what a restore of an older backup must not bring back. Kept in the database and in the
//! journal beside it, as JSON; a variant that was written once keeps its form.

use super::{
    Id,
    connection::Connection,
    consent::Consent,
    content::Content,
    integration::Integration,
    person::{Person, Role},
};
use serde::{Deserialize, Serialize};

/// Something that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Ending {
    Consents {
        ids: Vec<Id<Consent>>,
    },
    /// All consents for an item, except those for the integrations `kept`.
    ConsentsOfContent {
        content: Id<Content>,
        kept: Vec<Id<Integration>>,
    },
    /// A person's consents for all items that use the integration.
    ConsentsOfConnection {
        person: Id<Person>,
        integration: Id<Integration>,
    },
    /// A connection was deleted, or lost its tokens.
    Connection {
        id: Id<Connection>,
    },
    ConnectionsOfPerson {
        person: Id<Person>,
    },
    ConnectionsOfIntegration {
        integration: Id<Integration>,
    },
    ApiKey {
        number: i64,
    },
    ApiKeysOfPerson {
        person: Id<Person>,
    },
    ApiKeysOfContent {
        content: Id<Content>,
    },
    /// A person was locked or unlocked: the last one counts.
    Locked {
        person: Id<Person>,
        locked: bool,
    },
    /// A person got another role: the last one counts.
    Role {
        person: Id<Person>,
        role: Role,
    },
    /// A person got another password.
    Password {
        person: Id<Person>,
    },
}

/// An ending with its number: one counter for the whole installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedEnding {
    pub number: i64,
    pub ending: Ending,
}

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

/// What a database is between two restores. Marks ids; has no values.
#[derive(Debug)]
pub enum Epoch {}

/// The epochs of a database, oldest first. A restore begins another one, since it sets the counter of
/// endings back: the same number then means something else. The last is the database's own, those
/// before are the epochs of the backups that it was restored from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epochs(Vec<Id<Epoch>>);

impl Epochs {
    /// Begins another epoch.
    pub fn begin(&mut self) {
        self.0.push(Id::random());
    }

    /// The database's own epoch; `None` before a server has run on it.
    pub fn current(&self) -> Option<Id<Epoch>> {
        self.0.last().copied()
    }

    /// Whether a database with these epochs is one with the `other` epochs, later on.
    pub fn continues(&self, other: &Self) -> bool {
        other.current().is_some_and(|epoch| self.0.contains(&epoch))
    }
}

/// An ending with its number: one counter for all endings of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedEnding {
    pub number: i64,
    pub ending: Ending,
}

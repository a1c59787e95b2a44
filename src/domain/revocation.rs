//! Connections that ended, and whether their identity provider knows.

use super::{Id, Timestamp, integration::Integration, person::Person};

/// What an identity provider was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It will be told; so far it could not be.
    Waiting,
    Told,
    /// It has no way to be told (Microsoft Entra ID).
    NotOffered,
    /// It could not be told, and nothing more is tried.
    GivenUp,
}

impl Word {
    pub const ALL: [Self; 4] = [Word::Waiting, Word::Told, Word::NotOffered, Word::GivenUp];
    pub const fn as_str(self) -> &'static str {
        match self {
            Word::Waiting => "waiting",
            Word::Told => "told",
            Word::NotOffered => "not_offered",
            Word::GivenUp => "given_up",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

/// The end of one connection. Its tokens are deleted here; the provider's own copy is another
/// matter.
#[derive(Clone, Debug)]
pub struct Revocation {
    pub id: Id<Revocation>,
    pub person: Id<Person>,
    pub person_name: String,
    pub integration: Id<Integration>,
    pub integration_name: String,
    /// What pages call the identity provider.
    pub provider: String,
    pub account: Option<String>,
    /// Of the request that ended it.
    pub correlation: String,
    pub word: Word,
    pub tries: i64,
    pub next_at: Timestamp,
    pub ended_at: Timestamp,
    pub told_at: Option<Timestamp>,
}

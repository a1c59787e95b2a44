//! Revocations: the record of an ended connection, and whether its provider was told to revoke the
//! tokens (RFC 7009).

use super::{Id, Timestamp, integration::Integration, person::Person};

/// What the provider was told about the end of a connection.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum ProviderNotice {
    /// The revocation request has not succeeded yet and will be retried.
    Waiting,
    /// The provider accepted the revocation request (`told_at` is set), or there was nothing to
    /// revoke.
    Told,
    /// The provider has no revocation endpoint (Microsoft Entra ID).
    NotOffered,
    /// The revocation request failed for good.
    GivenUp,
}

impl ProviderNotice {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`ProviderNotice::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The end of one connection. The portal's copy of the tokens is deleted; `notice` says what became
/// of the provider's. Names are kept as they were, since people and integrations may be deleted.
#[derive(Clone, Debug)]
pub struct Revocation {
    pub id: Id<Revocation>,
    pub person: Id<Person>,
    pub person_name: String,
    pub integration: Id<Integration>,
    pub integration_name: String,
    /// The name of the identity provider, as pages show it.
    pub provider: String,
    /// The account's label at the provider.
    pub account: Option<String>,
    /// The reference of the request that ended the connection.
    pub correlation: String,
    pub notice: ProviderNotice,
    /// Revocation requests sent so far.
    pub tries: i64,
    /// When the next revocation request is due.
    pub next_at: Timestamp,
    pub ended_at: Timestamp,
    /// When the provider accepted the request.
    pub told_at: Option<Timestamp>,
}

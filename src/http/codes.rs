//! The error numbers of the Connect-compatible API (`code` and `error_code`). Clients branch on
//! some of them: `connectapi` on 212.

use serde::{Serialize, Serializer};

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something failed inside, or the database is busy.
    Internal = 1,
    /// A value is missing or not valid.
    Invalid = 2,
    /// An id is not a GUID, or not a number.
    MalformedId = 3,
    /// The object does not exist, or the caller may not know that it does.
    NotFound = 4,
    /// The caller may not do this.
    Forbidden = 22,
    /// Nobody is signed in.
    NotSignedIn = 24,
    /// A name is taken, or the object was changed meanwhile.
    Conflict = 26,
    /// The API key is unknown or has expired.
    UnknownKey = 30,
    /// The name of an API key.
    KeyName = 62,
    /// The anti-forgery token or the origin does not match.
    Forgery = 92,
    /// The client secret of an integration.
    ClientSecret = 205,
    /// The id of an integration.
    IntegrationId = 207,
    /// An association is not an object with an integration.
    AssociationShape = 208,
    /// An association names no integration that the caller may choose.
    AssociationUnknown = 209,
    /// The form of an exchange is empty.
    EmptyForm = 210,
    /// The form of an exchange cannot be read, or names a value twice.
    MalformedForm = 211,
    /// No integration is attached to the content.
    NoAssociation = 212,
    /// The grant type is another one.
    GrantType = 213,
    /// The type of the subject token is another one.
    SubjectTokenType = 214,
    /// The session token is not genuine, has expired, or its browser session has ended.
    SubjectToken = 215,
    /// The session token is of another portal.
    SubjectTokenIssuer = 216,
    /// The claims of the session token cannot be read.
    SubjectTokenClaims = 217,
    /// The id of an OAuth session.
    SessionId = 218,
    /// The viewer must sign in at the provider again.
    NeedsLogin = 219,
    /// The viewer has not consented, or is not connected.
    NotConnected = 220,
    /// The name of an integration.
    IntegrationName = 225,
    /// The description of an integration.
    IntegrationDescription = 226,
    /// The template of an integration.
    Template = 227,
    /// A setting of an integration.
    IntegrationConfig = 228,
    /// The template of an integration never changes.
    TemplateChange = 229,
    /// The role of an API key.
    KeyRole = 234,
    /// The content session token is not genuine, or has expired.
    ContentToken = 236,
    /// Only integrations with a client of their own can be verified.
    VerifyAuthType = 240,
    /// The provider does not answer, or refuses the client.
    ProviderFailed = 241,
    /// The requested token type is not offered.
    RequestedTokenType = 242,
    /// The integration acts for others than the subject token stands for.
    SubjectForAuthType = 252,
    /// The integration named is not attached to the content.
    Audience = 256,
    /// Several integrations are attached and none was named.
    AmbiguousAudience = 257,
    /// An association is named twice.
    DuplicateAssociation = 258,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> i64 {
        self as i64
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.number())
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number())
    }
}

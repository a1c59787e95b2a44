//! Connections: one viewer's tokens at one integration. The tokens themselves live sealed in the store.

use super::{Id, Timestamp, integration::Integration, person::Person};

/// Why a connection needs its viewer again. The words of the API's `cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The identity provider no longer accepts the refresh token, or there was none.
    Expired,
    /// A policy of the organisation asks for a new sign-in.
    Policy,
    /// A new token was issued but lost on the way to us.
    RotationLost,
    RevokedByViewer,
    RevokedByAdministrator,
}

impl Cause {
    pub const ALL: [Cause; 5] = [Cause::Expired, Cause::Policy, Cause::RotationLost, Cause::RevokedByViewer, Cause::RevokedByAdministrator];
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Expired => "expired",
            Cause::Policy => "policy",
            Cause::RotationLost => "rotation_lost",
            Cause::RevokedByViewer => "revoked_by_viewer",
            Cause::RevokedByAdministrator => "revoked_by_administrator",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Tokens are held and usable.
    Active,
    /// Tokens are held, but the account at the provider is not the one expected; nothing uses them until the viewer decides.
    Unconfirmed,
    /// No usable tokens; the viewer must sign in at the provider again.
    NeedsLogin(Cause),
}

impl State {
    /// The pair of words kept in the table.
    pub const fn words(self) -> (&'static str, Option<&'static str>) {
        match self {
            State::Active => ("active", None),
            State::Unconfirmed => ("unconfirmed", None),
            State::NeedsLogin(cause) => ("needs_login", Some(cause.as_str())),
        }
    }
    pub fn parse(state: &str, cause: Option<&str>) -> Option<Self> {
        match (state, cause) {
            ("active", _) => Some(State::Active),
            ("unconfirmed", _) => Some(State::Unconfirmed),
            ("needs_login", cause) => Some(State::NeedsLogin(cause.and_then(Cause::parse).unwrap_or(Cause::Expired))),
            _ => None,
        }
    }
}

/// Whom the identity provider says the tokens belong to, as far as the token answer told us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The name a person knows: user principal name, e-mail or preferred user name.
    pub label: Option<String>,
    pub subject: Option<String>,
    pub tenant: Option<String>,
}

impl Account {
    /// Whether this account visibly belongs to somebody else than `person`. Only names shaped like an address can be compared.
    pub fn differs_from(&self, person: &Person) -> bool {
        let Some(label) = self.label.as_deref().filter(|label| label.contains('@')) else { return false };
        let known = [person.email.as_str(), person.username.as_str()];
        let comparable = known.iter().any(|name| name.contains('@'));
        comparable && !known.iter().any(|name| name.eq_ignore_ascii_case(label))
    }
}

/// One viewer's connection to one integration, without its tokens.
#[derive(Clone, Debug)]
pub struct Connection {
    pub number: i64,
    pub id: Id<Connection>,
    pub person: Id<Person>,
    pub integration: Id<Integration>,
    pub state: State,
    pub account: Account,
    /// The scopes as issued, blank separated.
    pub scopes: String,
    pub has_refresh_token: bool,
    pub access_expires_at: Option<Timestamp>,
    /// When the provider will ask for the person again at the latest, as far as it is known.
    pub lapses_at: Option<Timestamp>,
    /// Grows with each new pair of tokens.
    pub generation: i64,
    pub connected_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When the state became what it is.
    pub state_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::person::Role;

    fn person(username: &str, email: &str) -> Person {
        Person {
            id: Id::random(),
            username: username.into(),
            email: email.into(),
            first_name: String::new(),
            last_name: String::new(),
            role: Role::Viewer,
            locked: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            active_at: None,
        }
    }

    #[test]
    fn another_account_is_noticed_whatever_its_case() {
        let account = |label: &str| Account { label: Some(label.into()), ..Account::default() };
        let ann = person("ann", "ann@example.org");
        assert!(!account("Ann@Example.org").differs_from(&ann));
        assert!(account("bo@example.org").differs_from(&ann));
        assert!(!account("opaque-subject").differs_from(&ann));
        assert!(!account("bo@example.org").differs_from(&person("bo", "")));
        assert!(!Account::default().differs_from(&ann));
    }
    #[test]
    fn states_survive_the_table() {
        for state in [State::Active, State::Unconfirmed].into_iter().chain(Cause::ALL.map(State::NeedsLogin)) {
            let (word, cause) = state.words();
            assert_eq!(State::parse(word, cause), Some(state));
        }
    }
}

//! Connections: one viewer's tokens at one integration. The tokens themselves live sealed in the
//! store.

use super::{
    Id, Timestamp,
    integration::{IdentityCheck, Integration},
    person::Person,
};

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
    /// The tokens suddenly belonged to another account.
    AccountChanged,
    /// Nothing used it for longer than the operator allows.
    Unused,
}

impl Cause {
    pub const ALL: [Cause; 7] = [
        Cause::Expired,
        Cause::Policy,
        Cause::RotationLost,
        Cause::RevokedByViewer,
        Cause::RevokedByAdministrator,
        Cause::AccountChanged,
        Cause::Unused,
    ];
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Expired => "expired",
            Cause::Policy => "policy",
            Cause::RotationLost => "rotation_lost",
            Cause::RevokedByViewer => "revoked_by_viewer",
            Cause::RevokedByAdministrator => "revoked_by_administrator",
            Cause::AccountChanged => "account_changed",
            Cause::Unused => "unused",
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
    /// Tokens are held, but the account at the provider is not the one expected; nothing uses them
    /// until the viewer decides.
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
            ("needs_login", cause) => Some(State::NeedsLogin(
                cause.and_then(Cause::parse).unwrap_or(Cause::Expired),
            )),
            _ => None,
        }
    }
}

/// Whom the identity provider says the tokens belong to, as far as the token answer told us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The name a person knows: user principal name, e-mail or preferred user name.
    pub label: Option<String>,
    /// `oid:…`, `id:…` or `access:…`: the kind of token it stood in is part of it, since the same person may have another
    /// subject in each (pairwise subjects). Only equal kinds can be compared.
    pub subject: Option<String>,
    pub tenant: Option<String>,
}

/// What an identity check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// The viewer has to say that the account is theirs.
    Ask,
    Refuse,
}

impl Account {
    /// Whether this account visibly belongs to somebody else than `person`. Only names shaped like
    /// an address can be compared.
    pub fn differs_from(&self, person: &Person) -> bool {
        let Some(label) = self.label.as_deref().filter(|label| label.contains('@')) else {
            return false;
        };
        let known = [person.email.as_str(), person.username.as_str()];
        let comparable = known.iter().any(|name| name.contains('@'));
        comparable && !known.iter().any(|name| name.eq_ignore_ascii_case(label))
    }

    /// Whether this account visibly is this person's: the name at the provider is their address or
    /// user name here.
    pub fn is_of(&self, person: &Person) -> bool {
        let label = self.label.as_deref().filter(|label| !label.is_empty());
        label.is_some_and(|label| {
            label.eq_ignore_ascii_case(&person.email)
                || label.eq_ignore_ascii_case(&person.username)
        })
    }

    /// What a check says about these tokens in this person's hands.
    pub fn verdict(&self, person: &Person, check: IdentityCheck) -> Verdict {
        match check {
            IdentityCheck::Off => Verdict::Fits,
            IdentityCheck::Warn if self.differs_from(person) => Verdict::Ask,
            IdentityCheck::Require if !self.is_of(person) => Verdict::Refuse,
            _ => Verdict::Fits,
        }
    }

    /// Whether two accounts are certainly different ones: another subject, object id or tenant.
    /// Names may change.
    pub fn is_another_than(&self, known: &Account) -> bool {
        let differ = |left: &Option<String>, right: &Option<String>| matches!((left, right), (Some(left), Some(right)) if left != right);
        let kind = |subject: &Option<String>| {
            subject
                .as_deref()
                .and_then(|text| text.split_once(':'))
                .map(|(kind, _)| kind.to_owned())
        };
        let comparable =
            kind(&self.subject).is_some() && kind(&self.subject) == kind(&known.subject);
        differ(&self.tenant, &known.tenant) || (comparable && differ(&self.subject, &known.subject))
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
    /// When content last got a token of it.
    pub used_at: Option<Timestamp>,
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
        let account = |label: &str| Account {
            label: Some(label.into()),
            ..Account::default()
        };
        let ann = person("ann", "ann@example.org");
        assert!(!account("Ann@Example.org").differs_from(&ann));
        assert!(account("bo@example.org").differs_from(&ann));
        assert!(!account("opaque-subject").differs_from(&ann));
        assert!(!account("bo@example.org").differs_from(&person("bo", "")));
        assert!(!Account::default().differs_from(&ann));
    }
    #[test]
    fn a_required_account_must_be_named_and_be_the_persons() {
        let account = |label: &str| Account {
            label: Some(label.into()),
            ..Account::default()
        };
        let ann = person("ann", "ann@example.org");
        assert_eq!(
            account("ANN@example.org").verdict(&ann, IdentityCheck::Require),
            Verdict::Fits
        );
        for other in [
            account("bo@example.org"),
            account("opaque"),
            account(""),
            Account::default(),
        ] {
            assert_eq!(other.verdict(&ann, IdentityCheck::Require), Verdict::Refuse);
        }
        assert_eq!(
            Account::default().verdict(&person("", ""), IdentityCheck::Require),
            Verdict::Refuse
        );
        assert_eq!(
            account("bo@example.org").verdict(&ann, IdentityCheck::Warn),
            Verdict::Ask
        );
        assert_eq!(
            account("bo@example.org").verdict(&ann, IdentityCheck::Off),
            Verdict::Fits
        );
    }
    #[test]
    fn only_subjects_of_one_kind_are_compared() {
        let account = |subject: &str, tenant: Option<&str>| Account {
            subject: Some(subject.into()),
            tenant: tenant.map(str::to_owned),
            ..Account::default()
        };
        assert!(account("oid:1", None).is_another_than(&account("oid:2", None)));
        assert!(account("oid:1", Some("a")).is_another_than(&account("oid:1", Some("b"))));
        assert!(!account("id:1", None).is_another_than(&account("access:2", None)));
        assert!(!account("oid:1", Some("a")).is_another_than(&account("1", None)));
        assert!(!Account::default().is_another_than(&account("oid:1", Some("a"))));
    }
    #[test]
    fn states_survive_the_table() {
        for state in [State::Active, State::Unconfirmed]
            .into_iter()
            .chain(Cause::ALL.map(State::NeedsLogin))
        {
            let (word, cause) = state.words();
            assert_eq!(State::parse(word, cause), Some(state));
        }
    }
}

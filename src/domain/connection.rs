//! Connections: one viewer's OAuth tokens at one integration, their state, and the account that
//! they belong to.
//!
//! The tokens themselves are not here: `store::connections` keeps them sealed.

use super::{
    Id, Timestamp,
    integration::{IdentityCheck, Integration},
    person::Person,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why the viewer must sign in at the provider again. The words are those of the API's `cause`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// The provider no longer accepts the refresh token, or there was none.
    Expired,
    /// A policy of the organisation requires a new sign-in.
    Policy,
    /// The provider refused repeatedly, with an error that this portal does not know.
    Refused,
    /// The provider issued a new refresh token, and the response was lost before it was stored.
    RotationLost,
    RevokedByViewer,
    RevokedByAdministrator,
    /// The provider returned the tokens of another account.
    AccountChanged,
    /// The connection was unused for longer than the operator allows.
    Unused,
}

impl Cause {
    /// The word in the API and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`Cause::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Its tokens are usable.
    Active,
    /// It has tokens, but of an account that looks like another person's. They are not used until
    /// the viewer confirms the account.
    Unconfirmed,
    /// It has no usable tokens: the viewer must sign in at the provider again.
    NeedsLogin(Cause),
}

impl State {
    /// The columns `state` and `cause`.
    pub fn columns(self) -> (&'static str, Option<&'static str>) {
        match self {
            State::Active => ("active", None),
            State::Unconfirmed => ("unconfirmed", None),
            State::NeedsLogin(cause) => ("needs_login", Some(cause.as_str())),
        }
    }
    /// The inverse of [`State::columns`]. An unknown cause is read as [`Cause::Expired`]; `None`
    /// for an unknown state.
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

/// The account at the identity provider that the tokens belong to, as far as the token response
/// named it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The name that a person recognises: user principal name, e-mail address or preferred user
    /// name.
    pub label: Option<String>,
    /// `oid:…`, `id:…` or `access:…`. The prefix says where it was read: the claim `oid`, the
    /// subject of the id token, or the subject of the access token. With pairwise subjects, the two
    /// tokens may have different subjects for one account.
    /// Only subjects with the same prefix are comparable.
    pub subject: Option<String>,
    pub tenant: Option<String>,
}

/// The result of an identity check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityVerdict {
    Fits,
    /// The viewer must confirm that the account is theirs.
    Ask,
    Refuse,
}

impl Account {
    /// The account's name in audit records.
    pub fn name(&self) -> &str {
        self.label.as_deref().unwrap_or("an account without a name")
    }

    /// Whether the account is visibly not this person's. Only object ids, and labels that look like
    /// an e-mail address, can be compared; otherwise both this and [`Self::matches_person`] may be
    /// false.
    pub fn contradicts_person(&self, person: &Person) -> bool {
        if let Some(is_same) = self.has_object_id_of(person) {
            return !is_same;
        }
        let Some(label) = self.label.as_deref().filter(|label| label.contains('@')) else {
            return false;
        };
        let known = names_of(person);
        let comparable = known.iter().any(|name| name.contains('@'));
        comparable && !known.iter().any(|name| name.eq_ignore_ascii_case(label))
    }

    /// Whether the account is this person's: the same account at the organisation; or, for people
    /// who do not sign in there, one whose label is their e-mail address or user name.
    pub fn matches_person(&self, person: &Person) -> bool {
        if let Some(is_same) = self.has_object_id_of(person) {
            return is_same;
        }
        let label = self.label.as_deref().filter(|label| !label.is_empty());
        label.is_some_and(|label| {
            names_of(person)
                .iter()
                .any(|name| name.eq_ignore_ascii_case(label))
        })
    }

    /// Whether both have the same object id at Microsoft Entra ID; `None` if one of them has none.
    fn has_object_id_of(&self, person: &Person) -> Option<bool> {
        let own = self
            .subject
            .as_deref()
            .filter(|own| own.starts_with("oid:"))?;
        Some(own == person.organisation_subject.as_deref()?)
    }

    /// Applies an identity check to this account of a connection of `person`.
    pub fn verdict(&self, person: &Person, check: IdentityCheck) -> IdentityVerdict {
        match check {
            IdentityCheck::Off => IdentityVerdict::Fits,
            IdentityCheck::Warn if self.contradicts_person(person) => IdentityVerdict::Ask,
            IdentityCheck::Require if !self.matches_person(person) => IdentityVerdict::Refuse,
            _ => IdentityVerdict::Fits,
        }
    }

    /// Whether the two accounts certainly differ, by tenant or by a comparable subject. Labels do
    /// not count: names change.
    pub fn certainly_differs_from(&self, stored: &Account) -> bool {
        let origin = subject_origin(self.subject.as_deref());
        let comparable = origin.is_some() && origin == subject_origin(stored.subject.as_deref());
        both_known_and_different(self.tenant.as_deref(), stored.tenant.as_deref())
            || (comparable
                && both_known_and_different(self.subject.as_deref(), stored.subject.as_deref()))
    }
}

/// The names by which an account is recognised as the person's: that of the organisation's account,
/// which only the organisation changes; else e-mail address and user name.
fn names_of(person: &Person) -> [&str; 2] {
    match &person.organisation_label {
        Some(label) => [label, label],
        None => [&person.email, &person.username],
    }
}

fn both_known_and_different(left: Option<&str>, right: Option<&str>) -> bool {
    matches!((left, right), (Some(left), Some(right)) if left != right)
}

/// Where a subject was read: the part before the colon.
fn subject_origin(subject: Option<&str>) -> Option<&str> {
    Some(subject?.split_once(':')?.0)
}

/// A connection without its tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// The row number. The API shows it as `id`, and the field `id` as `guid`.
    pub number: i64,
    pub id: Id<Connection>,
    pub person: Id<Person>,
    pub integration: Id<Integration>,
    pub state: State,
    pub account: Account,
    /// The granted scopes, separated by blanks.
    pub scopes: String,
    /// What content gets besides the token, such as the address of its API.
    #[serde(default)]
    pub extra_fields: BTreeMap<String, String>,
    pub has_refresh_token: bool,
    /// `None` while there is an access token: it has no end.
    pub access_expires_at: Option<Timestamp>,
    /// The provider requires a new sign-in at this time at the latest; `None` if unknown.
    pub lapses_at: Option<Timestamp>,
    /// Incremented with each new pair of tokens and each change of state; compared by
    /// compare-and-swap.
    pub generation: i64,
    /// When the viewer last signed in at the provider.
    pub connected_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When the state last changed.
    pub state_at: Timestamp,
    /// When content last got an access token of it.
    pub used_at: Option<Timestamp>,
}

impl Connection {
    /// The viewer says that the account is theirs; `None` unless the connection waits for that.
    pub fn confirm(self, now: Timestamp) -> Option<Self> {
        (self.state == State::Unconfirmed).then(|| self.moved(State::Active, now))
    }

    /// The connection ends, and its viewer must sign in at the provider again. The tokens go.
    pub fn require_login(self, cause: Cause, now: Timestamp) -> Self {
        Self {
            has_refresh_token: false,
            access_expires_at: None,
            ..self.moved(State::NeedsLogin(cause), now)
        }
    }

    fn moved(self, state: State, now: Timestamp) -> Self {
        Self {
            state,
            state_at: now,
            updated_at: now,
            generation: self.generation + 1,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray as _;

    fn person(username: &str, email: &str) -> Person {
        Person {
            username: username.into(),
            email: email.into(),
            ..Person::new(Timestamp(0))
        }
    }

    #[test]
    fn accounts_are_compared_without_regard_to_case() {
        let account = |label: &str| Account {
            label: Some(label.into()),
            ..Account::default()
        };
        let ann = person("ann", "ann@example.org");
        assert!(!account("Ann@Example.org").contradicts_person(&ann));
        assert!(account("bo@example.org").contradicts_person(&ann));
        assert!(!account("opaque-subject").contradicts_person(&ann));
        assert!(!account("bo@example.org").contradicts_person(&person("bo", "")));
        assert!(!Account::default().contradicts_person(&ann));
    }
    #[test]
    fn a_required_account_must_carry_the_persons_name() {
        let account = |label: &str| Account {
            label: Some(label.into()),
            ..Account::default()
        };
        let ann = person("ann", "ann@example.org");
        assert_eq!(
            account("ANN@example.org").verdict(&ann, IdentityCheck::Require),
            IdentityVerdict::Fits
        );
        for other in [
            account("bo@example.org"),
            account("opaque"),
            account(""),
            Account::default(),
        ] {
            assert_eq!(
                other.verdict(&ann, IdentityCheck::Require),
                IdentityVerdict::Refuse
            );
        }
        assert_eq!(
            Account::default().verdict(&person("", ""), IdentityCheck::Require),
            IdentityVerdict::Refuse
        );
        assert_eq!(
            account("bo@example.org").verdict(&ann, IdentityCheck::Warn),
            IdentityVerdict::Ask
        );
        assert_eq!(
            account("bo@example.org").verdict(&ann, IdentityCheck::Off),
            IdentityVerdict::Fits
        );
    }
    #[test]
    fn the_organisations_account_counts_more_than_names_here() {
        let account = |label: &str, oid: &str| Account {
            label: Some(label.into()),
            subject: Some(oid.into()),
            tenant: None,
        };
        let ann = Person {
            organisation_label: Some("ann@corp.example".into()),
            organisation_subject: Some("oid:1".into()),
            ..person("viktor@corp.example", "viktor@corp.example")
        };
        for (label, subject, verdict) in [
            ("viktor@corp.example", "oid:2", IdentityVerdict::Refuse),
            ("renamed@corp.example", "oid:1", IdentityVerdict::Fits),
            ("viktor@corp.example", "id:9", IdentityVerdict::Refuse),
            ("ANN@corp.example", "id:9", IdentityVerdict::Fits),
        ] {
            let found = account(label, subject).verdict(&ann, IdentityCheck::Require);
            assert_eq!(found, verdict, "{label} {subject}");
        }
    }
    #[test]
    fn only_subjects_of_one_kind_are_compared() {
        let account = |subject: &str, tenant: Option<&str>| Account {
            subject: Some(subject.into()),
            tenant: tenant.map(str::to_owned),
            ..Account::default()
        };
        assert!(account("oid:1", None).certainly_differs_from(&account("oid:2", None)));
        assert!(account("oid:1", Some("a")).certainly_differs_from(&account("oid:1", Some("b"))));
        assert!(!account("id:1", None).certainly_differs_from(&account("access:2", None)));
        assert!(!account("oid:1", Some("a")).certainly_differs_from(&account("1", None)));
        assert!(!Account::default().certainly_differs_from(&account("oid:1", Some("a"))));
    }
    #[test]
    fn states_are_read_back_as_they_were_stored() {
        for state in [State::Active, State::Unconfirmed]
            .into_iter()
            .chain(Cause::VARIANTS.iter().copied().map(State::NeedsLogin))
        {
            let (word, cause) = state.columns();
            assert_eq!(State::parse(word, cause), Some(state));
        }
    }
}

//! The audit log's vocabulary: actions, outcomes and records. `store::audit` keeps the records in a
//! hash chain.

use super::{Id, Timestamp, person::Person};

/// What happened. Its text is what the table, the page and the API show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    SignIn,
    SignInRefused,
    SignOut,
    PersonCreated,
    PersonChanged,
    PersonLocked,
    PersonUnlocked,
    PasswordChanged,
    SessionsEnded,
    /// A person entered their password again, or signed in again, before a sensitive action.
    Confirmed,
    ConfirmRefused,
    /// A one-time link for setting a password was made.
    OneTimeLinkCreated,
    GroupChanged,
    /// A refresh or a new sign-in returned the tokens of another account at the provider.
    AccountChanged,
    ExchangeRefused,
    AccessRefused,
    RecordExported,
    KeyCreated,
    KeyDeleted,
    IntegrationCreated,
    IntegrationChanged,
    IntegrationDeleted,
    ContentCreated,
    ContentChanged,
    ContentDeleted,
    AccessChanged,
    AssociationsChanged,
    ConsentRefused,
    ConsentGiven,
    ConsentRevoked,
    Connected,
    Disconnected,
    ConnectionNeedsLogin,
    ConnectionFailed,
    CallbackRefused,
    ProviderTold,
    ProviderNotTold,
    /// Warning: a client secret expires soon.
    SecretExpiring,
    /// The leak alarm ([`super::leak`]) saw a viewer's token used without its viewer.
    LeakSuspected,
    /// The publisher fixed the app and cleared the item's leaks.
    LeaksCleared,
}

impl Action {
    /// All actions, in the order in which pages show them.
    pub const ALL: [Action; 40] = [
        Action::SignIn,
        Action::SignInRefused,
        Action::SignOut,
        Action::PersonCreated,
        Action::PersonChanged,
        Action::PersonLocked,
        Action::PersonUnlocked,
        Action::PasswordChanged,
        Action::SessionsEnded,
        Action::Confirmed,
        Action::ConfirmRefused,
        Action::OneTimeLinkCreated,
        Action::GroupChanged,
        Action::AccountChanged,
        Action::ExchangeRefused,
        Action::AccessRefused,
        Action::RecordExported,
        Action::KeyCreated,
        Action::KeyDeleted,
        Action::IntegrationCreated,
        Action::IntegrationChanged,
        Action::IntegrationDeleted,
        Action::ContentCreated,
        Action::ContentChanged,
        Action::ContentDeleted,
        Action::AccessChanged,
        Action::AssociationsChanged,
        Action::ConsentRefused,
        Action::ConsentGiven,
        Action::ConsentRevoked,
        Action::Connected,
        Action::Disconnected,
        Action::ConnectionNeedsLogin,
        Action::ConnectionFailed,
        Action::CallbackRefused,
        Action::ProviderTold,
        Action::ProviderNotTold,
        Action::SecretExpiring,
        Action::LeakSuspected,
        Action::LeaksCleared,
    ];
    /// The word in the table, on pages and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::SignIn => "sign_in",
            Action::SignInRefused => "sign_in_refused",
            Action::SignOut => "sign_out",
            Action::PersonCreated => "person_created",
            Action::PersonChanged => "person_changed",
            Action::PersonLocked => "person_locked",
            Action::PersonUnlocked => "person_unlocked",
            Action::PasswordChanged => "password_changed",
            Action::SessionsEnded => "sessions_ended",
            Action::Confirmed => "identity_confirmed",
            Action::ConfirmRefused => "identity_confirm_refused",
            Action::OneTimeLinkCreated => "one_time_link_made",
            Action::GroupChanged => "group_changed",
            Action::AccountChanged => "connection_account_changed",
            Action::ExchangeRefused => "exchange_refused",
            Action::AccessRefused => "access_refused",
            Action::RecordExported => "record_exported",
            Action::KeyCreated => "api_key_created",
            Action::KeyDeleted => "api_key_deleted",
            Action::IntegrationCreated => "integration_created",
            Action::IntegrationChanged => "integration_changed",
            Action::IntegrationDeleted => "integration_deleted",
            Action::ContentCreated => "content_created",
            Action::ContentChanged => "content_changed",
            Action::ContentDeleted => "content_deleted",
            Action::AccessChanged => "content_access_changed",
            Action::AssociationsChanged => "content_integrations_changed",
            Action::ConsentRefused => "consent_refused",
            Action::ConsentGiven => "consent_given",
            Action::ConsentRevoked => "consent_revoked",
            Action::Connected => "connected",
            Action::Disconnected => "disconnected",
            Action::ConnectionNeedsLogin => "connection_needs_login",
            Action::ConnectionFailed => "connection_failed",
            Action::CallbackRefused => "callback_refused",
            Action::ProviderTold => "provider_told",
            Action::ProviderNotTold => "provider_not_told",
            Action::SecretExpiring => "client_secret_ending",
            Action::LeakSuspected => "shared_token_suspected",
            Action::LeaksCleared => "shared_token_mended",
        }
    }
    /// The inverse of [`Action::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// How an action ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    #[default]
    Done,
    Refused,
    Failed,
}

impl Outcome {
    /// The word in the table, on pages and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
    /// The inverse of [`Outcome::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        [Outcome::Done, Outcome::Refused, Outcome::Failed]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
    /// The outcome that an action implies.
    pub const fn of(action: Action) -> Self {
        match action {
            Action::SignInRefused
            | Action::ConfirmRefused
            | Action::ConsentRefused
            | Action::CallbackRefused
            | Action::ExchangeRefused
            | Action::AccountChanged
            | Action::AccessRefused => Outcome::Refused,
            Action::ConnectionFailed | Action::ConnectionNeedsLogin | Action::ProviderNotTold => {
                Outcome::Failed
            }
            _ => Outcome::Done,
        }
    }
}

/// Where a request came from, for the audit record.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's network address.
    pub address: String,
    /// The reference that ties together the audit record, the log and the error page.
    pub correlation: String,
}

/// One audit record.
#[derive(Clone, Debug)]
pub struct Event {
    /// Position in the chain; assigned by the store.
    pub number: i64,
    pub at: Timestamp,
    pub action: Action,
    /// The person who acted; `None` for the portal itself and for unknown callers.
    pub actor: Option<Id<Person>>,
    /// The actor's name at that time: a later rename does not change the record.
    pub actor_name: String,
    /// What the action was about, in words.
    pub subject: String,
    pub detail: String,
    pub address: String,
    pub correlation: String,
    pub outcome: Outcome,
    /// Hash over the previous record and this one; empty until stored.
    pub hash: String,
}

impl Event {
    /// A record of the portal's own, without actor address and correlation. A caller that acts for
    /// a person fills in those fields.
    pub fn by_portal(
        at: Timestamp,
        action: Action,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            number: 0,
            at,
            action,
            actor: None,
            actor_name: "portal".into(),
            subject: subject.into(),
            detail: detail.into(),
            address: String::new(),
            correlation: String::new(),
            outcome: Outcome::of(action),
            hash: String::new(),
        }
    }
}

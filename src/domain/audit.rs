//! The audit log's vocabulary: actions, outcomes and records. `store::audit` keeps the records
//! and seals them.

use super::{Id, Timestamp, person::Person};

/// What happened. Its text is what the table, the page and the API show, in this order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    SignIn,
    SignInRefused,
    SignOut,
    PersonCreated,
    PersonChanged,
    PersonLocked,
    PersonUnlocked,
    /// A person and everything about them was deleted; the record keeps a pseudonym.
    PersonDeleted,
    /// Everything that is stored about a person was handed out.
    PersonalDataExported,
    /// All sessions, API keys and connections were ended, in an emergency.
    EverythingEnded,
    /// The secret behind cookies and session tokens was replaced.
    RootRotated,
    PasswordChanged,
    SessionsEnded,
    /// A person entered their password again, or signed in again, before a sensitive action.
    #[strum(serialize = "identity_confirmed")]
    Confirmed,
    #[strum(serialize = "identity_confirm_refused")]
    ConfirmRefused,
    /// A one-time link for setting a password was made.
    #[strum(serialize = "one_time_link_made")]
    OneTimeLinkCreated,
    GroupChanged,
    /// A refresh or a new sign-in returned the tokens of another account at the provider.
    #[strum(serialize = "connection_account_changed")]
    AccountChanged,
    ExchangeRefused,
    AccessRefused,
    RecordExported,
    /// Records older than the operator keeps them were deleted.
    RecordCut,
    /// The database was restored from a backup.
    Restored,
    #[strum(serialize = "api_key_created")]
    KeyCreated,
    #[strum(serialize = "api_key_deleted")]
    KeyDeleted,
    IntegrationCreated,
    IntegrationChanged,
    IntegrationDeleted,
    IntegrationChecked,
    ContentCreated,
    ContentChanged,
    ContentDeleted,
    /// A bundle was deployed for viewers.
    ContentDeployed,
    #[strum(serialize = "content_access_requested")]
    AccessRequested,
    #[strum(serialize = "content_access_changed")]
    AccessChanged,
    #[strum(serialize = "content_integrations_changed")]
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
    #[strum(serialize = "client_secret_ending")]
    SecretExpiring,
    /// Who is told what, by mail and webhooks.
    NotificationsChanged,
    /// The leak alarm ([`super::leak`]) saw a viewer's token used without its viewer.
    #[strum(serialize = "shared_token_suspected")]
    LeakSuspected,
    /// The publisher fixed the app and cleared the item's leaks.
    #[strum(serialize = "shared_token_mended")]
    LeaksCleared,
}

impl Action {
    /// The word in the table, on pages and in the API.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`Action::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// How an action ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    #[default]
    Done,
    Refused,
    Failed,
}

impl Outcome {
    /// The word in the table, on pages and in the API.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
    /// The inverse of [`Outcome::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
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
    /// The block that seals the record; `None` for about a second.
    pub block: Option<i64>,
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
            block: None,
        }
    }
}

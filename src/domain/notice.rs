//! What people are told beside the pages, by mail and webhooks: the kinds of notices, and whom each is
//! for. Which of them are sent is decided by administrators (`service::notifying`).

use super::{Id, Timestamp, person::Person};

/// What a notice is about.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    // For administrators.
    SecretExpiring,
    SecretRejected,
    ProviderUnreachable,
    LeakSuspected,
    BackupOverdue,
    AuditLogChanged,
    DiskLow,
    WeeklyDigest,
    // For one person.
    ConnectionNeedsViewer,
    ConsentGiven,
    NewDevice,
    AccessRequested,
    ContentLeaks,
    ApiKeyUnused,
    /// A test that an administrator asked for.
    Test,
}

/// Whom notices of a kind are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Administrators,
    /// The person that the notice names.
    OnePerson,
}

impl Kind {
    /// The word in the database and in webhooks.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The inverse of [`Kind::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// Whom it is for.
    pub const fn audience(self) -> Audience {
        match self {
            Kind::SecretExpiring
            | Kind::SecretRejected
            | Kind::ProviderUnreachable
            | Kind::LeakSuspected
            | Kind::BackupOverdue
            | Kind::AuditLogChanged
            | Kind::DiskLow
            | Kind::WeeklyDigest => Audience::Administrators,
            Kind::ConnectionNeedsViewer
            | Kind::ConsentGiven
            | Kind::NewDevice
            | Kind::AccessRequested
            | Kind::ContentLeaks
            | Kind::ApiKeyUnused
            | Kind::Test => Audience::OnePerson,
        }
    }

    /// The words on the page.
    pub const fn label(self) -> &'static str {
        match self {
            Kind::SecretExpiring => "A client secret expires (30, 14, 7 days and 1 day before)",
            Kind::SecretRejected => "A provider rejects a client secret",
            Kind::ProviderUnreachable => "A provider has not worked for ten minutes",
            Kind::LeakSuspected => "An app used a viewer's token without that viewer",
            Kind::BackupOverdue => "No backup for two days",
            Kind::AuditLogChanged => "The audit log was changed",
            Kind::DiskLow => "Less than 10 % of the disk is free",
            Kind::WeeklyDigest => "The week in numbers, on Mondays",
            Kind::ConnectionNeedsViewer => "A connection needs its viewer",
            Kind::ConsentGiven => "The person agreed to content acting for them",
            Kind::NewDevice => "A sign-in from a browser not seen before",
            Kind::AccessRequested => "Somebody asks to open the person's content",
            Kind::ContentLeaks => "The person's app used a viewer's token without that viewer",
            Kind::ApiKeyUnused => "An API key of the person was not used for 180 days",
            Kind::Test => "A test",
        }
    }

    /// Whether it can be chosen on the page.
    pub const fn is_offered(self) -> bool {
        !matches!(self, Kind::Test)
    }
}

/// A notice to be made.
#[derive(Clone, Debug)]
pub struct Notice {
    pub kind: Kind,
    /// Whom it is for; `None`: administrators.
    pub person: Option<Id<Person>>,
    /// One line, without a full stop.
    pub title: String,
    /// What happened and what to do, in sentences.
    pub body: String,
    /// The page that helps.
    pub path: String,
    /// While a notice with this text is kept (30 days), no second one is made.
    pub once: Option<String>,
}

/// A receiver that programs are behind (webhook).
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: Id<Webhook>,
    pub name: String,
    /// Scheme and host of its address; the rest may hold a secret.
    pub host: String,
    pub kinds: Vec<Kind>,
    pub created_at: Timestamp,
}

/// Which notices of a kind are mailed.
#[derive(Clone, Debug)]
pub struct Rule {
    pub kind: Kind,
    /// To administrators, or to the person it is for.
    pub mailed: bool,
    /// And to these addresses.
    pub addresses: Vec<String>,
}

/// Where a delivery goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Webhook(Id<Webhook>),
    Mail(String),
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// To be tried at its time.
    Waiting,
    Delivered,
    /// Tried as often as is worth it.
    Failed,
}

impl DeliveryState {
    /// The word in the database and on the page.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The inverse of [`DeliveryState::as_str`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A notice as it is kept.
#[derive(Clone, Debug)]
pub struct KeptNotice {
    pub number: i64,
    pub at: Timestamp,
    pub kind: Kind,
    pub person: Option<Id<Person>>,
    pub title: String,
    pub body: String,
    pub path: String,
}

/// One notice on its way to one receiver.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub number: i64,
    pub notice: KeptNotice,
    pub target: Target,
    pub state: DeliveryState,
    pub tries: i64,
    pub next_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub error: Option<String>,
}

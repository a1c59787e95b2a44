//! The service layer: what the server does, one operation per function. Owns transactions, access
//! checks and audit records: pages and the API never decide. The access rules themselves are in
//! [`crate::domain::access`].
//!
//! Knows nothing of HTTP requests or pages (`web`, `proxy`), and leaves SQL to `store`. Both
//! databases allow one writing transaction at a time, so a check and a write in one transaction
//! cannot race.

pub mod admission;
pub mod attempts;
pub mod audit;
pub mod bootstrap;
pub mod broker;
pub mod consents;
pub mod contents;
pub mod exchange;
pub mod groups;
pub mod handover;
mod hashing;
pub mod integrations;
pub mod keyring;
pub mod keys;
pub mod leaks;
pub mod limiter;
pub mod node;
pub mod people;
pub mod presence;
pub mod revocations;
pub mod shown;
pub mod sign_in;

use crate::{
    config::Settings,
    domain::{
        Id, Timestamp,
        addresses::Addresses,
        audit::{Action, Event, Origin},
        egress::Policy,
        person::{Person, Role, Session},
        time::Clock,
    },
    oauth::{http::ProviderHttp, sign_in::MetadataCache},
    providers::FieldError,
    store::{self, Db, Store},
    vault::{self, Root, Vault, session_token::SessionTokens},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Errors that a caller can show. Everything else is `Internal`, logged where it happened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not found")]
    NotFound,
    #[error("{0}")]
    Forbidden(&'static str),
    /// Invalid input: all problems at once.
    #[error("{} problem(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The name is taken, or the row was changed meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// The database is locked or full: retry.
    #[error("busy")]
    Busy,
    /// Too many tries: retry after this time.
    #[error("too many tries")]
    TooMany(std::time::Duration),
    #[error("internal error")]
    Internal,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NotFound => Error::NotFound,
            store::Error::Taken => Error::Conflict("This name is taken.".into()),
            store::Error::Busy(text) => {
                tracing::warn!(reason = text, "database busy");
                Error::Busy
            }
            store::Error::Other(text) => {
                tracing::error!(reason = text, "database error");
                Error::Internal
            }
        }
    }
}

impl From<vault::Error> for Error {
    fn from(error: vault::Error) -> Self {
        tracing::error!(reason = %error, "sealed value");
        Error::Internal
    }
}

/// An [`Error::Invalid`] with one problem; `key` names the field.
pub fn invalid(key: &str, message: impl Into<String>) -> Error {
    Error::Invalid(vec![FieldError::new(key, message)])
}

/// The caller of an operation.
#[derive(Clone, Debug)]
pub struct Actor {
    pub person: Person,
    /// The person's role, or the lower one of the API key used.
    pub role: Role,
    /// The browser session; `None` for an API key.
    pub session: Option<Id<Session>>,
    pub origin: Origin,
}

impl Actor {
    /// The person with the lower of both roles: access rules must not grant an API key more than
    /// its own role.
    pub fn with_effective_role(&self) -> Person {
        Person {
            role: self.role.min(self.person.role),
            ..self.person.clone()
        }
    }
}

/// The state that all operations share. Built once.
pub struct Service {
    pub settings: Settings,
    pub addresses: Addresses,
    pub store: Store,
    pub(crate) vault: Arc<Vault>,
    /// The secret from which the keys of cookies and session tokens are derived. Stored sealed in
    /// the database, so that rotating the keyring signs nobody out.
    pub(crate) root: Root,
    pub(crate) session_tokens: SessionTokens,
    pub(crate) http: ProviderHttp,
    /// The organisation's sign-in provider, as discovery described it.
    pub(crate) organisation: MetadataCache,
    /// Which outside addresses the portal may connect to.
    pub policy: Arc<Policy>,
    pub clock: Arc<dyn Clock>,
    node: node::Node,
    hashing: hashing::Hashing,
    pub(crate) broker: broker::Broker,
    admissions: admission::Cache,
    presences: presence::Presences,
    /// Held session tokens, with the number of open WebSockets and streams that hold each.
    held: Mutex<HashMap<String, usize>>,
    /// Hashes of the held tokens that were last shared with the other nodes.
    shared: Mutex<HashSet<String>>,
    /// Exchanges not yet written to the database.
    usage: exchange::UsageCounters,
    /// Refusals recorded lately.
    refusals: audit::Refusals,
    /// Provider calls run here, so that a client that disconnects does not cancel them.
    runtime: Handle,
    /// Background tasks. A stop waits for them, for a limited time.
    pub tasks: TaskTracker,
}

/// The parts that [`Service::new`] takes.
pub struct Parts {
    pub settings: Settings,
    pub store: Store,
    pub vault: Vault,
    pub root: Root,
    pub clock: Arc<dyn Clock>,
}

impl Service {
    /// Must be called inside the runtime that provider calls are to run on. The error is a sentence
    /// for the operator.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let Parts {
            settings,
            store,
            vault,
            root,
            clock,
        } = parts;
        let mut own = settings.origins.own_hosts();
        own.push(settings.listen.to_string());
        let policy = Arc::new(
            Policy::new(&settings.private_hosts, &own).with_sockets(&settings.upstream_sockets),
        );
        let http = ProviderHttp::new(Arc::clone(&policy)).map_err(|error| error.to_string())?;
        let session_tokens = SessionTokens::new(
            &root,
            settings.base().to_owned(),
            settings.session_token_lifetime,
        );
        Ok(Self {
            addresses: Addresses::new(settings.base()),
            store,
            vault: Arc::new(vault),
            node: node::Node::default(),
            root,
            session_tokens,
            http,
            organisation: MetadataCache::default(),
            policy,
            clock,
            hashing: hashing::Hashing::new()
                .map_err(|error| format!("cannot start threads: {error}"))?,
            broker: broker::Broker::default(),
            admissions: admission::Cache::default(),
            presences: presence::Presences::default(),
            held: Mutex::default(),
            shared: Mutex::default(),
            usage: exchange::UsageCounters::default(),
            refusals: audit::Refusals::default(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            settings,
        })
    }

    /// The current time of the configured clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes in a background task, so that a busy database delays no request. Failures are only
    /// logged; `what` names the write in the log.
    pub fn write_in_background(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Db<'_>) -> Result<(), store::Error> + Send + 'static,
    ) {
        let store = self.store.clone();
        let noting = async move {
            if let Err(error) = store.write_untracked(work).await {
                tracing::warn!(%error, "could not note {what}");
            }
        };
        self.tasks.spawn_on(noting, &self.runtime);
    }

    /// Browser sessions last seen before this time have expired.
    pub fn idle_since(&self) -> Timestamp {
        self.now().minus(self.settings.session_idle)
    }
}

/// An audit event of an actor, ready for [`store::audit::insert`].
fn event(
    actor: &Actor,
    now: Timestamp,
    action: Action,
    subject: impl Into<String>,
    detail: impl Into<String>,
) -> Event {
    Event {
        actor: Some(actor.person.id),
        actor_name: actor.person.username.clone(),
        address: actor.origin.address.clone(),
        correlation: actor.origin.correlation.clone(),
        ..Event::by_portal(now, action, subject, detail)
    }
}

/// Appends an audit record inside the transaction of the action that it describes.
fn record(db: &mut Db<'_>, event: &Event) -> Result<(), Error> {
    Ok(store::audit::insert(db, event)?)
}

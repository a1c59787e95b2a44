//! What the server does, one verb a function. Owns transactions, access checks and the record.

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
    oauth::{http::ProviderHttp, sign_in::Known},
    providers::Problem,
    store::{self, Db, Store},
    vault::{self, Root, Vault, session_token::SessionTokens},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// What can go wrong that a caller can show. Everything else is `Internal`, logged where it
/// happened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not found")]
    NotFound,
    #[error("{0}")]
    Forbidden(&'static str),
    /// What was entered is not right; all problems at once.
    #[error("{} problem(s)", .0.len())]
    Invalid(Vec<Problem>),
    /// Something of this name is there already.
    #[error("{0}")]
    Conflict(String),
    /// The database is locked or full: try again.
    #[error("busy")]
    Busy,
    /// Too many tries: come back after this time.
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

/// One problem with what was entered.
pub fn invalid(key: &str, message: impl Into<String>) -> Error {
    Error::Invalid(vec![Problem::new(key, message)])
}

/// Who asks, with which role, from where.
#[derive(Clone, Debug)]
pub struct Actor {
    pub person: Person,
    /// The person's role, or the lower one of the API key used.
    pub role: Role,
    pub session: Option<Id<Session>>,
    pub origin: Origin,
}

impl Actor {
    /// The person as seen through the key's role: access rules must not grant more.
    pub fn capped(&self) -> Person {
        Person {
            role: self.role.min(self.person.role),
            ..self.person.clone()
        }
    }
}

/// What everything here works with. Built once.
pub struct Service {
    pub settings: Settings,
    pub addresses: Addresses,
    pub store: Store,
    pub(crate) vault: Arc<Vault>,
    pub(crate) root: Root,
    pub(crate) session_tokens: SessionTokens,
    pub(crate) http: ProviderHttp,
    /// The organisation's sign-in provider, as discovery described it.
    pub(crate) organisation: Known,
    pub policy: Arc<Policy>,
    pub clock: Arc<dyn Clock>,
    node: node::Node,
    hashing: hashing::Hashing,
    pub(crate) broker: broker::Broker,
    admissions: admission::Cache,
    presences: presence::Presences,
    /// Session tokens of open sockets and streams, with how many hold each.
    held: Mutex<HashMap<String, usize>>,
    /// Hashes of those that the other nodes were told of.
    shared: Mutex<HashSet<String>>,
    usage: exchange::Counters,
    refusals: audit::Refusals,
    /// Where provider calls run: a client that goes away cancels none of them.
    runtime: Handle,
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
    /// Must be called inside the runtime that provider calls are to run on.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let Parts {
            settings,
            store,
            vault,
            root,
            clock,
        } = parts;
        let mut own = settings.wall.own_hosts();
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
            organisation: Known::default(),
            policy,
            clock,
            hashing: hashing::Hashing::new()
                .map_err(|error| format!("cannot start threads: {error}"))?,
            broker: broker::Broker::default(),
            admissions: admission::Cache::default(),
            presences: presence::Presences::default(),
            held: Mutex::default(),
            shared: Mutex::default(),
            usage: exchange::Counters::default(),
            refusals: audit::Refusals::default(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            settings,
        })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Writes down what nobody waits for: a database that is busy holds no request up for it.
    pub fn note_later(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Db<'_>) -> Result<(), store::Error> + Send + 'static,
    ) {
        let store = self.store.clone();
        let noting = async move {
            if let Err(error) = store.note(work).await {
                tracing::warn!(%error, "could not note {what}");
            }
        };
        self.tasks.spawn_on(noting, &self.runtime);
    }

    /// Sessions not seen since this moment are over.
    pub fn idle_since(&self) -> Timestamp {
        self.now().minus(self.settings.session_idle)
    }
}

/// An event by an actor, ready for [`store::audit::insert`].
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

/// Appends an event inside the transaction of what it tells of.
fn record(db: &mut Db<'_>, event: &Event) -> Result<(), Error> {
    Ok(store::audit::insert(db, event)?)
}

//! What every part of the service layer may use: settings, database, keys, clock, policy, and where
//! background work runs. Owns no operation.

use super::{cluster::cache::LoadStart, error::Error};
use crate::{
    config::Settings,
    dns::Resolver,
    domain::{
        Id, Timestamp, access,
        addresses::Addresses,
        audit::{Action, Event, Origin},
        egress::Policy,
        person::{Person, Role, Session},
        time::Clock,
    },
    oauth::http::ProviderHttp,
    store::{self, Db, Store},
    vault::{Root, Vault, audit_key::AuditKey},
};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Entries that each cache of decisions holds at most.
pub(in crate::service) const CACHE_CAPACITY: usize = 20_000;

/// The shared foundation of all parts. Built once.
pub struct Core {
    pub settings: Settings,
    pub addresses: Addresses,
    pub store: Store,
    pub(crate) vault: Arc<Vault>,
    /// The secret from which the keys of the audit log and of the journal of endings are derived.
    /// Stored sealed in the database, so that rotating the keyring changes neither.
    pub(crate) root: Root,
    /// From which the keys of cookies, session tokens and visitor keys are derived.
    pub(crate) session_root: Root,
    pub(crate) http: ProviderHttp,
    /// Looks host names up.
    pub names: Resolver,
    /// Which outside addresses the portal may connect to.
    pub policy: Arc<Policy>,
    pub clock: Arc<dyn Clock>,
    /// Provider calls run here, so that a client that disconnects does not cancel them.
    pub(in crate::service) runtime: Handle,
    /// Background tasks. A stop waits for them, for a limited time.
    pub tasks: TaskTracker,
}

/// What [`Core::new`] takes.
pub struct Parts {
    pub settings: Settings,
    pub store: Store,
    pub vault: Vault,
    pub root: Root,
    pub session_root: Root,
    pub clock: Arc<dyn Clock>,
}

impl Core {
    /// Must be called inside the runtime that provider calls are to run on. The error is a sentence
    /// for the operator.
    pub(in crate::service) fn new(parts: Parts) -> Result<Self, String> {
        let Parts {
            settings,
            store,
            vault,
            root,
            session_root,
            clock,
        } = parts;
        let mut own = settings.origins.own_hosts();
        own.push(settings.listen.to_string());
        let policy = Arc::new(
            Policy::new(&settings.private_hosts, &own)
                .with_listener(settings.listen)
                .with_sockets(&settings.upstream_sockets),
        );
        store.set_audit_key(AuditKey::new(&root));
        let names = Resolver::new();
        let http = ProviderHttp::new(Arc::clone(&policy), names.clone(), &settings.trust)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            addresses: Addresses::new(settings.base()),
            store,
            vault: Arc::new(vault),
            root,
            session_root,
            http,
            names,
            policy,
            clock,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            settings,
        })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The moment before something cacheable is loaded.
    pub fn load_start(&self) -> LoadStart {
        LoadStart::new(&self.store, self.now())
    }

    /// Runs `work` in a task of its own and waits for it. If the caller is dropped, as when a client
    /// disconnects, the work goes on; a stop waits for it, for a limited time. `Internal` if it
    /// panics.
    pub(in crate::service) async fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let task = self.tasks.spawn_on(work, &self.runtime);
        task.await.map_err(|error| {
            if error.is_cancelled() {
                store::Error::Busy("the program stops".into()).into()
            } else {
                Error::Internal("a background task panicked")
            }
        })
    }

    /// Like [`Self::run_to_end`], but waits for `patience` at most: `None` if the work goes on.
    pub(in crate::service) async fn run_for<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let (result, waiting) = tokio::sync::oneshot::channel();
        let task = async move {
            if let Err(Err(error)) = result.send(work.await) {
                error.log("work whose request was already answered");
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
        match tokio::time::timeout(patience, waiting).await {
            Ok(Ok(result)) => result.map(Some),
            Ok(Err(_)) => Err(Error::Internal("a background task ended early")),
            Err(_) => Ok(None),
        }
    }

    /// When `valetkey backup` last wrote a backup; `None` if it never did.
    pub async fn backed_up_at(&self) -> Result<Option<Timestamp>, Error> {
        self.store
            .read(|db| {
                let at = Store::meta(db, store::copy::BACKED_UP_AT)?;
                Ok(at.and_then(|text| text.parse().ok()).map(Timestamp))
            })
            .await
    }

    /// Browser sessions last seen before this time have expired.
    pub fn idle_since(&self) -> Timestamp {
        self.now().minus(self.settings.session_idle)
    }
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

/// Refuses with `sentence`, which says who may, unless a rule of [`crate::domain::access`] allows
/// it.
pub(in crate::service) fn require(allowed: bool, sentence: &'static str) -> Result<(), Error> {
    if allowed {
        Ok(())
    } else {
        Err(Error::Forbidden(sentence))
    }
}

/// Refuses unless the actor may see integrations.
pub fn must_see_integrations(actor: &Actor) -> Result<(), Error> {
    require(
        access::may_see_integrations(actor.role),
        "Only publishers and administrators see integrations.",
    )
}

/// Refuses unless the actor may create, change and delete integrations.
pub fn must_manage_integrations(actor: &Actor) -> Result<(), Error> {
    require(
        access::may_manage_integrations(actor.role),
        "Only administrators manage integrations.",
    )
}

/// Refuses unless the actor may manage groups: whoever manages people.
pub fn must_manage_groups(actor: &Actor) -> Result<(), Error> {
    require(
        access::may_manage_people(actor.role),
        "Only administrators manage groups.",
    )
}

/// Refuses unless the actor may create, change and lock people.
pub fn must_manage_people(actor: &Actor) -> Result<(), Error> {
    require(
        access::may_manage_people(actor.role),
        "Only administrators manage people.",
    )
}

/// An audit event of an actor, ready for [`store::audit::insert`].
pub(in crate::service) fn event(
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
pub(in crate::service) fn record(db: &mut Db<'_>, event: &Event) -> Result<(), Error> {
    Ok(store::audit::insert(db, event)?)
}

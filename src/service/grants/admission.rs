//! Admission: may this person use this content item now, and with which access tokens? Asked on
//! every proxied request and every exchange.
//!
//! A cached admission is valid while nothing it depends on changes: the person, the item, its
//! integrations and their connections (`service::cluster::cache`). So a revocation takes effect at
//! once on its own node and within a fraction of a second on the others, without a query per call.
//! A refusal is never served from the cache: another node may have granted access a moment ago.

use crate::{
    domain::{
        Id,
        access::{self, Standing},
        connection::{Connection, IdentityVerdict, State},
        consent::Consent,
        content::Content,
        integration::{AuthType, Integration},
        person::Person,
    },
    measures,
    service::{
        cluster::{
            cache::{DecisionCache, LoadStart, Validity},
            presence::{PresenceBoard, ViewerAt},
        },
        core::{CACHE_CAPACITY, Core},
        error::Error,
        people::app_identity,
    },
    store::{
        Db,
        admission::{self, AttachedIntegration},
        changes::Subject,
        content, groups,
    },
    vault::labels,
};
use secrecy::SecretString;
use std::sync::{Arc, OnceLock};

/// One integration attached to an item, with the viewer's consent and connection, if any.
pub struct IntegrationAccess {
    pub integration: Integration,
    /// The owner allowed content to act as itself here beside acting for viewers.
    pub beside_viewers: bool,
    /// The consent that covers what the integration asks for now.
    pub consent: Option<Id<Consent>>,
    /// There is a consent, for fewer scopes than the integration asks for now.
    pub asks_for_more: bool,
    pub connection: Option<Connection>,
    /// The integration requires the viewer's own account, and the connected account differs or
    /// has no name.
    pub is_other_account: bool,
    /// The stored access token, decrypted; it may have expired. `Some` only while the connection is
    /// active, its account is accepted and the consent is given.
    pub access_token: Option<Arc<SecretString>>,
}

impl IntegrationAccess {
    /// Whether the viewer must consent or connect before the app can use this integration.
    pub fn needs_viewer(&self) -> bool {
        // A service account is nobody's to give.
        if self.integration.auth_type == AuthType::ServiceAccount {
            return false;
        }
        self.consent.is_none()
            || self.is_other_account
            || self
                .connection
                .as_ref()
                .is_none_or(|connection| connection.state != State::Active)
    }
}

/// Everything that a decision about one person and one item is based on.
pub struct Admission {
    pub content: Content,
    pub person: Person,
    pub standing: Standing,
    pub integrations: Vec<IntegrationAccess>,
    /// For the presence of the person at the item's processes.
    pub presence: ViewerAt,
    /// Set by the first call of [`Admissions::identity_header`].
    identity_header: OnceLock<Arc<str>>,
    /// What the admission depends on.
    pub validity: Validity,
}

/// What an admission is made of, as the database has it.
pub(in crate::service) struct Facts {
    content: Content,
    person: Person,
    standing: Standing,
    attached: Vec<AttachedIntegration>,
}

impl Facts {
    /// `None` if the item or the person is gone.
    pub(in crate::service) fn load(
        db: &mut Db<'_>,
        item: Id<Content>,
        person: Id<Person>,
    ) -> Result<Option<Self>, Error> {
        let Some((content, person, attached)) = admission::load(db, item, person)? else {
            return Ok(None);
        };
        let listed = if access::depends_on_list(&content, &person) {
            content::role_of(db, item, person.id)?
        } else {
            None
        };
        let standing = access::standing(&content, &person, listed);
        Ok(Some(Self {
            content,
            person,
            standing,
            attached,
        }))
    }
}

type AdmissionKey = (Id<Content>, Id<Person>);

/// Loads and caches the facts for decisions about one person and one item.
pub struct Admissions {
    core: Arc<Core>,
    presence: Arc<PresenceBoard>,
    cache: DecisionCache<AdmissionKey, Arc<Admission>>,
}

impl Admissions {
    pub(in crate::service) fn new(core: Arc<Core>, presence: Arc<PresenceBoard>) -> Self {
        Self {
            core,
            presence,
            cache: DecisionCache::new(CACHE_CAPACITY),
        }
    }

    /// The current facts about one person and one item. A cached result is used only if it lets the person
    /// open the item with every integration ready. `NotFound` if the item or the person is gone.
    pub async fn admission(
        &self,
        item: Id<Content>,
        person: Id<Person>,
    ) -> Result<Arc<Admission>, Error> {
        self.admission_for(item, person, |found| {
            access::may_open(found.standing)
                && !found
                    .integrations
                    .iter()
                    .any(IntegrationAccess::needs_viewer)
        })
        .await
    }

    /// What apps are told of the person of an admission: [`app_identity::header_value`]. Kept with the
    /// admission, which ends with the next change of the person.
    pub async fn identity_header(&self, admission: &Admission) -> Result<Arc<str>, Error> {
        if let Some(known) = admission.identity_header.get() {
            return Ok(Arc::clone(known));
        }
        let id = admission.person.id;
        let groups = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(groups::of_person(db, id)?))
            .await?;
        let names = groups.into_iter().map(|(group, _)| group.name).collect();
        let value = app_identity::header_value(&admission.person.username, names);
        Ok(Arc::clone(
            admission.identity_header.get_or_init(|| value.into()),
        ))
    }

    /// Like [`Self::admission`], for a caller with a weaker condition: a cached result is used only
    /// if `may_use_cached` accepts it.
    pub(in crate::service) async fn admission_for(
        &self,
        item: Id<Content>,
        person: Id<Person>,
        may_use_cached: impl Fn(&Admission) -> bool,
    ) -> Result<Arc<Admission>, Error> {
        let start = self.core.load_start();
        if let Some(found) = self.cache.fresh(&(item, person), &self.core.store, start) {
            // A grant may be a fraction of a second stale; a refusal must be current.
            if may_use_cached(&found) {
                measures::decision(true);
                return Ok(found);
            }
        }
        measures::decision(false);
        let loaded = self
            .core
            .store
            .read(move |db| Facts::load(db, item, person)?.ok_or(Error::NotFound))
            .await?;
        Ok(self.remember(loaded, start))
    }

    /// Caches what [`Facts::load`] found.
    pub(in crate::service) fn remember(&self, loaded: Facts, start: LoadStart) -> Arc<Admission> {
        let Facts {
            content,
            person,
            standing,
            attached,
        } = loaded;
        let item = content.id;
        let integrations = attached
            .into_iter()
            .map(|attached| self.integration_access(&person, attached))
            .collect::<Vec<_>>();
        let presence = self.presence.viewer(item, person.id);
        let subjects = [Subject::Content(item), Subject::Person(person.id)]
            .into_iter()
            .chain(integrations.iter().flat_map(|access| {
                let connection = access.connection.as_ref();
                [Subject::Integration(access.integration.id)]
                    .into_iter()
                    .chain(connection.map(|connection| Subject::Connection(connection.id)))
            }));
        let validity = Validity::new(start, subjects);
        let admission = Arc::new(Admission {
            content,
            person,
            standing,
            integrations,
            presence,
            identity_header: OnceLock::new(),
            validity: validity.clone(),
        });
        self.cache.insert(
            (item, admission.person.id),
            Arc::clone(&admission),
            validity,
        );
        admission
    }

    /// One integration as the person may use it; decrypts the access token if so.
    fn integration_access(
        &self,
        person: &Person,
        attached: AttachedIntegration,
    ) -> IntegrationAccess {
        let covering = |consent: &Consent| consent.covers(&attached.integration);
        let consent = attached
            .consent
            .as_ref()
            .filter(|consent| covering(consent));
        let mut access = IntegrationAccess {
            consent: consent.map(|consent| consent.id),
            asks_for_more: attached.consent.is_some() && consent.is_none(),
            integration: attached.integration,
            beside_viewers: attached.beside_viewers,
            connection: None,
            is_other_account: false,
            access_token: None,
        };
        let Some((connection, tokens)) = attached.connection else {
            return access;
        };
        let verdict = connection
            .account
            .verdict(person, access.integration.identity_check);
        access.is_other_account = verdict == IdentityVerdict::Refuse;
        let is_usable = access.consent.is_some()
            && connection.state == State::Active
            && !access.is_other_account;
        if let Some(sealed) = tokens.access.filter(|_| is_usable) {
            let row =
                labels::connection_row(connection.id, connection.person, connection.integration);
            let opened = self
                .core
                .vault
                .open(labels::connection_token("access_token", &row), &sealed);
            // A damaged value must not take the page with it: the exchange refreshes the token.
            access.access_token = opened
                .inspect_err(|error| {
                    tracing::error!(connection = %connection.id, reason = %error, "a stored token does not open");
                })
                .ok()
                .map(Arc::new);
        }
        access.connection = Some(connection);
        access
    }

    /// Invalidates one cached admission because its access token was replaced. Storing refreshed
    /// tokens changes no subject.
    pub(in crate::service) fn invalidate_admission(&self, item: Id<Content>, person: Id<Person>) {
        self.cache.remove(&(item, person));
    }
}

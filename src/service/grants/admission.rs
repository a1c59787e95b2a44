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
        integration::Integration,
        person::Person,
    },
    service::{
        cluster::{
            cache::{DecisionCache, Validity},
            presence::{PresenceBoard, ViewerAt},
        },
        core::{CACHE_CAPACITY, Core},
        error::Error,
    },
    store::{changes::Subject, connections, content, integrations, people},
    vault::labels,
};
use secrecy::SecretString;
use std::sync::Arc;

/// One integration attached to an item, with the viewer's consent and connection, if any.
pub struct IntegrationAccess {
    pub integration: Integration,
    pub consent: Option<Id<Consent>>,
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
    pub links: Vec<IntegrationAccess>,
    /// For the presence of the person at the item's processes.
    pub presence: ViewerAt,
    /// What the admission depends on.
    pub validity: Validity,
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
                && !found.links.iter().any(IntegrationAccess::needs_viewer)
        })
        .await
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
                return Ok(found);
            }
        }
        let loaded = self
            .core
            .store
            .read(move |db| {
                let content = content::find(db, item)?.ok_or(Error::NotFound)?;
                let person = people::find(db, person)?.ok_or(Error::NotFound)?;
                let standing =
                    access::standing(&content, &person, content::role_of(db, item, person.id)?);
                let mut links = Vec::new();
                for (_, integration) in integrations::attached(db, item)? {
                    let consent = connections::consent_for(db, person.id, item, integration.id)?;
                    let connection = connections::find_of(db, person.id, integration.id)?;
                    links.push((integration, consent, connection));
                }
                Ok::<_, Error>((content, person, standing, links))
            })
            .await?;
        let (content, person, standing, links) = loaded;
        let links = links
            .into_iter()
            .map(|(integration, consent, connection)| {
                let consent = consent.map(|consent| consent.id);
                let mut link = IntegrationAccess {
                    integration,
                    consent,
                    connection: None,
                    is_other_account: false,
                    access_token: None,
                };
                if let Some((connection, tokens)) = connection {
                    let verdict = connection
                        .account
                        .verdict(&person, link.integration.identity_check);
                    link.is_other_account = verdict == IdentityVerdict::Refuse;
                    let usable = link.consent.is_some()
                        && connection.state == State::Active
                        && !link.is_other_account;
                    if let Some(sealed) = tokens.access.filter(|_| usable) {
                        let row = labels::connection_row(
                            connection.id,
                            connection.person,
                            connection.integration,
                        );
                        link.access_token = Some(Arc::new(
                            self.core
                                .vault
                                .open(labels::connection_token("access_token", &row), &sealed)?,
                        ));
                    }
                    link.connection = Some(connection);
                }
                Ok::<_, Error>(link)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let presence = self.presence.viewer(item, person.id);
        let subjects = [Subject::Content(item), Subject::Person(person.id)]
            .into_iter()
            .chain(links.iter().flat_map(|link| {
                let connection = link.connection.as_ref();
                [Subject::Integration(link.integration.id)]
                    .into_iter()
                    .chain(connection.map(|connection| Subject::Connection(connection.id)))
            }));
        let validity = Validity::new(start, subjects);
        let admission = Arc::new(Admission {
            content,
            person,
            standing,
            links,
            presence,
            validity: validity.clone(),
        });
        self.cache.insert(
            (item, admission.person.id),
            Arc::clone(&admission),
            validity,
        );
        Ok(admission)
    }

    /// Invalidates one cached admission because its access token was replaced. Storing refreshed
    /// tokens changes no subject.
    pub(in crate::service) fn invalidate_admission(&self, item: Id<Content>, person: Id<Person>) {
        self.cache.remove(&(item, person));
    }
}

//! Admission: may this person use this content item now, and with which access tokens? Asked on
//! every proxied request and every exchange. Also owns held session tokens, which stay exchangeable
//! past their expiry.
//!
//! A cache entry counts only while the store's epoch equals the one it was loaded at. The epoch is
//! a number in the database that grows with each deciding write of any process. Each process polls
//! it every 250 ms and uses no cache entry once its last look is over a second old. So a revocation
//! takes effect at once on its own node and within 250 ms on the others, without a query per call.
//! A refusal is never served from the cache: another node may have granted access a moment ago.

use super::{
    Error, Service, contents::attached, exchange::ExchangeError, keys::Caller, presence::Presence,
};
use crate::{
    domain::{
        Id, Timestamp, access,
        access::Standing,
        connection::{Connection, IdentityVerdict, State},
        consent::Consent,
        content::{Content, ProcessId},
        integration::Integration,
        person::{Person, Session},
    },
    store::{connections, content, people, sessions, short_lived},
    vault::{
        SealContext,
        api_key::digest,
        session_token::{Claims, InvalidToken},
    },
};
use quick_cache::sync::Cache as Map;
use secrecy::SecretString;
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

/// Longest age of a cache entry: a session also expires by time, without a write that would move
/// the epoch.
const MAX_CACHE_AGE: Duration = Duration::from_secs(10);
/// How long a held token, once shared, counts on other nodes. It is shared again every 10 s.
const HELD_TOKEN_TTL: Duration = Duration::from_secs(40);
/// Capacity of each cache, in entries.
const CACHE_CAPACITY: usize = 20_000;

/// One integration attached to an item, with the viewer's consent and connection, if any.
pub struct IntegrationAccess {
    pub integration: Integration,
    pub consent: Option<Id<Consent>>,
    pub connection: Option<Connection>,
    /// The integration requires the viewer's own account, and the connection's account is another
    /// one or has no name.
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
    /// The person's presence at the item's only process. Not used for an item with several.
    pub(super) presence: Arc<Presence>,
}

/// Guard that keeps a session token exchangeable past its expiry, for one open WebSocket or event
/// stream. Dropping it ends this hold; other holds on the same token remain.
pub struct HeldToken {
    service: Arc<Service>,
    token: String,
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        let mut held = self
            .service
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = held.get_mut(&self.token) {
            *open -= 1;
            if *open == 0 {
                held.remove(&self.token);
            }
        }
    }
}

/// A cached value, with the store's epoch and the time at which it was loaded.
#[derive(Clone)]
pub struct Cached<T> {
    value: T,
    epoch: u64,
    at: Timestamp,
}

impl<T: Clone> Cached<T> {
    /// `epoch` and `at` must have been read before the value was loaded.
    pub fn new(value: T, epoch: u64, at: Timestamp) -> Self {
        Self { value, epoch, at }
    }
    /// The value, if no process has made a deciding write since it was loaded and it is younger
    /// than ten seconds. `None` at epoch 0, which means unknown: see
    /// [`crate::store::Store::epoch`].
    pub fn fresh(&self, epoch: u64, now: Timestamp) -> Option<T> {
        let counts = epoch != 0
            && self.epoch == epoch
            && now >= self.at
            && now.since(self.at) < MAX_CACHE_AGE;
        counts.then(|| self.value.clone())
    }
}

type AdmissionKey = (Id<Content>, Id<Person>);

/// Caches of recent decisions, each bounded.
pub(super) struct Cache {
    admissions: Map<AdmissionKey, Cached<Arc<Admission>>>,
    sessions: Map<Id<Session>, Cached<Arc<Person>>>,
    callers: Map<String, Cached<Arc<Caller>>>,
    slugs: Map<String, Cached<Id<Content>>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            admissions: Map::new(CACHE_CAPACITY),
            sessions: Map::new(CACHE_CAPACITY),
            callers: Map::new(CACHE_CAPACITY),
            slugs: Map::new(CACHE_CAPACITY),
        }
    }
}

impl Cache {
    /// The cached owner of the API key with this hash.
    pub(super) fn caller(&self, hash: &str, epoch: u64, now: Timestamp) -> Option<Arc<Caller>> {
        self.callers.get(hash)?.fresh(epoch, now)
    }
    /// The cached item with this slug.
    pub(super) fn slug(&self, slug: &str, epoch: u64, now: Timestamp) -> Option<Id<Content>> {
        self.slugs.get(slug)?.fresh(epoch, now)
    }
    /// Caches the item of a slug.
    pub(super) fn cache_slug(&self, slug: String, item: Id<Content>, epoch: u64, at: Timestamp) {
        self.slugs.insert(slug, Cached::new(item, epoch, at));
    }
    /// Caches the owner of an API key; `hash` is the hash of the key.
    pub(super) fn cache_caller(&self, hash: String, value: Arc<Caller>, epoch: u64, at: Timestamp) {
        self.callers.insert(hash, Cached::new(value, epoch, at));
    }
}

/// The seal context of a token column of the table `connections`; `row` is a [`token_row`].
pub(super) fn token_place<'a>(column: &'a str, row: &'a str) -> SealContext<'a> {
    SealContext {
        table: "connections",
        column,
        row,
    }
}

/// The row part of the seal context. It names the owners too, so a sealed token cannot be moved to
/// another person's connection.
pub(super) fn token_row(
    connection: Id<Connection>,
    person: Id<Person>,
    integration: Id<Integration>,
) -> String {
    format!("{connection}/{person}/{integration}")
}

impl Service {
    /// Seals an access token and an optional refresh token for the row of their connection.
    pub fn seal_tokens(
        &self,
        connection: Id<Connection>,
        person: Id<Person>,
        integration: Id<Integration>,
        access: &SecretString,
        refresh: Option<&SecretString>,
    ) -> Result<connections::Tokens, Error> {
        let row = token_row(connection, person, integration);
        let access = self.vault.seal(token_place("access_token", &row), access)?;
        let refresh = refresh
            .map(|token| self.vault.seal(token_place("refresh_token", &row), token))
            .transpose()?;
        Ok(connections::Tokens {
            access: Some(access),
            refresh,
        })
    }

    /// How one person stands with one item now. A cached result is used only if it lets the person
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
    /// if `says_yes` accepts it.
    pub(super) async fn admission_for(
        &self,
        item: Id<Content>,
        person: Id<Person>,
        says_yes: impl Fn(&Admission) -> bool,
    ) -> Result<Arc<Admission>, Error> {
        let (epoch, now) = (self.store.epoch(), self.now());
        if let Some(found) = self
            .admissions
            .admissions
            .get(&(item, person))
            .and_then(|kept| kept.fresh(epoch, now))
        {
            // A grant may be 250 ms stale; a refusal must be current.
            if says_yes(&found) {
                return Ok(found);
            }
        }
        let loaded = self
            .store
            .read(move |db| {
                let content = content::find(db, item)?.ok_or(Error::NotFound)?;
                let person = people::find(db, person)?.ok_or(Error::NotFound)?;
                let standing =
                    access::standing(&content, &person, content::role_of(db, item, person.id)?);
                let mut links = Vec::new();
                for (_, integration) in attached(db, item)? {
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
                        let row =
                            token_row(connection.id, connection.person, connection.integration);
                        link.access_token = Some(Arc::new(
                            self.vault
                                .open(token_place("access_token", &row), &sealed)?,
                        ));
                    }
                    link.connection = Some(connection);
                }
                Ok::<_, Error>(link)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let presence = self.presences.of(item, ProcessId::ONLY, person.id);
        let admission = Arc::new(Admission {
            content,
            person,
            standing,
            links,
            presence,
        });
        self.admissions.admissions.insert(
            (item, admission.person.id),
            Cached::new(Arc::clone(&admission), epoch, now),
        );
        Ok(admission)
    }

    /// Invalidates one cached admission because its access token was replaced. Storing refreshed
    /// tokens does not move the epoch.
    pub(super) fn invalidate_admission(&self, item: Id<Content>, person: Id<Person>) {
        if let Some(kept) = self.admissions.admissions.get(&(item, person)) {
            self.admissions
                .admissions
                .insert((item, person), Cached { epoch: 0, ..kept });
        }
    }

    /// The person of a live browser session; `None` if the session has ended or the person is
    /// locked.
    pub async fn session_person(&self, session: Id<Session>) -> Result<Option<Arc<Person>>, Error> {
        let (epoch, now) = (self.store.epoch(), self.now());
        if let Some(person) = self
            .admissions
            .sessions
            .get(&session)
            .and_then(|kept| kept.fresh(epoch, now))
        {
            return Ok(Some(person));
        }
        let idle_since = self.idle_since();
        let found = self
            .store
            .read(move |db| {
                Ok::<_, Error>(sessions::find_live_person(db, session, now, idle_since)?)
            })
            .await?;
        let Some(person) = found.filter(|person| !person.locked) else {
            return Ok(None);
        };
        let person = Arc::new(person);
        self.admissions
            .sessions
            .insert(session, Cached::new(Arc::clone(&person), epoch, now));
        Ok(Some(person))
    }

    /// Keeps a session token exchangeable past its expiry, until the returned guard is dropped: for
    /// as long as the WebSocket or event stream that it was minted for is open. Every exchange
    /// still checks session, access and consent.
    pub fn hold_token(self: &Arc<Self>, token: &str) -> HeldToken {
        *self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(token.to_owned())
            .or_default() += 1;
        HeldToken {
            service: Arc::clone(self),
            token: token.to_owned(),
        }
    }

    /// The claims of a genuine session token that is either unexpired or held, on this node or
    /// another one.
    pub(super) async fn session_claims(&self, token: &str) -> Result<Arc<Claims>, ExchangeError> {
        match self.session_tokens.verify(token, self.now()) {
            Err(InvalidToken::Expired) => {
                let claims = self
                    .session_tokens
                    .read_any_age(token)
                    .map_err(ExchangeError::SubjectToken)?;
                if !self
                    .held
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .contains_key(token)
                {
                    let (hash, now) = (digest(token), self.now());
                    if !self
                        .store
                        .read(move |db| Ok::<_, Error>(short_lived::is_token_held(db, &hash, now)?))
                        .await?
                    {
                        return Err(ExchangeError::SubjectToken(InvalidToken::Expired));
                    }
                }
                Ok(claims)
            }
            other => other.map_err(ExchangeError::SubjectToken),
        }
    }

    /// Shares with the other nodes, as hashes, the held tokens that are expired or about to expire
    /// (in 40 s), and withdraws those that are no longer held. Called every 10 s.
    pub async fn share_held_tokens(&self) -> Result<(), Error> {
        let now = self.now();
        let held: Vec<String> = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect();
        let soon = now.plus(HELD_TOKEN_TTL);
        let late = held
            .into_iter()
            .filter(|token| self.session_tokens.verify(token, soon) == Err(InvalidToken::Expired));
        let shared: HashSet<String> = late.map(|token| digest(&token)).collect();
        let before = std::mem::replace(
            &mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner),
            shared.clone(),
        );
        if shared.is_empty() && before.is_empty() {
            return Ok(());
        }
        self.store
            .write_untracked(move |db| {
                for hash in &shared {
                    short_lived::hold(db, hash, soon)?;
                }
                for hash in before.difference(&shared) {
                    short_lived::release_token(db, hash)?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Mints the session token that the proxy puts into requests to an app. It names the process
    /// that gets it, so that the leak alarm knows which process used it. `None` if signing fails.
    pub fn session_token(
        &self,
        person: Id<Person>,
        content: Id<Content>,
        session: Id<Session>,
        process: ProcessId,
    ) -> Option<String> {
        self.session_tokens
            .mint(person, content, session, process, self.now())
    }
}

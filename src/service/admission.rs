//! May this person use this content item now, and with which tokens? Asked on every proxied request and every exchange.
//!
//! Costly parts are remembered, but never trusted blindly: an entry counts only while the store's epoch is the one it was
//! loaded at. A refusal is never served from memory: another node may have let the person in a moment ago.

use super::{Error, Service, contents::attached, exchange::Refusal, keys::Caller};
use crate::{
    domain::{
        Id, Timestamp, access,
        access::Standing,
        connection::{Connection, State, Verdict},
        consent::Consent,
        content::{Content, Mark},
        integration::Integration,
        leak::Stay,
        person::{Person, Session},
    },
    store::{connections, content, moments, people, sessions},
    vault::{
        Place,
        api_key::digest,
        session_token::{Claims, Invalid},
    },
};
use quick_cache::sync::Cache as Map;
use secrecy::SecretString;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// Sessions end by time, too, and nobody writes then.
const TRUSTED_FOR: Duration = Duration::from_secs(10);
/// Other nodes believe that a token is held for so long; said again every ten seconds.
const HELD_FOR: Duration = Duration::from_secs(40);
const LARGEST: usize = 20_000;
/// How long this node remembers who was at which process.
const STAYS_KEPT: Duration = Duration::from_secs(3600);

/// One integration of an item, as one person stands with it.
pub struct Link {
    pub integration: Integration,
    pub consent: Option<Id<Consent>>,
    pub connection: Option<Connection>,
    /// The integration wants the person's own account, and the connection's is another one or has no name.
    pub is_foreign: bool,
    /// The stored access token, opened; there only while the connection is active and the consent is given.
    pub access_token: Option<Arc<SecretString>>,
}

impl Link {
    /// Whether the viewer has to be asked before the app can use this integration.
    pub fn needs_viewer(&self) -> bool {
        self.consent.is_none() || self.is_foreign || self.connection.as_ref().is_none_or(|connection| connection.state != State::Active)
    }
}

/// Everything a decision about one person and one item needs.
pub struct Admission {
    pub content: Content,
    pub person: Person,
    pub standing: Standing,
    pub links: Vec<Link>,
    /// When the person was here last, and when that was written down last; in milliseconds since 1970, 0 for never.
    seen: AtomicI64,
    noted: AtomicI64,
}

impl Admission {
    /// Notes that the person is at the item now: with a request, or with an open socket.
    pub fn see(&self, now: Timestamp) {
        self.seen.store(now.0, Ordering::Relaxed);
    }
    /// When the person was seen here, if that is news; it counts as written down then.
    pub(super) fn take_news(&self, unless_within: Duration) -> Option<Timestamp> {
        let (seen, noted) = (Timestamp(self.seen.load(Ordering::Relaxed)), Timestamp(self.noted.load(Ordering::Relaxed)));
        if seen.0 == 0 || seen.since(noted) < unless_within {
            return None;
        }
        self.noted.store(seen.0, Ordering::Relaxed);
        Some(seen)
    }
}

/// Something open that a session token was made for.
pub struct Held {
    service: Arc<Service>,
    token: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.service.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = held.get_mut(&self.token) {
            *open -= 1;
            if *open == 0 {
                held.remove(&self.token);
            }
        }
    }
}

/// A value remembered with the store's epoch and the time at which it was loaded.
#[derive(Clone)]
pub struct Kept<T> {
    value: T,
    epoch: u64,
    at: Timestamp,
}

impl<T: Clone> Kept<T> {
    pub fn new(value: T, epoch: u64, at: Timestamp) -> Self {
        Self { value, epoch, at }
    }
    /// The value, while nothing was written since, by any process. At epoch 0 nothing counts: see [`crate::store::Store::epoch`].
    pub fn fresh(&self, epoch: u64, now: Timestamp) -> Option<T> {
        let counts = epoch != 0 && self.epoch == epoch && now >= self.at && now.since(self.at) < TRUSTED_FOR;
        counts.then(|| self.value.clone())
    }
}

type AdmissionKey = (Id<Content>, Id<Person>);

/// Who was at which of an item's several processes: when last, and when that was written down.
pub(super) type Stays = Mutex<HashMap<(Id<Content>, Mark, Id<Person>), (Timestamp, Timestamp)>>;

/// What was decided lately. Bounded.
pub(super) struct Cache {
    admissions: Map<AdmissionKey, Kept<Arc<Admission>>>,
    sessions: Map<Id<Session>, Kept<Arc<Person>>>,
    callers: Map<String, Kept<Arc<Caller>>>,
    slugs: Map<String, Kept<Id<Content>>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { admissions: Map::new(LARGEST), sessions: Map::new(LARGEST), callers: Map::new(LARGEST), slugs: Map::new(LARGEST) }
    }
}

impl Cache {
    pub(super) fn caller(&self, hash: &str, epoch: u64, now: Timestamp) -> Option<Arc<Caller>> {
        self.callers.get(hash)?.fresh(epoch, now)
    }
    pub(super) fn slug(&self, slug: &str, epoch: u64, now: Timestamp) -> Option<Id<Content>> {
        self.slugs.get(slug)?.fresh(epoch, now)
    }
    pub(super) fn keep_slug(&self, slug: String, item: Id<Content>, epoch: u64, at: Timestamp) {
        self.slugs.insert(slug, Kept::new(item, epoch, at));
    }
    pub(super) fn keep_caller(&self, hash: String, value: Arc<Caller>, epoch: u64, at: Timestamp) {
        self.callers.insert(hash, Kept::new(value, epoch, at));
    }
}

pub(super) fn token_place<'a>(column: &'a str, row: &'a str) -> Place<'a> {
    Place { table: "connections", column, row }
}

/// The identity of a connection's row, with its owners, for sealing.
pub(super) fn token_row(connection: Id<Connection>, person: Id<Person>, integration: Id<Integration>) -> String {
    format!("{connection}/{person}/{integration}")
}

impl Service {
    /// Tokens, sealed for the row of their connection.
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
        let refresh = refresh.map(|token| self.vault.seal(token_place("refresh_token", &row), token)).transpose()?;
        Ok(connections::Tokens { access: Some(access), refresh })
    }

    /// How one person stands with one item now. `NotFound` if either is gone.
    pub async fn admission(&self, item: Id<Content>, person: Id<Person>) -> Result<Arc<Admission>, Error> {
        self.admission_for(item, person, |found| access::may_open(found.standing) && !found.links.iter().any(Link::needs_viewer)).await
    }

    /// The same, where something less is enough: what is remembered counts only if it says yes to that.
    pub(super) async fn admission_for(
        &self,
        item: Id<Content>,
        person: Id<Person>,
        says_yes: impl Fn(&Admission) -> bool,
    ) -> Result<Arc<Admission>, Error> {
        let (epoch, now) = (self.store.epoch(), self.now());
        if let Some(found) = self.admissions.admissions.get(&(item, person)).and_then(|kept| kept.fresh(epoch, now)) {
            // "Yes" may be a quarter of a second old, "no" may not.
            if says_yes(&found) {
                return Ok(found);
            }
        }
        let loaded = self
            .store
            .read(move |db| {
                let content = content::find(db, item)?.ok_or(Error::NotFound)?;
                let person = people::find(db, person)?.ok_or(Error::NotFound)?;
                let standing = access::standing(&content, &person, content::role_of(db, item, person.id)?);
                let mut links = Vec::new();
                for (_, integration) in attached(db, item)? {
                    let consent = connections::consent_for(db, person.id, item, integration.id)?;
                    let connection = connections::of(db, person.id, integration.id)?;
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
                let mut link = Link { integration, consent, connection: None, is_foreign: false, access_token: None };
                if let Some((connection, tokens)) = connection {
                    let verdict = connection.account.verdict(&person, link.integration.identity_check);
                    link.is_foreign = verdict == Verdict::Refuse;
                    let usable = link.consent.is_some() && connection.state == State::Active && !link.is_foreign;
                    if let Some(sealed) = tokens.access.filter(|_| usable) {
                        let row = token_row(connection.id, connection.person, connection.integration);
                        link.access_token = Some(Arc::new(self.vault.open(token_place("access_token", &row), &sealed)?));
                    }
                    link.connection = Some(connection);
                }
                Ok::<_, Error>(link)
            })
            .collect::<Result<Vec<_>, _>>()?;
        // What is known of the person's presence goes on.
        let before = self.admissions.admissions.get(&(item, person.id));
        let (seen, noted) =
            before.map_or((0, 0), |kept| (kept.value.seen.load(Ordering::Relaxed), kept.value.noted.load(Ordering::Relaxed)));
        let admission = Arc::new(Admission { content, person, standing, links, seen: seen.into(), noted: noted.into() });
        self.admissions.admissions.insert((item, admission.person.id), Kept::new(Arc::clone(&admission), epoch, now));
        Ok(admission)
    }

    /// Loads it anew the next time: it holds a token that was replaced. What is known of the person's presence stays.
    pub(super) fn outdated(&self, item: Id<Content>, person: Id<Person>) {
        if let Some(kept) = self.admissions.admissions.get(&(item, person)) {
            self.admissions.admissions.insert((item, person), Kept { epoch: 0, ..kept });
        }
    }

    /// Notes that somebody is at one of an item's several processes now.
    pub fn see_at(&self, item: Id<Content>, process: Mark, person: Id<Person>) {
        let mut seen = self.stays.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry((item, process, person)).or_insert((Timestamp(0), Timestamp(0))).0 = self.now();
    }

    /// Who was seen where since it was last asked; it counts as written down.
    pub(super) fn presence_news(&self, unless_within: Duration) -> Vec<(Id<Content>, Stay)> {
        let known = self.admissions.admissions.iter();
        let stay = |person, process, seen_at| Stay { person, process, seen_at };
        let mut news: Vec<_> = known
            .filter_map(|((item, person), kept)| Some((item, stay(person, Mark::ONLY, kept.value.take_news(unless_within)?))))
            .collect();
        let mut stays = self.stays.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        stays.retain(|(item, process, person), (seen, noted)| {
            if seen.since(*noted) >= unless_within {
                *noted = *seen;
                news.push((*item, stay(*person, *process, *seen)));
            }
            now.since(*seen) < STAYS_KEPT
        });
        news
    }

    /// It could not be written down: it is news again.
    pub(super) fn presence_lost(&self, news: &[(Id<Content>, Stay)]) {
        let mut stays = self.stays.lock().unwrap_or_else(PoisonError::into_inner);
        for (item, Stay { person, process, seen_at }) in news {
            if !process.is_only() {
                stays.entry((*item, *process, *person)).or_insert((*seen_at, *seen_at)).1 = Timestamp(0);
            } else if let Some(kept) = self.admissions.admissions.get(&(*item, *person)) {
                kept.value.noted.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The person of a live browser session; `None` once it ended or its person is locked.
    pub async fn session_person(&self, session: Id<Session>) -> Result<Option<Arc<Person>>, Error> {
        let (epoch, now) = (self.store.epoch(), self.now());
        if let Some(person) = self.admissions.sessions.get(&session).and_then(|kept| kept.fresh(epoch, now)) {
            return Ok(Some(person));
        }
        let idle_since = self.idle_since();
        let found = self.store.read(move |db| Ok::<_, Error>(sessions::live(db, session, now, idle_since)?)).await?;
        let Some(person) = found.filter(|person| !person.locked) else { return Ok(None) };
        let person = Arc::new(person);
        self.admissions.sessions.insert(session, Kept::new(Arc::clone(&person), epoch, now));
        Ok(Some(person))
    }

    /// Keeps a session token exchangeable beyond its hour, for as long as the socket or stream it was made for is open. Its
    /// session, access and consent are asked at each exchange all the same.
    pub fn hold_token(self: &Arc<Self>, token: &str) -> Held {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(token.to_owned()).or_default() += 1;
        Held { service: Arc::clone(self), token: token.to_owned() }
    }

    /// The claims of a token that is in time, or held: here, or on another node.
    pub(super) async fn session_claims(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        match self.session_tokens.verify(token, self.now()) {
            Err(Invalid::Expired) => {
                let claims = self.session_tokens.read(token).map_err(Refusal::SubjectToken)?;
                if !self.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(token) {
                    let (hash, now) = (digest(token), self.now());
                    if !self.store.read(move |db| Ok::<_, Error>(moments::is_held(db, &hash, now)?)).await? {
                        return Err(Refusal::SubjectToken(Invalid::Expired));
                    }
                }
                Ok(claims)
            }
            other => other.map_err(Refusal::SubjectToken),
        }
    }

    /// Tells the other nodes which tokens are held here beyond their hour, and which are not any more.
    pub async fn share_held(&self) -> Result<(), Error> {
        let now = self.now();
        let held: Vec<String> = self.held.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let soon = now.plus(HELD_FOR);
        let late = held.into_iter().filter(|token| self.session_tokens.verify(token, soon) == Err(Invalid::Expired));
        let shared: HashSet<String> = late.map(|token| digest(&token)).collect();
        let before = std::mem::replace(&mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner), shared.clone());
        if shared.is_empty() && before.is_empty() {
            return Ok(());
        }
        self.store
            .note(move |db| {
                for hash in &shared {
                    moments::hold(db, hash, soon)?;
                }
                for hash in before.difference(&shared) {
                    moments::let_go(db, hash)?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// The session token that the proxy puts into requests to content.
    pub fn session_token(&self, person: Id<Person>, content: Id<Content>, session: Id<Session>, process: Mark) -> Option<String> {
        self.session_tokens.mint(person, content, session, process, self.now())
    }
}

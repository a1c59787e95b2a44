//! The store behind actix-session: browser sessions live in the portal's database, so that people
//! can list and end them. Only the SHA-256 of a session key is stored.
//!
//! Before sign-in a session lives in the browser: its signed cookie holds the anti-forgery token, a
//! message, and a sign-in in flight, whose secrets are sealed. So a request of somebody who is not
//! signed in writes nothing. A sign-in makes a stored session under a new key.
//!
//! The proxy reads sessions through [`Sessions::session_of`] without the session middleware: no
//! state is copied and nothing can be written. Which session a cookie belongs to is cached; a
//! session's state is not, since another node may have answered the previous request.

use crate::{
    domain::{
        Id, Timestamp,
        content::Content,
        person::{Person, Session as BrowserSession},
    },
    service::{
        Error, Services,
        cluster::cache::{DecisionCache, Validity},
        notifying::notices::Notices,
    },
    store::{self, changes::Subject, handovers::ContentSessionOwner},
    vault::{api_key::digest, random},
};
use actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError};
use actix_web::{
    cookie::{Cookie, CookieJar, Key, time::Duration},
    dev::RequestHead,
    http::header::{self, HeaderMap, HeaderValue},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};

type State = HashMap<String, String>;

/// The session's own id, under which people see and end it. A UUID, not the secret key.
pub const SESSION_ID: &str = "sid";
/// Id of the signed-in person; absent before sign-in.
pub const PERSON: &str = "person";
/// Session key of the time of the last confirmation of a password, in Unix milliseconds.
pub const CONFIRMED_AT: &str = "confirmed_at";
/// The anti-forgery token of all forms of this session.
pub const CSRF: &str = "csrf";
/// A message for the next page.
pub const FLASH: &str = "flash";
/// IP address from which the person signed in.
pub const ADDRESS: &str = "address";

/// The browser and system from which the person signed in, in words.
pub const CLIENT: &str = "client";

/// Session store and session lookup of one node. Cheap to clone: caches are shared.
#[derive(Clone)]
pub struct Sessions {
    service: Arc<Services>,
    /// Cookie value, as sent, to session.
    known: Arc<DecisionCache<String, Id<BrowserSession>>>,
    /// Cookie value on a content origin to the session that it was issued for.
    bearers: Arc<DecisionCache<String, ContentSessionOwner>>,
    /// When each session's last use was last noted, to limit it to
    /// [`BrowserSessions::touch_interval`].
    touched: Arc<Cache<Id<BrowserSession>, Timestamp>>,
    /// Signs session cookies. Derived from a secret in the database (`vault::Root`), not from the
    /// keyring, so rotating or retiring keys signs nobody out.
    signing: Key,
}

impl Sessions {
    /// A store with empty caches of at most 20,000 entries each.
    pub fn new(service: Arc<Services>, signing: Key) -> Self {
        let max_age = service.sessions.touch_interval();
        Self {
            service,
            known: Arc::new(DecisionCache::with_max_age(20_000, max_age)),
            bearers: Arc::new(DecisionCache::with_max_age(20_000, max_age)),
            touched: Arc::new(Cache::new(20_000)),
            signing,
        }
    }

    /// Name of the portal's session cookie. The `__Host-` prefix requires Secure, so it is used on
    /// https only; the demo on plain http uses a plain name, for clients that refuse such a cookie
    /// there.
    pub fn cookie_name(secure: bool) -> &'static str {
        if secure {
            "__Host-valetkey"
        } else {
            "valetkey"
        }
    }

    /// The live session and person of a portal request; `None` without a valid cookie. For the hot
    /// path: reads the cookie through a cache.
    pub async fn session_of(
        &self,
        head: &RequestHead,
    ) -> Result<Option<(Id<BrowserSession>, Arc<Person>)>, Error> {
        let name = Self::cookie_name(self.service.core.settings.is_https());
        let Some(raw) = raw_cookie(head.headers(), name) else {
            return Ok(None);
        };
        let (store, start) = (&self.service.core.store, self.service.core.load_start());
        let session = match self.known.fresh(raw, store, start) {
            Some(session) => session,
            None => {
                let Some(session) = self.read_cookie(name, raw).await? else {
                    return Ok(None);
                };
                let validity = Validity::new(start, [Subject::Session(session)]);
                self.known.insert(raw.to_owned(), session, validity);
                session
            }
        };
        Ok(self
            .service
            .sessions
            .session_person(session)
            .await?
            .map(|person| (session, person)))
    }

    /// A cookie name that is specific to an item.
    ///
    /// Short, since a browser sends the cookies of all items on a shared host with each request, and
    /// servers refuse long heads: the item is named by 48 of its random bits.
    fn name_for(prefix: &str, what: char, item: Id<Content>) -> String {
        let [.., a, b, c, d, e, f] = item.as_u128().to_be_bytes();
        // Not by `format!`: every request needs one.
        let mut name = String::with_capacity(32);
        name.push_str(prefix);
        name.push_str("valetkey-");
        name.push(what);
        URL_SAFE_NO_PAD.encode_string([a, b, c, d, e, f], &mut name);
        name
    }
    /// The prefix of cookies that carry authority: with it, no sibling host can set them.
    fn host_prefix(&self) -> &'static str {
        if self.service.core.settings.is_https() {
            "__Host-"
        } else {
            ""
        }
    }
    /// Name of an item's session cookie on its content origin.
    pub fn content_cookie(&self, item: Id<Content>) -> String {
        Self::name_for(self.host_prefix(), 's', item)
    }
    /// Name of the cookie that holds the nonce of a handover from the portal, which proves that the
    /// code was issued for this browser.
    pub fn nonce_cookie(&self, item: Id<Content>) -> String {
        Self::name_for(self.host_prefix(), 'n', item)
    }
    /// Name of the cookie that pins a browser to one process of an item (sticky routing). `base`: the
    /// item's path, to which the cookie is bound. Where items share a host, that rules the prefix out: a
    /// `__Host-` cookie applies to its whole host, and eighty of them would fill the head.
    pub fn process_cookie(&self, item: Id<Content>, base: &str) -> String {
        let prefix = if base == "/" { self.host_prefix() } else { "" };
        Self::name_for(prefix, 'p', item)
    }
    /// The value of the first cookie with this name, as sent.
    pub fn cookie<'a>(&self, head: &'a RequestHead, name: &str) -> Option<&'a str> {
        raw_cookie(head.headers(), name)
    }

    /// The live portal session and person behind the cookie of an item's content origin; `None` if
    /// the cookie is missing, unknown, or issued for another item.
    pub async fn content_session_of(
        &self,
        head: &RequestHead,
        item: Id<Content>,
    ) -> Result<Option<(Id<BrowserSession>, Arc<Person>)>, Error> {
        let Some(key) = raw_cookie(head.headers(), &self.content_cookie(item)) else {
            return Ok(None);
        };
        let (store, start) = (&self.service.core.store, self.service.core.load_start());
        let bearer = match self.bearers.fresh(key, store, start) {
            Some(bearer) => bearer,
            None => {
                let Some(bearer) = self.service.handover.content_session(key).await? else {
                    return Ok(None);
                };
                let validity = Validity::new(start, [Subject::Session(bearer.session)]);
                self.bearers.insert(key.to_owned(), bearer, validity);
                bearer
            }
        };
        if bearer.content != item {
            return Ok(None);
        }
        Ok(self
            .service
            .handover
            .content_person(bearer)
            .await?
            .map(|person| (bearer.session, person)))
    }

    /// Notes the session's time of last use, now and then.
    pub fn touch(&self, session: Option<Id<BrowserSession>>) {
        let Some(session) = session else { return };
        let now = self.service.core.now();
        if self
            .touched
            .get(&session)
            .is_none_or(|at| now.since(at) > self.service.sessions.touch_interval())
        {
            self.touched.insert(session, now);
            self.service.sessions.touch_session(session);
        }
    }

    /// A session's id and state; `None` once it expired or was idle too long.
    async fn read_state(
        &self,
        hash: String,
    ) -> Result<Option<(Option<Id<BrowserSession>>, State)>, LoadError> {
        let (now, idle_since) = (self.service.core.now(), self.service.core.idle_since());
        let loaded = self
            .service
            .core
            .store
            .read(move |db| Ok::<_, Error>(store::sessions::load(db, &hash)?))
            .await;
        let loaded = loaded.map_err(|error| LoadError::Other(reason(&error).into()))?;
        let Some(row) = loaded.filter(|row| row.expires_at > now && row.seen_at > idle_since)
        else {
            return Ok(None);
        };
        let state = serde_json::from_str(&row.state)
            .map_err(|error| LoadError::Deserialization(error.into()))?;
        Ok(Some((row.id, state)))
    }

    /// Resolves a cookie as actix-session does: verify the signature, then look the key up.
    async fn read_cookie(
        &self,
        name: &str,
        raw: &str,
    ) -> Result<Option<Id<BrowserSession>>, Error> {
        let Ok(cookie) = Cookie::parse_encoded(format!("{name}={raw}")) else {
            return Ok(None);
        };
        let mut jar = CookieJar::new();
        jar.add_original(cookie.into_owned());
        let Some(key) = jar
            .signed(&self.signing)
            .get(name)
            .and_then(|cookie| SessionKey::try_from(cookie.value().to_owned()).ok())
            .filter(|key| !is_anonymous(key))
        else {
            return Ok(None);
        };
        let state = self
            .read_state(digest(key.as_ref()))
            .await
            .map_err(|_| Error::Internal("the browser session cannot be read or written"))?;
        Ok(state.and_then(|(_, state)| {
            serde_json::from_str::<String>(state.get(SESSION_ID)?)
                .ok()?
                .parse()
                .ok()
        }))
    }

    /// Inserts the session (`new` is its lifetime) or updates it. Returns `false` if an update
    /// found no row: the session has ended.
    async fn write(&self, key: &str, state: &State, new: Option<&Duration>) -> Result<bool, Error> {
        let value = |name: &str| {
            state
                .get(name)
                .and_then(|json| serde_json::from_str::<String>(json).ok())
        };
        let (hash, guid, person) = (digest(key), value(SESSION_ID), value(PERSON));
        let (address, client) = (value(ADDRESS).unwrap_or_default(), value(CLIENT));
        let text = serde_json::to_string(state)
            .map_err(|_| Error::Internal("the browser session cannot be read or written"))?;
        let now = self.service.core.now();
        let expires_at = new.map(|ttl| {
            now.plus(std::time::Duration::from_secs(
                u64::try_from(ttl.whole_seconds()).unwrap_or(0),
            ))
        });
        let put = move |db: &mut store::Db<'_>| {
            let row = store::sessions::SessionRow {
                key_hash: &hash,
                guid: guid.as_deref(),
                person: person.as_deref(),
                state: &text,
                address: &address,
                client: client.as_deref(),
            };
            match expires_at {
                Some(end) => {
                    let person = row.person.and_then(|person| person.parse().ok());
                    if let (Some(person), Some(client)) = (person, row.client) {
                        Notices::note_device(db, person, client, now)?;
                    }
                    store::sessions::insert(db, &row, now, end)?;
                    Ok(true)
                }
                None => Ok(store::sessions::update(db, &row)?),
            }
        };
        self.service.core.store.write(put).await
    }

    /// Saves a state under a new key.
    async fn save_again(&self, state: State, ttl: &Duration) -> Result<SessionKey, UpdateError> {
        self.save(state, ttl)
            .await
            .map_err(|error| UpdateError::Other(std::io::Error::other(error.to_string()).into()))
    }
}

/// The value of the first cookie with this name, as sent. Read as bytes: another cookie of the
/// same line may hold any (RFC 6265 section 5.4).
fn raw_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).map(HeaderValue::as_bytes);
    let value = lines
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .find_map(|pair| {
            pair.trim_ascii_start()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
        })?;
    std::str::from_utf8(value).ok()
}

/// Limit for all `Cookie` headers of a request, in bytes: about what common proxies let through.
const MAX_COOKIE_BYTES: usize = 32 * 1024;
/// Limit for the number of cookies of a request: browsers keep 180 of a site at most.
const MAX_COOKIES: usize = 400;

/// Whether a request has more cookies than [`MAX_COOKIES`] and [`MAX_COOKIE_BYTES`] say. Sibling
/// hosts can set as many as they like with `Domain=`.
pub fn has_too_many_cookies(headers: &HeaderMap) -> bool {
    let (mut bytes, mut count) = (0, 0);
    for line in headers.get_all(header::COOKIE) {
        bytes += line.len();
        count += 1 + line.as_bytes().iter().filter(|byte| **byte == b';').count();
    }
    bytes > MAX_COOKIE_BYTES || count > MAX_COOKIES
}

/// Removes the cookies that hold bytes beyond ASCII: actix reads none of a line that has one. The
/// portal's own never do.
pub fn keep_ascii_cookies(headers: &mut HeaderMap) {
    let is_plain = |value: &HeaderValue| value.as_bytes().is_ascii();
    if headers.get_all(header::COOKIE).all(is_plain) {
        return;
    }
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.get_all(header::COOKIE) {
        let pairs = line.as_bytes().split(|byte| *byte == b';');
        for pair in pairs.filter(|pair| pair.is_ascii()) {
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(pair.trim_ascii());
        }
    }
    headers.remove(header::COOKIE);
    if let Ok(value) = HeaderValue::from_bytes(&kept) {
        headers.insert(header::COOKIE, value);
    }
}

fn reason(error: &Error) -> std::io::Error {
    std::io::Error::other(error.to_string())
}

/// Begins the key of an anonymous session. Keys of stored sessions are base64url, without a dot.
const ANONYMOUS: &str = "anonymous.";
/// Lifetime of an anonymous session: it only has to outlive the sign-in form.
const ANONYMOUS_LIFETIME: std::time::Duration = std::time::Duration::from_secs(3600);

/// An anonymous session, which the browser keeps: its key is its content. The cookie is signed, so
/// the browser cannot change it.
#[derive(Serialize, Deserialize)]
struct AnonymousSession {
    expires_at: i64,
    state: State,
}

fn is_anonymous(key: &SessionKey) -> bool {
    key.as_ref().starts_with(ANONYMOUS)
}

impl AnonymousSession {
    fn to_key(&self) -> Option<SessionKey> {
        let json = serde_json::to_vec(self).ok()?;
        let key = format!("{ANONYMOUS}{}", URL_SAFE_NO_PAD.encode(json));
        key.try_into().ok()
    }

    /// The state, unless it has expired.
    fn open(key: &SessionKey, now: Timestamp) -> Option<State> {
        let json = URL_SAFE_NO_PAD
            .decode(key.as_ref().strip_prefix(ANONYMOUS)?)
            .ok()?;
        let session: Self = serde_json::from_slice(&json).ok()?;
        (now.0 < session.expires_at).then_some(session.state)
    }
}

impl SessionStore for Sessions {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        if is_anonymous(key) {
            return Ok(AnonymousSession::open(key, self.service.core.now()));
        }
        let stored = self.read_state(digest(key.as_ref())).await?;
        Ok(stored.map(|(session, state)| {
            self.touch(session);
            state
        }))
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        if !state.contains_key(PERSON) {
            let session = AnonymousSession {
                expires_at: self.service.core.now().plus(ANONYMOUS_LIFETIME).0,
                state,
            };
            let too_long = Error::Internal("an anonymous session does not fit into a cookie");
            return session
                .to_key()
                .ok_or_else(|| SaveError::Other(reason(&too_long).into()));
        }
        let key = random::token();
        self.write(&key, &state, Some(ttl))
            .await
            .map_err(|error| SaveError::Other(reason(&error).into()))?;
        key.try_into().map_err(|_| {
            SaveError::Other(
                reason(&Error::Internal(
                    "the browser session cannot be read or written",
                ))
                .into(),
            )
        })
    }

    async fn update(
        &self,
        key: SessionKey,
        state: State,
        ttl: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        if is_anonymous(&key) {
            return self.save_again(state, ttl).await;
        }
        let there = self
            .write(key.as_ref(), &state, None)
            .await
            .map_err(|error| UpdateError::Other(reason(&error).into()))?;
        if there {
            return Ok(key);
        }
        // The session ended while this request ran. It stays ended: only values that identify no
        // person go into a new, anonymous session.
        let anonymous: State = state
            .into_iter()
            .filter(|(name, _)| name == CSRF || name == FLASH)
            .collect();
        self.save_again(anonymous, ttl).await
    }

    async fn update_ttl(&self, _: &SessionKey, _: &Duration) -> Result<(), anyhow::Error> {
        // The absolute end is fixed at sign-in, and idle time counts from the last request.
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        if is_anonymous(key) {
            return Ok(());
        }
        let hash = digest(key.as_ref());
        self.service
            .core
            .store
            .write(move |db| Ok::<_, Error>(store::sessions::delete(db, &hash)?))
            .await
            .map_err(|error| reason(&error).into())
    }
}

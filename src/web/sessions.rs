//! actix-session over our own database: sessions can be seen and ended, and only a hash of their
//! key is stored.

use crate::{
    domain::{
        Id, Timestamp,
        content::Content,
        person::{Person, Session as BrowserSession},
    },
    service::{Error, Service, admission::Kept},
    store::{self, handovers::Bearer},
    vault::{api_key::digest, random},
};
use actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError};
use actix_web::{
    cookie::{Cookie, CookieJar, Key, time::Duration},
    dev::RequestHead,
    http::header::{self, HeaderMap},
};
use quick_cache::sync::Cache;
use std::{collections::HashMap, sync::Arc};

type State = HashMap<String, String>;

/// Names of the values in a session.
pub const SESSION_ID: &str = "sid";
pub const PERSON: &str = "person";
pub const CSRF: &str = "csrf";
pub const FLASH: &str = "flash";
pub const ADDRESS: &str = "address";

/// How often it is written down that a session is in use.
const NOTED_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Clone)]
pub struct Sessions {
    service: Arc<Service>,
    /// Whose session a cookie is, as sent, for the proxy. The state of a session is not remembered:
    /// the next request may have been answered by another node.
    known: Arc<Cache<String, Kept<Id<BrowserSession>>>>,
    /// Whom the cookies of content's origins speak for.
    bearers: Arc<Cache<String, Kept<Bearer>>>,
    /// When a session was last noted to be in use.
    touched: Arc<Cache<Id<BrowserSession>, Timestamp>>,
    signing: Key,
}

impl Sessions {
    pub fn new(service: Arc<Service>, signing: Key) -> Self {
        Self {
            service,
            known: Arc::new(Cache::new(20_000)),
            bearers: Arc::new(Cache::new(20_000)),
            touched: Arc::new(Cache::new(20_000)),
            signing,
        }
    }

    pub fn cookie_name(secure: bool) -> &'static str {
        if secure {
            "__Host-valetkey"
        } else {
            "valetkey"
        }
    }

    /// Whose live session a request belongs to. The hot path's way in: no map is copied, and
    /// nothing can be written.
    pub async fn whose(
        &self,
        head: &RequestHead,
    ) -> Result<Option<(Id<BrowserSession>, Arc<Person>)>, Error> {
        let name = Self::cookie_name(self.service.settings.is_https());
        let Some(raw) = raw_cookie(head.headers(), name) else {
            return Ok(None);
        };
        let (epoch, now) = (self.service.store.epoch(), self.service.now());
        let session = match self.known.get(raw).and_then(|kept| kept.fresh(epoch, now)) {
            Some(session) => session,
            None => {
                let Some(session) = self.read_cookie(name, raw).await? else {
                    return Ok(None);
                };
                self.known
                    .insert(raw.to_owned(), Kept::new(session, epoch, now));
                session
            }
        };
        Ok(self
            .service
            .session_person(session)
            .await?
            .map(|person| (session, person)))
    }

    fn name_for(&self, what: &str, item: Id<Content>) -> String {
        let prefix = if self.service.settings.is_https() {
            "__Host-"
        } else {
            ""
        };
        format!("{prefix}valetkey-{what}{item}")
    }
    /// The cookie of an item on its own origin.
    pub fn content_cookie(&self, item: Id<Content>) -> String {
        self.name_for("", item)
    }
    /// The cookie by which a browser proves that it asked for a code.
    pub fn nonce_cookie(&self, item: Id<Content>) -> String {
        self.name_for("enter-", item)
    }
    /// The cookie that says which process of an item a browser is at.
    pub fn process_cookie(&self, item: Id<Content>) -> String {
        self.name_for("process-", item)
    }
    /// A cookie of a request, as sent.
    pub fn cookie<'a>(&self, head: &'a RequestHead, name: &str) -> Option<&'a str> {
        raw_cookie(head.headers(), name)
    }

    /// Whose live portal session a request to content's origin belongs to.
    pub async fn whose_of_content(
        &self,
        head: &RequestHead,
        item: Id<Content>,
    ) -> Result<Option<(Id<BrowserSession>, Arc<Person>)>, Error> {
        let Some(key) = raw_cookie(head.headers(), &self.content_cookie(item)) else {
            return Ok(None);
        };
        let (epoch, now) = (self.service.store.epoch(), self.service.now());
        let bearer = match self
            .bearers
            .get(key)
            .and_then(|kept| kept.fresh(epoch, now))
        {
            Some(bearer) => bearer,
            None => {
                let Some(bearer) = self.service.content_session(key).await? else {
                    return Ok(None);
                };
                self.bearers
                    .insert(key.to_owned(), Kept::new(bearer, epoch, now));
                bearer
            }
        };
        if bearer.content != item {
            return Ok(None);
        }
        Ok(self
            .service
            .content_person(bearer)
            .await?
            .map(|person| (bearer.session, person)))
    }

    /// Notes now and then that a session is in use.
    pub fn touch(&self, session: Option<Id<BrowserSession>>) {
        let Some(session) = session else { return };
        let now = self.service.now();
        if self
            .touched
            .get(&session)
            .is_none_or(|at| now.since(at) > NOTED_EVERY)
        {
            self.touched.insert(session, now);
            self.service.touch_session(session);
        }
    }

    /// A session's state with the time at which it was last used; `None` once it is over.
    async fn read_state(&self, hash: String) -> Result<Option<(State, Timestamp)>, LoadError> {
        let (now, idle_since) = (self.service.now(), self.service.idle_since());
        let loaded = self
            .service
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
        Ok(Some((state, row.seen_at)))
    }

    /// The same steps as actix-session's: signature, then the store.
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
        else {
            return Ok(None);
        };
        let state = self
            .read_state(digest(key.as_ref()))
            .await
            .map_err(|_| Error::Internal)?;
        Ok(state.and_then(|(state, _)| {
            serde_json::from_str::<String>(state.get(SESSION_ID)?)
                .ok()?
                .parse()
                .ok()
        }))
    }

    async fn write(&self, key: &str, state: &State, new: Option<&Duration>) -> Result<bool, Error> {
        let value = |name: &str| {
            state
                .get(name)
                .and_then(|json| serde_json::from_str::<String>(json).ok())
        };
        let (hash, guid, person) = (digest(key), value(SESSION_ID), value(PERSON));
        let address = value(ADDRESS).unwrap_or_default();
        let text = serde_json::to_string(state).map_err(|_| Error::Internal)?;
        let now = self.service.now();
        let expires_at = new.map(|ttl| {
            now.plus(std::time::Duration::from_secs(
                u64::try_from(ttl.whole_seconds()).unwrap_or(0),
            ))
        });
        let put = move |db: &mut store::Db<'_>| {
            let row = store::sessions::Row {
                key_hash: &hash,
                guid: guid.as_deref(),
                person: person.as_deref(),
                state: &text,
                address: &address,
            };
            match expires_at {
                Some(end) => store::sessions::insert(db, &row, now, end)
                    .map(|()| true)
                    .map_err(Error::from),
                None => Ok(store::sessions::update(db, &row)?),
            }
        };
        // Nothing that is remembered can depend on a session that nobody has yet: whoever looks at
        // the sign-in page makes no cache forget.
        if expires_at.is_some() {
            self.service.store.note(put).await
        } else {
            self.service.store.write(put).await
        }
    }
}

/// The first cookie of this name, as sent.
fn raw_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers
        .get_all(header::COOKIE)
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim_start().strip_prefix(name)?.strip_prefix('='))
}

fn reason(error: &Error) -> std::io::Error {
    std::io::Error::other(error.to_string())
}

impl SessionStore for Sessions {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        let hash = digest(key.as_ref());
        let Some((state, seen_at)) = self.read_state(hash.clone()).await? else {
            return Ok(None);
        };
        let now = self.service.now();
        if now.since(seen_at) > NOTED_EVERY {
            self.service
                .note_later("when a session was last seen", move |db| {
                    store::sessions::touch(db, &hash, now)
                });
        }
        Ok(Some(state))
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        let key = random::token();
        // Somebody who is not signed in needs a session for the length of a form only.
        let short = Duration::hours(1);
        let ttl = if state.contains_key(PERSON) {
            ttl
        } else {
            &short
        };
        self.write(&key, &state, Some(ttl))
            .await
            .map_err(|error| SaveError::Other(reason(&error).into()))?;
        key.try_into()
            .map_err(|_| SaveError::Other(reason(&Error::Internal).into()))
    }

    async fn update(
        &self,
        key: SessionKey,
        state: State,
        ttl: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        let there = self
            .write(key.as_ref(), &state, None)
            .await
            .map_err(|error| UpdateError::Other(reason(&error).into()))?;
        if there {
            return Ok(key);
        }
        // The session ended while this request ran: it stays ended, and nobody is signed in by
        // accident.
        let anonymous: State = state
            .into_iter()
            .filter(|(name, _)| name == CSRF || name == FLASH)
            .collect();
        self.save(anonymous, ttl)
            .await
            .map_err(|error| UpdateError::Other(std::io::Error::other(error.to_string()).into()))
    }

    async fn update_ttl(&self, _: &SessionKey, _: &Duration) -> Result<(), anyhow::Error> {
        // The absolute end is fixed at sign-in; idleness is measured by the last request.
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        let hash = digest(key.as_ref());
        self.service
            .store
            .write(move |db| Ok::<_, Error>(store::sessions::delete(db, &hash)?))
            .await
            .map_err(|error| reason(&error).into())
    }
}

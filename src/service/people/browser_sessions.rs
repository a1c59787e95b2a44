//! Browser sessions of people: whether one is live, and ending them. Whoever opens content with an
//! API key has none; whether that key still holds is answered here, too. The session's state and its
//! cookie belong to `http::sessions`.

use crate::{
    domain::{
        Id, Timestamp, access,
        audit::Action,
        person::{Person, Session},
    },
    service::{
        cluster::cache::{DecisionCache, LoadStart, Validity},
        core::{Actor, CACHE_CAPACITY, Core, event, record},
        error::Error,
        last_uses::LastUses,
    },
    store::{Db, bookkeeping, changes::Subject, people, sessions},
};
use std::{sync::Arc, time::Duration};

/// The person of a live browser session, last used after `idle_since`; `None` if the session has
/// ended or the person is locked.
pub(in crate::service) fn load_person(
    db: &mut Db<'_>,
    session: Id<Session>,
    now: Timestamp,
    idle_since: Timestamp,
) -> Result<Option<Person>, Error> {
    let found = sessions::find_live_person(db, session, now, idle_since)?;
    Ok(found.filter(|person| !person.locked))
}

/// Longest interval between two writes of a session's time of last use.
const MAX_TOUCH_INTERVAL: Duration = Duration::from_secs(600);

/// How long the holder of an API key is cached: its expiry counts within this time.
const MAX_HOLDER_AGE: Duration = Duration::from_secs(10);

/// Browser sessions. Owns the cache of live ones, and the times of last use that are not written
/// yet.
pub struct BrowserSessions {
    core: Arc<Core>,
    cache: DecisionCache<Id<Session>, Arc<Person>>,
    last_uses: Arc<LastUses<Id<Session>>>,
    /// Holders of API keys by which people open content without a browser.
    holders: DecisionCache<i64, Arc<Person>>,
}

impl BrowserSessions {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        let max_age = touch_interval(&core);
        Self {
            core,
            cache: DecisionCache::with_max_age(CACHE_CAPACITY, max_age),
            last_uses: Arc::default(),
            holders: DecisionCache::with_max_age(CACHE_CAPACITY, MAX_HOLDER_AGE),
        }
    }

    /// The person of a live browser session; `None` if the session has ended or the person is
    /// locked.
    pub async fn session_person(&self, session: Id<Session>) -> Result<Option<Arc<Person>>, Error> {
        let start = self.core.load_start();
        if let Some(person) = self.cached_person(session, start) {
            return Ok(Some(person));
        }
        let (now, idle_since) = (self.core.now(), self.core.idle_since());
        let found = self
            .core
            .store
            .read(move |db| load_person(db, session, now, idle_since))
            .await?;
        Ok(found.map(|person| self.remember_person(session, person, start)))
    }

    /// The person of an unexpired key, by its number; `None` once the key has ended or the person is
    /// locked. Expiry counts within [`MAX_HOLDER_AGE`].
    pub async fn key_holder(&self, number: i64) -> Result<Option<Arc<Person>>, Error> {
        let (start, now) = (self.core.load_start(), self.core.now());
        if let Some(person) = self.holders.fresh(&number, &self.core.store, start) {
            return Ok(Some(person));
        }
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(people::by_key_number(db, number)?))
            .await?;
        Ok(found
            .filter(|(key, person)| !person.locked && key.expires_at.is_none_or(|end| now < end))
            .map(|(_, person)| {
                let person = Arc::new(person);
                let subjects = [Subject::ApiKey(number), Subject::Person(person.id)];
                let validity = Validity::new(start, subjects);
                self.holders.insert(number, Arc::clone(&person), validity);
                person
            }))
    }

    /// The person of a session, if that is known without the database.
    pub(in crate::service) fn cached_person(
        &self,
        session: Id<Session>,
        start: LoadStart,
    ) -> Option<Arc<Person>> {
        self.cache.fresh(&session, &self.core.store, start)
    }

    /// Caches what [`load_person`] found.
    pub(in crate::service) fn remember_person(
        &self,
        session: Id<Session>,
        person: Person,
        start: LoadStart,
    ) -> Arc<Person> {
        let person = Arc::new(person);
        let subjects = [Subject::Session(session), Subject::Person(person.id)];
        self.cache
            .insert(session, Arc::clone(&person), Validity::new(start, subjects));
        person
    }

    /// How often the time of last use of a session in use is to be noted: often enough that idle
    /// sessions end within a twentieth of their time.
    pub fn touch_interval(&self) -> Duration {
        touch_interval(&self.core)
    }

    /// Notes that a browser session is in use: requests to an app count as activity. Written by
    /// [`Self::flush_last_uses`].
    pub fn touch_session(&self, session: Id<Session>) {
        self.last_uses.note(session, self.core.now());
    }

    /// Writes the times of last use: every ten seconds and at a stop.
    pub async fn flush_last_uses(&self) {
        self.last_uses
            .flush(
                &self.core,
                "when sessions were last used",
                bookkeeping::touch_sessions,
            )
            .await;
    }

    /// The browser sessions of a person: the actor's own, or for administrators anyone's.
    pub async fn sessions_of(
        &self,
        actor: &Actor,
        person: Id<Person>,
    ) -> Result<Vec<Session>, Error> {
        must_be_own_or_managed(actor, person)?;
        let (now, idle_since) = (self.core.now(), self.core.idle_since());
        let mut sessions: Vec<Session> = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(sessions::of_person(db, person, now, idle_since)?))
            .await?;
        for session in &mut sessions {
            if let Some(at) = self.last_uses.pending(&session.id) {
                session.seen_at = session.seen_at.max(at);
            }
        }
        Ok(sessions)
    }

    /// Ends the session `only`, or all but the actor's current one; returns how many.
    pub async fn end_sessions(
        &self,
        actor: &Actor,
        person: Id<Person>,
        only: Option<Id<Session>>,
    ) -> Result<usize, Error> {
        must_be_own_or_managed(actor, person)?;
        let (now, actor) = (self.core.now(), actor.clone());
        self.core
            .store
            .write(move |db| {
                let who = people::find(db, person)?.ok_or(Error::NotFound)?;
                let ended = match only {
                    Some(session) => sessions::delete_of_person(db, person, session)?,
                    None => sessions::delete_all_of_person(db, person, actor.session)?,
                };
                record(
                    db,
                    &event(
                        &actor,
                        now,
                        Action::SessionsEnded,
                        who.username,
                        format!("{ended} ended"),
                    ),
                )?;
                Ok(ended)
            })
            .await
    }

    /// Writes the audit record of a sign-out.
    pub async fn record_sign_out(&self, actor: &Actor) -> Result<(), Error> {
        let line = event(actor, self.core.now(), Action::SignOut, "", "");
        self.core.store.write(move |db| record(db, &line)).await
    }
}

/// See [`BrowserSessions::touch_interval`].
fn touch_interval(core: &Core) -> Duration {
    (core.settings.session_idle / 20).min(MAX_TOUCH_INTERVAL)
}

/// `NotFound` unless the actor is this person or manages people.
fn must_be_own_or_managed(actor: &Actor, person: Id<Person>) -> Result<(), Error> {
    if actor.person.id == person || access::may_manage_people(actor.role) {
        Ok(())
    } else {
        Err(Error::NotFound)
    }
}

//! Handover from the portal's origin to a content origin (promise 20: `tests/it/promises/README.md`). The content origin
//! leaves a nonce in the browser and redirects it to `/enter` on the portal. The portal issues a
//! code bound to the browser session, person, item and the nonce's hash, valid once and for 60 s.
//! The content origin trades the code for a content session with its own cookie.
//!
//! A content session ends with the browser session that it came from. Access to the item is not
//! decided here but by [`crate::service::grants::admission`] at each request.

use crate::{
    domain::{Id, access, content::Content, origins::ContentLocation, person::Person},
    service::{
        cluster::cache::{DecisionCache, Validity},
        core::{Actor, CACHE_CAPACITY, Core},
        error::Error,
        grants::admission::Admissions,
        people::browser_sessions::BrowserSessions,
    },
    store::{
        changes::Subject,
        content,
        handovers::{self, ContentSessionOwner},
    },
    vault::{api_key::digest, random},
};
use std::{sync::Arc, time::Duration};
use subtle::ConstantTimeEq as _;

/// How long a handover code is valid.
const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// Handover codes and content sessions. Owns the cache of slugs.
pub struct Handover {
    core: Arc<Core>,
    sessions: Arc<BrowserSessions>,
    admissions: Arc<Admissions>,
    slugs: DecisionCache<String, Id<Content>>,
}

impl Handover {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        sessions: Arc<BrowserSessions>,
        admissions: Arc<Admissions>,
    ) -> Self {
        Self {
            core,
            sessions,
            admissions,
            slugs: DecisionCache::new(CACHE_CAPACITY),
        }
    }

    /// The origin and base path of an item for browsers; `None` if no content origin is configured
    /// or the item does not exist.
    pub async fn location(&self, item: Id<Content>) -> Result<Option<ContentLocation>, Error> {
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(content::find(db, item)?))
            .await?;
        Ok(found.and_then(|item| self.location_of(&item)))
    }

    /// Like [`Self::location`], for an item that is loaded already.
    pub fn location_of(&self, item: &Content) -> Option<ContentLocation> {
        self.core.settings.origins.location(item.id, &item.slug)
    }

    /// The item with this slug, which is the label of its own host name. Cached.
    pub async fn item_by_slug(&self, slug: &str) -> Result<Option<Id<Content>>, Error> {
        let start = self.core.load_start();
        if let Some(found) = self.slugs.fresh(slug, &self.core.store, start) {
            return Ok(Some(found));
        }
        let wanted = slug.to_owned();
        let found = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(content::by_slug(db, &wanted)?))
            .await?;
        if let Some(item) = found {
            let validity = Validity::new(start, [Subject::Content(item)]);
            self.slugs.insert(slug.to_owned(), item, validity);
        }
        Ok(found)
    }

    /// Issues a handover code. `nonce_hash` is the hash of the nonce that the content origin left
    /// in this browser.
    pub async fn issue_handover_code(
        &self,
        actor: &Actor,
        item: Id<Content>,
        nonce_hash: &str,
    ) -> Result<String, Error> {
        let session = actor
            .session
            .ok_or(Error::Internal("this operation needs a browser session"))?;
        let code = random::token();
        let (hash, nonce_hash) = (digest(&code), nonce_hash.to_owned());
        let bearer = ContentSessionOwner {
            session,
            person: actor.person.id,
            content: item,
        };
        let expires_at = self.core.now().plus(CODE_LIFETIME);
        self.core
            .store
            .write(move |db| {
                Ok::<_, Error>(handovers::insert(
                    db,
                    &hash,
                    &nonce_hash,
                    bearer,
                    expires_at,
                )?)
            })
            .await?;
        Ok(code)
    }

    /// Trades a code for the key of a new content session, and consumes the code. `None` if the
    /// code is unknown, expired, or bound to another browser, or if its browser session has ended.
    /// `nonce` returns the nonce that this browser holds for an item.
    pub async fn redeem_handover_code(
        &self,
        code: &str,
        nonce: impl FnOnce(Id<Content>) -> Option<String>,
    ) -> Result<Option<(Id<Content>, String)>, Error> {
        let (hash, now) = (digest(code), self.core.now());
        let looked_up = hash.clone();
        let is_known = self
            .core
            .store
            .read(move |db| Ok::<_, Error>(handovers::is_known(db, &looked_up)?))
            .await?;
        // A code that nobody made costs no write.
        if !is_known {
            return Ok(None);
        }
        let taken = self
            .core
            .store
            .write(move |db| Ok::<_, Error>(handovers::redeem(db, &hash, now)?))
            .await?;
        let Some((bearer, nonce_hash)) = taken else {
            return Ok(None);
        };
        let given = nonce(bearer.content)
            .map(|nonce| digest(&nonce))
            .unwrap_or_default();
        if !bool::from(given.as_bytes().ct_eq(nonce_hash.as_bytes()))
            || self.content_person(bearer).await?.is_none()
        {
            return Ok(None);
        }
        let key = random::short_token();
        let key_hash = digest(&key);
        self.core
            .store
            .write(move |db| Ok::<_, Error>(handovers::insert_session(db, &key_hash, bearer, now)?))
            .await?;
        Ok(Some((bearer.content, key)))
    }

    /// The session, person and item that the key of a content session stands for. Does not check
    /// whether the browser session still lives: see [`Self::content_person`].
    pub async fn content_session(&self, key: &str) -> Result<Option<ContentSessionOwner>, Error> {
        let hash = digest(key);
        self.core
            .store
            .read(move |db| Ok::<_, Error>(handovers::session(db, &hash)?))
            .await
    }

    /// The person of a content session, while the browser session that it came from lives.
    pub async fn content_person(
        &self,
        bearer: ContentSessionOwner,
    ) -> Result<Option<Arc<Person>>, Error> {
        Ok(self
            .sessions
            .session_person(bearer.session)
            .await?
            .filter(|person| person.id == bearer.person))
    }

    /// Whether this person may enter this item. `NotFound` if the item does not exist.
    pub async fn may_enter(&self, actor: &Actor, item: Id<Content>) -> Result<bool, Error> {
        let admission = self.admissions.admission(item, actor.person.id).await?;
        Ok(access::may_open(admission.standing))
    }
}

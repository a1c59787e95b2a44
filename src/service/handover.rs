//! Handover from the portal's origin to a content origin (promise 20, threat 1). The content origin
//! leaves a nonce in the browser and redirects it to `/enter` on the portal. The portal issues a
//! code bound to the browser session, person, item and the nonce's hash, valid once and for 60 s.
//! The content origin trades the code for a content session with its own cookie.
//!
//! A content session ends with the browser session that it came from. Access to the item is not
//! decided here but by [`Service::admission`] at each request.

use super::{Actor, Error, Service};
use crate::{
    domain::{
        Id, access,
        content::Content,
        origins::ContentLocation,
        person::{Person, Session},
    },
    store::{
        content,
        handovers::{self, ContentSessionOwner},
    },
    vault::{api_key::digest, random},
};
use std::{sync::Arc, time::Duration};
use subtle::ConstantTimeEq as _;

/// How long a handover code is valid.
const CODE_LIFETIME: Duration = Duration::from_secs(60);

impl Service {
    /// The origin and base path of an item for browsers; `None` if no content origin is configured
    /// or the item does not exist.
    pub async fn location(&self, item: Id<Content>) -> Result<Option<ContentLocation>, Error> {
        let found = self
            .store
            .read(move |db| Ok::<_, Error>(content::find(db, item)?))
            .await?;
        Ok(found.and_then(|item| self.location_of(&item)))
    }

    /// Like [`Self::location`], for an item that is loaded already.
    pub fn location_of(&self, item: &Content) -> Option<ContentLocation> {
        self.settings.origins.location(item.id, &item.slug)
    }

    /// The item with this slug, which is the label of its own host name. Cached.
    pub async fn item_by_slug(&self, slug: &str) -> Result<Option<Id<Content>>, Error> {
        let (epoch, now) = (self.store.epoch(), self.now());
        if let Some(found) = self.admissions.slug(slug, epoch, now) {
            return Ok(Some(found));
        }
        let wanted = slug.to_owned();
        let found = self
            .store
            .read(move |db| Ok::<_, Error>(content::by_slug(db, &wanted)?))
            .await?;
        if let Some(item) = found {
            self.admissions
                .cache_slug(slug.to_owned(), item, epoch, now);
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
        let session = actor.session.ok_or(Error::Internal)?;
        let code = random::token();
        let (hash, nonce_hash) = (digest(&code), nonce_hash.to_owned());
        let bearer = ContentSessionOwner {
            session,
            person: actor.person.id,
            content: item,
        };
        let expires_at = self.now().plus(CODE_LIFETIME);
        self.store
            .write_untracked(move |db| {
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
        let (hash, now) = (digest(code), self.now());
        let taken = self
            .store
            .write_untracked(move |db| Ok::<_, Error>(handovers::redeem(db, &hash, now)?))
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
        let key = random::token();
        let key_hash = digest(&key);
        self.store
            .write_untracked(move |db| {
                Ok::<_, Error>(handovers::insert_session(db, &key_hash, bearer, now)?)
            })
            .await?;
        Ok(Some((bearer.content, key)))
    }

    /// The session, person and item that the key of a content session stands for. Does not check
    /// whether the browser session still lives: see [`Self::content_person`].
    pub async fn content_session(&self, key: &str) -> Result<Option<ContentSessionOwner>, Error> {
        let hash = digest(key);
        self.store
            .read(move |db| Ok::<_, Error>(handovers::session(db, &hash)?))
            .await
    }

    /// The person of a content session, while the browser session that it came from lives.
    pub async fn content_person(
        &self,
        bearer: ContentSessionOwner,
    ) -> Result<Option<Arc<Person>>, Error> {
        Ok(self
            .session_person(bearer.session)
            .await?
            .filter(|person| person.id == bearer.person))
    }

    /// Records that a browser session is in use, at most once a minute: requests to an app count as
    /// activity. Does not wait for the database.
    pub fn touch_session(&self, session: Id<Session>) {
        let now = self.now();
        self.write_in_background("when a session was last seen", move |db| {
            crate::store::sessions::touch_by_id(db, session, now)
        });
    }

    /// Whether this person may enter this item. `Forbidden` if not, `NotFound` if the item does not
    /// exist.
    pub async fn may_enter(&self, actor: &Actor, item: Id<Content>) -> Result<(), Error> {
        let admission = self.admission(item, actor.person.id).await?;
        if access::may_open(admission.standing) {
            Ok(())
        } else {
            Err(Error::Forbidden("closed"))
        }
    }
}

//! From the portal's origin to content's (promise 20, threat 1): a code that works once, within a
//! minute, in the browser that asked for it, for one person, one item and one portal session. What
//! it makes ends with that session.

use super::{Actor, Error, Service};
use crate::{
    domain::{
        Id, access,
        content::Content,
        person::{Person, Session},
        wall::Place,
    },
    store::{
        content,
        handovers::{self, Bearer},
    },
    vault::{api_key::digest, random},
};
use std::{sync::Arc, time::Duration};
use subtle::ConstantTimeEq as _;

const LIFETIME: Duration = Duration::from_secs(60);

impl Service {
    /// Where an item stands for browsers; `None` while content has no place, or there is no such
    /// item.
    pub async fn place(&self, item: Id<Content>) -> Result<Option<Place>, Error> {
        let found = self
            .store
            .read(move |db| Ok::<_, Error>(content::find(db, item)?))
            .await?;
        Ok(found.and_then(|item| self.place_of(&item)))
    }

    pub fn place_of(&self, item: &Content) -> Option<Place> {
        self.settings.wall.place(item.id, &item.slug)
    }

    /// The item whose own host this is.
    pub async fn by_slug(&self, slug: &str) -> Result<Option<Id<Content>>, Error> {
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
            self.admissions.keep_slug(slug.to_owned(), item, epoch, now);
        }
        Ok(found)
    }

    /// A code for this browser: `nonce_hash` is the hash of what content's origin left in it.
    pub async fn hand_over(
        &self,
        actor: &Actor,
        item: Id<Content>,
        nonce_hash: &str,
    ) -> Result<String, Error> {
        let session = actor.session.ok_or(Error::Internal)?;
        let code = random::token();
        let (hash, nonce_hash) = (digest(&code), nonce_hash.to_owned());
        let bearer = Bearer {
            session,
            person: actor.person.id,
            content: item,
        };
        let expires_at = self.now().plus(LIFETIME);
        self.store
            .note(move |db| {
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

    /// Trades a code for the key of a content session; `None` for a code that is not there, is
    /// over, or belongs to another browser. `nonce` finds what this browser holds for an item.
    pub async fn take_over(
        &self,
        code: &str,
        nonce: impl FnOnce(Id<Content>) -> Option<String>,
    ) -> Result<Option<(Id<Content>, String)>, Error> {
        let (hash, now) = (digest(code), self.now());
        let taken = self
            .store
            .note(move |db| Ok::<_, Error>(handovers::take(db, &hash, now)?))
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
            .note(move |db| Ok::<_, Error>(handovers::insert_session(db, &key_hash, bearer, now)?))
            .await?;
        Ok(Some((bearer.content, key)))
    }

    /// Whom the key of a content session speaks for, whether or not it still may.
    pub async fn content_session(&self, key: &str) -> Result<Option<Bearer>, Error> {
        let hash = digest(key);
        self.store
            .read(move |db| Ok::<_, Error>(handovers::session(db, &hash)?))
            .await
    }

    /// The person of a content session while the portal session that it came from lives.
    pub async fn content_person(&self, bearer: Bearer) -> Result<Option<Arc<Person>>, Error> {
        Ok(self
            .session_person(bearer.session)
            .await?
            .filter(|person| person.id == bearer.person))
    }

    /// Notes that a portal session is in use, at most once a minute: whoever works in an app is not
    /// idle.
    pub fn touch_session(&self, session: Id<Session>) {
        let now = self.now();
        self.note_later("when a session was last seen", move |db| {
            crate::store::sessions::touch_by_id(db, session, now)
        });
    }

    /// Whether this person may be handed over to this item; an item that they may not see is as if
    /// it did not exist.
    pub async fn may_enter(&self, actor: &Actor, item: Id<Content>) -> Result<(), Error> {
        let admission = self.admission(item, actor.person.id).await?;
        if access::may_open(admission.standing) {
            Ok(())
        } else {
            Err(Error::Forbidden("closed"))
        }
    }
}

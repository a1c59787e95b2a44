//! This portal as an issuer of tokens (OpenID Connect Discovery 1.0, RFC 7519): content session
//! tokens, and the tokens with which the portal proves itself to services that trust it (workload
//! identity federation). Owns the keys that sign them: RSA, RS256, which is what those services take.
//!
//! The keys are in the database, sealed, and shared by all nodes. A new key is published a day before
//! it signs, since verifiers keep what they fetched, and an old one for a week after. A token has one
//! audience and lives for an hour at most. The first key is made when the first token is needed.

use crate::{
    domain::{Id, Timestamp, content::Content, integration::Integration, person::Person},
    oauth::jwt::{self, RsaKey, Signature},
    providers,
    service::{core::Core, error::Error},
    store::Store,
    vault::{Sealed, labels, random},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::RwLock;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use zeroize::{Zeroize as _, Zeroizing};

/// The named value that holds the keys.
pub(in crate::service) const STORED_AS: &str = "signing_keys";
/// Age at which the newest key gets a successor.
const ROTATE_AFTER: Duration = Duration::from_secs(90 * 86_400);
/// How long a key is published before it signs.
const PUBLISHED_BEFORE: Duration = Duration::from_secs(86_400);
/// How long a key is published after its successor began to sign.
const PUBLISHED_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// How long the keys in memory are believed.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Lifetime of a token for a service. Short, since it is used at once.
const FOR_SERVICES: Duration = Duration::from_secs(600);
/// Lifetime of a token that content keeps.
pub const FOR_CONTENT: Duration = Duration::from_secs(3600);
/// Difference between clocks that is tolerated.
const LEEWAY: Duration = Duration::from_secs(60);

/// One key as it is stored, within the sealed list.
#[derive(Clone, Serialize, Deserialize)]
struct StoredKey {
    id: String,
    /// PKCS #8, in base64.
    private: String,
    created_at: Timestamp,
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}

/// One key, ready to be used.
struct Key {
    id: String,
    key: RsaKey,
    created_at: Timestamp,
}

/// The keys in memory, oldest first.
#[derive(Clone, Default)]
struct Keys {
    all: Arc<Vec<Key>>,
    read_at: Option<Timestamp>,
}

impl Keys {
    /// When each of them was made.
    fn times(&self) -> Vec<Timestamp> {
        self.all.iter().map(|key| key.created_at).collect()
    }
}

/// What a token of this portal says.
#[derive(Clone, Debug)]
pub struct PortalToken {
    pub subject: String,
    pub audience: String,
    /// The item for which it is made, and its owner.
    pub content: Option<(Id<Content>, Id<Person>)>,
    pub lifetime: Duration,
}

impl PortalToken {
    /// The token with which the portal proves itself for an integration.
    pub fn of(integration: &Integration) -> Self {
        Self {
            subject: format!("integration:{}", integration.id),
            audience: providers::audience(integration),
            content: None,
            lifetime: FOR_SERVICES,
        }
    }

    /// The token that an item itself presents to the service of an integration.
    pub fn for_content(integration: &Integration, item: &Content) -> Self {
        Self {
            content: Some((item.id, item.owner)),
            lifetime: FOR_CONTENT,
            ..Self::of(integration)
        }
    }
}

/// Why a content session token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidContentToken {
    /// Not signed by this portal, or not for the exchange.
    Forged,
    /// Names another issuer.
    WrongIssuer,
    Expired,
}

/// Signs and verifies the portal's own tokens.
pub struct Issuer {
    core: Arc<Core>,
    keys: RwLock<Keys>,
}

impl Issuer {
    pub(in crate::service) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            keys: RwLock::default(),
        }
    }

    /// The issuer's name: the public address, without a slash at its end.
    pub fn name(&self) -> &str {
        self.core.settings.base().trim_end_matches('/')
    }

    /// The audience of content session tokens: the exchange.
    fn exchange_audience(&self) -> String {
        format!("{}/__api__/v1/oauth/integrations/credentials", self.name())
    }

    /// Reads the keys, if they were not read in the last minute, and makes one where it is missing.
    pub async fn ready(&self) -> Result<(), Error> {
        self.read(true).await
    }

    /// `may_make`: a missing key is made. Anybody may ask for the public keys: that makes none.
    async fn read(&self, may_make: bool) -> Result<(), Error> {
        let now = self.core.now();
        let fresh = |keys: &Keys| {
            keys.read_at
                .is_some_and(|at| now.since(at) < READ_AGAIN_AFTER && now >= at)
        };
        if fresh(&self.keys.read()) && (!may_make || !self.keys.read().all.is_empty()) {
            return Ok(());
        }
        let mut stored = self.stored().await?;
        let newest = stored.last().map(|key| key.created_at);
        if may_make && newest.is_none_or(|newest| now.since(newest) >= ROTATE_AFTER) {
            stored = self.add_key(now).await?;
        }
        let opened = |stored: &StoredKey| {
            let der = Zeroizing::new(STANDARD.decode(stored.private.as_bytes()).ok()?);
            Some(Key {
                id: stored.id.clone(),
                key: RsaKey::from_der(&der)?,
                created_at: stored.created_at,
            })
        };
        let all: Vec<Key> = stored.iter().filter_map(opened).collect();
        *self.keys.write() = Keys {
            all: Arc::new(all),
            read_at: Some(now),
        };
        Ok(())
    }

    /// The stored keys, oldest first.
    async fn stored(&self) -> Result<Vec<StoredKey>, Error> {
        let sealed = self
            .core
            .store
            .read(|db| Ok::<_, Error>(Store::meta(db, STORED_AS)?))
            .await?;
        open(&self.core, sealed)
    }

    /// Makes a key, unless another node just did, and drops those that nothing needs any more.
    /// Returns the stored keys.
    async fn add_key(&self, now: Timestamp) -> Result<Vec<StoredKey>, Error> {
        let before = self.stored().await?.len();
        let made = tokio::task::spawn_blocking(RsaKey::generate)
            .await
            .ok()
            .flatten()
            .ok_or(Error::Internal("a key cannot be made"))?;
        let new = StoredKey {
            id: random::token()[..16].to_owned(),
            private: STANDARD.encode(&*made),
            created_at: now,
        };
        // Sealed inside the transaction, which may run twice: so the vault goes along.
        let core = Arc::clone(&self.core);
        let stored = self
            .core
            .store
            .write(move |db| {
                let mut all = open(&core, Store::meta(db, STORED_AS)?)?;
                if all.len() > before {
                    return Ok(all);
                }
                all.push(new.clone());
                let times: Vec<Timestamp> = all.iter().map(|key| key.created_at).collect();
                let published = published(&times, now);
                let mut keep = published.iter();
                all.retain(|_| keep.next().copied().unwrap_or(true));
                let text = Zeroizing::new(serde_json::to_string(&all).unwrap_or_default());
                let secret = SecretString::from(text.as_str());
                let sealed = core.vault.seal(labels::meta(STORED_AS), &secret)?;
                Store::set_meta(db, STORED_AS, &sealed.0)?;
                Ok::<_, Error>(all)
            })
            .await?;
        tracing::info!("made a key that signs this portal's tokens");
        Ok(stored)
    }

    /// A signed token. Makes the first key, if there is none.
    pub async fn token(&self, wanted: &PortalToken) -> Result<SecretString, Error> {
        self.ready().await?;
        self.token_if_ready(wanted)
            .ok_or(Error::Internal("this portal has no key to sign with"))
    }

    /// A signed token; `None` before [`Self::ready`].
    pub(in crate::service) fn token_if_ready(&self, wanted: &PortalToken) -> Option<SecretString> {
        let now = self.core.now();
        let keys = self.keys.read().clone();
        let key = keys.all.get(signing(&keys.times(), now)?)?;
        let mut claims = json!({
            "iss": self.name(),
            "sub": wanted.subject,
            "aud": wanted.audience,
            "jti": uuid::Uuid::new_v4().to_string(),
            "iat": now.unix_seconds(),
            "nbf": now.minus(LEEWAY).unix_seconds(),
            "exp": now.plus(wanted.lifetime).unix_seconds(),
        });
        if let Some((content, owner)) = wanted.content {
            claims["content_guid"] = json!(content);
            claims["owner_guid"] = json!(owner);
        }
        let header = json!({"kid": key.id});
        let token = key.key.sign(Signature::Rs256, header, &claims)?;
        Some(token.into())
    }

    /// The content session token of an item: what content exchanges for tokens of service accounts.
    pub fn content_token(&self, item: Id<Content>, owner: Id<Person>) -> PortalToken {
        PortalToken {
            subject: format!("content:{item}"),
            audience: self.exchange_audience(),
            content: Some((item, owner)),
            lifetime: FOR_CONTENT,
        }
    }

    /// The item that a content session token was made for.
    pub async fn verify_content_token(
        &self,
        token: &str,
    ) -> Result<Result<Id<Content>, InvalidContentToken>, Error> {
        self.ready().await?;
        let keys = self.keys.read().clone();
        let key_id = jwt::key_id(token);
        let key = keys.all.iter().find(|key| Some(&key.id) == key_id.as_ref());
        let Some(claims) = key.and_then(|key| key.key.verify(token)) else {
            return Ok(Err(InvalidContentToken::Forged));
        };
        Ok(self.item_of(&claims))
    }

    fn item_of(&self, claims: &Value) -> Result<Id<Content>, InvalidContentToken> {
        if claims["iss"] != self.name() {
            return Err(InvalidContentToken::WrongIssuer);
        }
        let item = claims["sub"]
            .as_str()
            .and_then(|subject| subject.strip_prefix("content:")?.parse().ok());
        let (Some(item), true) = (item, claims["aud"] == self.exchange_audience()) else {
            return Err(InvalidContentToken::Forged);
        };
        let now = self.core.now().unix_seconds();
        if claims["exp"].as_i64().is_none_or(|end| now >= end) {
            return Err(InvalidContentToken::Expired);
        }
        Ok(item)
    }

    /// The discovery document (OpenID Connect Discovery 1.0 section 4).
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": self.name(),
            "jwks_uri": format!("{}/.well-known/jwks.json", self.name()),
            // Nobody signs in here through OpenID Connect; the members are required.
            "authorization_endpoint": format!("{}/__oauth__/integrations", self.name()),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "content_guid", "owner_guid"],
        })
    }

    /// The public keys (RFC 7517).
    pub async fn public_keys(&self) -> Result<Value, Error> {
        self.read(false).await?;
        let now = self.core.now();
        let keys = self.keys.read().clone();
        let shown = keys.all.iter().zip(published(&keys.times(), now));
        let shown: Vec<Value> = shown
            .filter(|(_, published)| *published)
            .map(|(key, _)| key.key.public_jwk(&key.id))
            .collect();
        Ok(json!({ "keys": shown }))
    }
}

/// The keys in a stored value, oldest first.
fn open(core: &Core, sealed: Option<String>) -> Result<Vec<StoredKey>, Error> {
    let Some(sealed) = sealed else {
        return Ok(Vec::new());
    };
    let text = core.vault.open(labels::meta(STORED_AS), &Sealed(sealed))?;
    serde_json::from_str(text.expose_secret())
        .map_err(|_| Error::Internal("the keys that sign tokens are damaged"))
}

/// Which of the keys signs: the newest one that was published for long enough, else the oldest.
/// `created_at`: oldest first.
fn signing(created_at: &[Timestamp], now: Timestamp) -> Option<usize> {
    let known = |at: &Timestamp| now.since(*at) >= PUBLISHED_BEFORE;
    created_at
        .iter()
        .rposition(known)
        .or((!created_at.is_empty()).then_some(0))
}

/// Which of the keys are published: all but those whose successor has signed for long enough.
fn published(created_at: &[Timestamp], now: Timestamp) -> Vec<bool> {
    let replaced = |position: usize| {
        created_at
            .get(position + 1)
            .is_some_and(|successor| now.since(*successor) >= PUBLISHED_BEFORE + PUBLISHED_AFTER)
    };
    (0..created_at.len())
        .map(|position| !replaced(position))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_published_before_it_signs_and_an_old_one_after() {
        let day = |days: u64| Timestamp(0).plus(Duration::from_secs(days * 86_400));
        assert_eq!(signing(&[], day(1)), None);
        // The first one signs at once: there is no other.
        assert_eq!(signing(&[day(0)], day(0)), Some(0));
        let keys = [day(0), day(90)];
        assert_eq!(signing(&keys, day(90)), Some(0));
        assert_eq!(signing(&keys, day(91)), Some(1));
        assert_eq!(published(&keys, day(97)), [true, true]);
        assert_eq!(published(&keys, day(98)), [false, true]);
    }
}

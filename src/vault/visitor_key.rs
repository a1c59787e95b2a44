//! Visitor keys: short-lived API keys with which content calls this portal as its viewer, with a
//! capped role (the template `connect`). Signed, not stored: a key names its browser session, item
//! and integration, and ends with each of them. The service checks those at every use.

use super::Root;
use crate::domain::{
    Id, Timestamp,
    content::Content,
    integration::Integration,
    person::{Person, SignedIn},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All visitor keys begin with it.
const PREFIX: &str = "vkv_";
const PURPOSE: &str = "visitor-key";
/// Explicit typing (RFC 8725 section 3.11).
const TYPE: &str = "valetkey-visitor+jwt";
/// Lifetime of a key.
pub const LIFETIME: Duration = Duration::from_secs(3600);

/// Whether a presented API key has the form of a visitor key.
pub fn is_one(presented: &str) -> bool {
    presented.starts_with(PREFIX)
}

/// What a visitor key says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct VisitorClaims {
    pub iss: String,
    pub sub: Id<Person>,
    pub content: Id<Content>,
    pub integration: Id<Integration>,
    pub sid: SignedIn,
    /// Seconds since 1970.
    pub exp: i64,
}

/// Makes and verifies visitor keys.
pub struct VisitorKeySigner {
    issuer: String,
    header: Header,
    signing: EncodingKey,
    checking: DecodingKey,
}

impl VisitorKeySigner {
    /// Derives the signing key from `root`.
    pub fn new(root: &Root, issuer: String) -> Self {
        let key = root.derive(PURPOSE);
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.into());
        Self {
            issuer,
            header,
            signing: EncodingKey::from_secret(&key),
            checking: DecodingKey::from_secret(&key),
        }
    }

    /// A new key; `None` if it cannot be encoded.
    pub fn mint(
        &self,
        person: Id<Person>,
        content: Id<Content>,
        integration: Id<Integration>,
        signed_in: SignedIn,
        now: Timestamp,
    ) -> Option<SecretString> {
        let claims = VisitorClaims {
            iss: self.issuer.clone(),
            sub: person,
            content,
            integration,
            sid: signed_in,
            exp: now.plus(LIFETIME).unix_seconds(),
        };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.signing).ok()?;
        Some(format!("{PREFIX}{token}").into())
    }

    /// The claims of a genuine key that has not expired.
    pub fn verify(&self, presented: &str, now: Timestamp) -> Option<VisitorClaims> {
        let token = presented.strip_prefix(PREFIX)?;
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.alg != Algorithm::HS256 || header.typ.as_deref() != Some(TYPE) {
            return None;
        }
        let mut rules = Validation::new(Algorithm::HS256);
        // Compared below, with the portal's clock.
        rules.validate_exp = false;
        rules.required_spec_claims.clear();
        rules.validate_aud = false;
        let claims: VisitorClaims = jsonwebtoken::decode(token, &self.checking, &rules)
            .ok()?
            .claims;
        (claims.iss == self.issuer && now.unix_seconds() < claims.exp).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn a_key_works_for_its_own_portal_until_its_end() {
        let root = Root::parse(&Root::generate()).unwrap();
        let ours = VisitorKeySigner::new(&root, "https://portal".into());
        let now = Timestamp(1_000_000);
        let session = SignedIn::Browser(Id::random());
        let key = ours
            .mint(Id::random(), Id::random(), Id::random(), session, now)
            .unwrap();
        let key = key.expose_secret();
        assert!(is_one(key) && ours.verify(key, now).is_some());
        assert!(ours.verify(key, now.plus(LIFETIME)).is_none());
        let other = VisitorKeySigner::new(&root, "https://other".into());
        assert!(other.verify(key, now).is_none());
        assert!(ours.verify(&key[4..], now).is_none());
    }
}

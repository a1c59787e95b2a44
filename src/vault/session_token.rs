//! Session tokens: the value that the proxy puts into `Posit-Connect-User-Session-Token` and that
//! an app exchanges for the viewer's access token. A JWT (RFC 7519) with a fixed algorithm and
//! type, bound to one person, one content item and one browser session. Apps must treat it as
//! opaque.
//!
//! This module checks signature, type, issuer and time only. Whether the session, the access and
//! the consent still hold is up to the service.

use super::Root;
use crate::domain::{
    Id, Timestamp,
    content::{Content, ProcessId},
    person::{Person, SignedIn},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

const PURPOSE: &str = "session-token";
/// Explicit typing (RFC 8725 section 3.11): no other JWT of the portal passes as a session token.
const TYPE: &str = "valetkey-session+jwt";

/// The claims of a session token.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Claims {
    pub iss: String,
    pub sub: Id<Person>,
    /// The content item that the token was issued for.
    pub content: Id<Content>,
    /// The browser session or API key. The service refuses the token once it has ended.
    pub sid: SignedIn,
    /// The process that the token was given to, if the item has several. If the leak alarm goes
    /// off, it names this process.
    #[serde(default, skip_serializing_if = "ProcessId::is_only")]
    pub process: ProcessId,
    /// Seconds since 1970, as is `exp`.
    pub iat: i64,
    pub exp: i64,
}

/// Why a session token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidToken {
    /// Not signed with the portal's key, altered, or of another type.
    Forged,
    /// Signed by the portal, but under another issuer.
    WrongIssuer,
    /// Signed by the portal, but the claims do not parse.
    BadClaims,
    /// Past `exp`, or `iat` lies more than 300 s in the future.
    Expired,
}

/// Issues and verifies the session tokens of one issuer.
pub struct SessionTokenSigner {
    issuer: String,
    header: Header,
    signing: EncodingKey,
    checking: DecodingKey,
    lifetime: Duration,
    /// Tokens with a verified signature, since apps present the same token again and again. Expiry
    /// is compared on each call.
    verified: Cache<String, Arc<Claims>>,
}

impl SessionTokenSigner {
    /// Derives the signing key from `root`. New tokens are valid for `lifetime`.
    pub fn new(root: &Root, issuer: String, lifetime: Duration) -> Self {
        let key = root.derive(PURPOSE);
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.into());
        let (signing, checking) = (
            EncodingKey::from_secret(&key),
            DecodingKey::from_secret(&key),
        );
        Self {
            issuer,
            header,
            signing,
            checking,
            lifetime,
            verified: Cache::new(10_000),
        }
    }

    /// A new token. It is valid for the configured lifetime and ends earlier if its session does.
    /// `None` if it cannot be encoded.
    pub fn mint(
        &self,
        person: Id<Person>,
        content: Id<Content>,
        signed_in: SignedIn,
        process: ProcessId,
        now: Timestamp,
    ) -> Option<String> {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: person,
            content,
            sid: signed_in,
            process,
            iat: now.unix_seconds(),
            exp: now.plus(self.lifetime).unix_seconds(),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing).ok()
    }

    /// The claims of a genuine token, expired or not: for the audit record of a refused exchange,
    /// and for apps that renew a token shortly after its end.
    pub fn read_any_age(&self, token: &str) -> Result<Arc<Claims>, InvalidToken> {
        if let Some(claims) = self.verified.get(token) {
            return Ok(claims);
        }
        let claims = Arc::new(self.check_signature(token)?);
        self.verified.insert(token.to_owned(), Arc::clone(&claims));
        Ok(claims)
    }

    /// The claims of a genuine token that has not expired.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Claims>, InvalidToken> {
        let claims = self.read_any_age(token)?;
        if now.unix_seconds() >= claims.exp || claims.iat > now.unix_seconds() + 300 {
            return Err(InvalidToken::Expired);
        }
        Ok(claims)
    }

    fn check_signature(&self, token: &str) -> Result<Claims, InvalidToken> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken::Forged)?;
        if header.alg != Algorithm::HS256 || header.typ.as_deref() != Some(TYPE) {
            return Err(InvalidToken::Forged);
        }
        // `verify` compares the expiry with the portal's clock; the issuer is compared below.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        validation.validate_aud = false;
        let claims = match jsonwebtoken::decode::<Claims>(token, &self.checking, &validation) {
            Ok(data) => data.claims,
            Err(error) if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_)) => {
                return Err(InvalidToken::BadClaims);
            }
            Err(_) => return Err(InvalidToken::Forged),
        };
        if claims.iss == self.issuer {
            Ok(claims)
        } else {
            Err(InvalidToken::WrongIssuer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Process;

    fn root() -> Root {
        Root::parse(&Root::generate()).unwrap()
    }
    fn tokens(root: &Root, issuer: &str) -> SessionTokenSigner {
        SessionTokenSigner::new(root, issuer.into(), Duration::from_secs(3600))
    }

    #[test]
    fn a_token_names_viewer_item_session_and_process_and_expires() {
        let ring = root();
        let ours = tokens(&ring, "https://portal");
        let (person, content, session, now) = (
            Id::random(),
            Id::random(),
            SignedIn::Browser(Id::random()),
            Timestamp(1_000_000_000),
        );
        let token = ours
            .mint(person, content, session, ProcessId::ONLY, now)
            .unwrap();
        let claims = ours.verify(&token, now).unwrap();
        assert_eq!(
            (claims.sub, claims.content, claims.sid, claims.process),
            (person, content, session, ProcessId::ONLY)
        );
        let process = ProcessId::of(&Process {
            url: "http://a".into(),
            draining: false,
        });
        let other = ours.mint(person, content, session, process, now).unwrap();
        assert!(other.len() > token.len() && ours.verify(&other, now).unwrap().process == process);
        assert_eq!(
            ours.verify(&token, now.plus(Duration::from_secs(3600))),
            Err(InvalidToken::Expired)
        );
        assert_eq!(
            tokens(&ring, "https://other").verify(&token, now),
            Err(InvalidToken::WrongIssuer)
        );
        assert_eq!(
            tokens(&root(), "https://portal").verify(&token, now),
            Err(InvalidToken::Forged)
        );
    }
    #[test]
    fn forged_tokens_are_refused() {
        let ours = tokens(&root(), "https://portal");
        let now = Timestamp(1_000_000_000);
        let token = ours
            .mint(
                Id::random(),
                Id::random(),
                SignedIn::Key(7),
                ProcessId::ONLY,
                now,
            )
            .unwrap();
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.";
        let swapped = {
            let mut parts: Vec<&str> = token.split('.').collect();
            parts.swap(1, 2);
            parts.join(".")
        };
        for wrong in [
            "",
            "x",
            none,
            &token[..token.len() - 2],
            &format!("{token}A"),
            &swapped,
        ] {
            assert_eq!(
                ours.verify(wrong, now),
                Err(InvalidToken::Forged),
                "{wrong}"
            );
        }
    }
}

//! Attempts: OAuth authorizations in flight, from the redirect to the identity provider until its
//! callback (RFC 6749 section 4.1, PKCE: RFC 7636).
//!
//! An attempt is single-use and expires after ten minutes ([`LIFETIME`]). This module decides
//! whether a callback may finish an attempt; it stores nothing. The `state` and the PKCE verifier
//! are kept by `store::connections`, as a hash and as a sealed value.

use super::{
    Id, Timestamp,
    content::Content,
    integration::Integration,
    person::{Person, Session},
    return_path::ReturnPath,
};
use std::time::Duration;

/// Lifetime of an attempt: ten minutes from the redirect to the callback.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// One authorization in flight, without its `state` and PKCE verifier.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: Id<Attempt>,
    pub person: Id<Person>,
    /// The browser session that started the attempt; only this one may finish it.
    pub session: Id<Session>,
    pub integration: Id<Integration>,
    /// The integration's `endpoint_version` at the start. If the integration's endpoints or client
    /// change meanwhile, the attempt is void.
    pub endpoint_version: i64,
    /// The content item that needs the connection; `None` for a reconnect from the consents page.
    pub content: Option<Id<Content>>,
    /// Where the browser goes after the callback.
    pub return_path: ReturnPath,
    /// The `redirect_uri` of the authorization request. The callback must arrive at the same
    /// address.
    pub redirect_uri: String,
    /// Exclusive: at this moment the attempt has expired.
    pub expires_at: Timestamp,
    /// A test sign-in of an administrator: its tokens are looked at and not stored.
    pub is_test: bool,
    /// Set by the first callback; a second one is refused.
    pub used_at: Option<Timestamp>,
}

/// Why a callback from the identity provider is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// No attempt has this `state`: it was never issued, or the attempt was purged.
    Unknown,
    /// The attempt was started by another person or in another browser session.
    OtherSession,
    /// The attempt is older than [`LIFETIME`].
    Expired,
    /// The attempt was used before.
    Used,
    /// The callback arrived at another address than `redirect_uri` (mix-up defence, RFC 9700
    /// section 4.4).
    WrongCallback,
    /// The `iss` parameter names another issuer than the one that was asked (RFC 9207).
    OtherIssuer,
    /// The administrator changed the integration meanwhile.
    Superseded,
}

impl Mismatch {
    /// The reason in the audit log.
    pub fn words(self) -> &'static str {
        match self {
            Mismatch::Unknown => "unknown",
            Mismatch::OtherSession => "another person or session",
            Mismatch::Expired => "expired",
            Mismatch::Used => "used before",
            Mismatch::WrongCallback => "wrong callback address",
            Mismatch::OtherIssuer => "another issuer",
            Mismatch::Superseded => "the integration was changed",
        }
    }
}

impl Attempt {
    /// Checks whether a callback that arrived in `session` of `person` at the address `callback`
    /// may finish this attempt. `endpoint_version` is the integration's current one. Checks neither
    /// `state` nor `iss`: the caller does.
    pub fn check_callback(
        &self,
        person: Id<Person>,
        session: Id<Session>,
        callback: &str,
        endpoint_version: i64,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        if self.person != person || self.session != session {
            return Err(Mismatch::OtherSession);
        }
        if self.redirect_uri != callback {
            return Err(Mismatch::WrongCallback);
        }
        if self.used_at.is_some() {
            return Err(Mismatch::Used);
        }
        if now >= self.expires_at {
            return Err(Mismatch::Expired);
        }
        if self.endpoint_version != endpoint_version {
            return Err(Mismatch::Superseded);
        }
        Ok(())
    }

    /// The attempt after its first callback. Only the store knows whether this one is the first.
    pub fn consume(self, now: Timestamp) -> Self {
        Self {
            used_at: Some(now),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_accepted_only_for_its_own_attempt() {
        let attempt = Attempt {
            id: Id::random(),
            person: Id::random(),
            session: Id::random(),
            integration: Id::random(),
            endpoint_version: 1,
            content: None,
            return_path: ReturnPath::parse("/consents").expect("a path of ours"),
            redirect_uri: "https://portal/cb".into(),
            expires_at: Timestamp(1000),
            is_test: false,
            used_at: None,
        };
        let (person, session) = (attempt.person, attempt.session);
        let early = Timestamp(999);
        assert_eq!(
            attempt.check_callback(person, session, "https://portal/cb", 1, early),
            Ok(())
        );
        assert_eq!(
            attempt.check_callback(Id::random(), session, "https://portal/cb", 1, early),
            Err(Mismatch::OtherSession)
        );
        assert_eq!(
            attempt.check_callback(person, Id::random(), "https://portal/cb", 1, early),
            Err(Mismatch::OtherSession)
        );
        assert_eq!(
            attempt.check_callback(person, session, "https://portal/other", 1, early),
            Err(Mismatch::WrongCallback)
        );
        assert_eq!(
            attempt.check_callback(person, session, "https://portal/cb", 2, early),
            Err(Mismatch::Superseded)
        );
        assert_eq!(
            attempt.check_callback(person, session, "https://portal/cb", 1, Timestamp(1000)),
            Err(Mismatch::Expired)
        );
        let used = Attempt {
            used_at: Some(Timestamp(5)),
            ..attempt
        };
        assert_eq!(
            used.check_callback(person, session, "https://portal/cb", 1, early),
            Err(Mismatch::Used)
        );
    }
}

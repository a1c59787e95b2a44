//! Attempts: authorizations in flight (RFC 6749 section 4.1, RFC 7636). Used once, dead in ten
//! minutes.

use super::{
    Id, Timestamp,
    content::Content,
    integration::Integration,
    person::{Person, Session},
    return_path::ReturnPath,
};
use std::time::Duration;

/// How long an attempt may take.
pub const LIFETIME: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: Id<Attempt>,
    pub person: Id<Person>,
    /// The browser session that started it; only this one may finish it.
    pub session: Id<Session>,
    pub integration: Id<Integration>,
    /// The integration's era when it began: a change of addresses in between ends the attempt.
    pub era: i64,
    /// The content item that asked, if any (a reconnect from the consents page has none).
    pub content: Option<Id<Content>>,
    pub return_path: ReturnPath,
    pub redirect_uri: String,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
}

/// Why an answer of the identity provider does not fit an attempt of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Not ours, or forgotten.
    Unknown,
    /// Another browser session or another person started it.
    Foreign,
    Expired,
    /// This link was used before.
    Used,
    /// It came to another callback address than the one it was sent to (mix-up defence).
    WrongCallback,
    /// The answer names another issuer than the one asked (RFC 9207).
    OtherIssuer,
    /// The administrator changed the integration meanwhile.
    Superseded,
}

impl Attempt {
    /// Whether an answer that arrived in `session` of `person` at `callback` may finish this
    /// attempt.
    pub fn accept(
        &self,
        person: Id<Person>,
        session: Id<Session>,
        callback: &str,
        era: i64,
        now: Timestamp,
    ) -> Result<(), Mismatch> {
        if self.person != person || self.session != session {
            return Err(Mismatch::Foreign);
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
        if self.era != era {
            return Err(Mismatch::Superseded);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_only_its_own_attempt() {
        let attempt = Attempt {
            id: Id::random(),
            person: Id::random(),
            session: Id::random(),
            integration: Id::random(),
            era: 1,
            content: None,
            return_path: ReturnPath::parse("/consents").expect("a path of ours"),
            redirect_uri: "https://portal/cb".into(),
            expires_at: Timestamp(1000),
            used_at: None,
        };
        let (person, session) = (attempt.person, attempt.session);
        let early = Timestamp(999);
        assert_eq!(
            attempt.accept(person, session, "https://portal/cb", 1, early),
            Ok(())
        );
        assert_eq!(
            attempt.accept(Id::random(), session, "https://portal/cb", 1, early),
            Err(Mismatch::Foreign)
        );
        assert_eq!(
            attempt.accept(person, Id::random(), "https://portal/cb", 1, early),
            Err(Mismatch::Foreign)
        );
        assert_eq!(
            attempt.accept(person, session, "https://portal/other", 1, early),
            Err(Mismatch::WrongCallback)
        );
        assert_eq!(
            attempt.accept(person, session, "https://portal/cb", 2, early),
            Err(Mismatch::Superseded)
        );
        assert_eq!(
            attempt.accept(person, session, "https://portal/cb", 1, Timestamp(1000)),
            Err(Mismatch::Expired)
        );
        let used = Attempt {
            used_at: Some(Timestamp(5)),
            ..attempt
        };
        assert_eq!(
            used.accept(person, session, "https://portal/cb", 1, early),
            Err(Mismatch::Used)
        );
    }
}

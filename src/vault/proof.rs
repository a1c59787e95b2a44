//! How `valetkey doctor` recognises a server of its own installation at an address: a challenge and the
//! answer to it, both under a key derived from the root secret. A server answers only who knows the
//! secret, so nobody else learns how requests reach it.

use super::{Root, random};
use crate::domain::Timestamp;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

/// How old a challenge may be, and how far in the future, in seconds.
const MAX_AGE: u64 = 300;

/// Makes and answers challenges.
pub struct Proofs(hmac::Key);

impl Proofs {
    pub fn new(root: &Root) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &root.derive("doctor")))
    }

    /// `{seconds}.{random}.{mac}`.
    pub fn challenge(&self, now: Timestamp) -> String {
        let named = format!("{}.{}", now.unix_seconds(), random::token());
        format!("{named}.{}", self.mac("ask", &named))
    }

    /// The answer to a challenge; `None` if it was not made with this root secret, or is not new.
    pub fn answer(&self, challenge: &str, now: Timestamp) -> Option<String> {
        let (named, mac) = challenge.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.0, format!("ask {named}").as_bytes(), &mac).ok()?;
        let (seconds, _) = named.split_once('.')?;
        let made_at: i64 = seconds.parse().ok()?;
        (made_at.abs_diff(now.unix_seconds()) <= MAX_AGE).then(|| self.mac("answer", challenge))
    }

    /// Whether this answers the challenge.
    pub fn is_answer(&self, challenge: &str, answer: &str) -> bool {
        URL_SAFE_NO_PAD.decode(answer).is_ok_and(|answer| {
            hmac::verify(&self.0, format!("answer {challenge}").as_bytes(), &answer).is_ok()
        })
    }

    fn mac(&self, what: &str, text: &str) -> String {
        let mac = hmac::sign(&self.0, format!("{what} {text}").as_bytes());
        URL_SAFE_NO_PAD.encode(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proofs() -> Proofs {
        Proofs::new(&Root::parse(&Root::generate()).expect("32 bytes"))
    }

    #[test]
    fn only_the_same_installation_answers_and_only_while_the_challenge_is_new() {
        let (ours, other, now) = (proofs(), proofs(), Timestamp(1_700_000_000_000));
        let challenge = ours.challenge(now);
        let answer = ours.answer(&challenge, now).expect("an answer");
        assert!(ours.is_answer(&challenge, &answer));
        assert!(!ours.is_answer(&ours.challenge(now), &answer));
        assert!(!ours.is_answer(&challenge, "AAAA"));
        assert_eq!(other.answer(&challenge, now), None);
        let later = now.plus(std::time::Duration::from_secs(301));
        assert_eq!(ours.answer(&challenge, later), None);
        assert_eq!(ours.answer("1.2.3", now), None);
    }
}

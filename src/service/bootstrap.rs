//! The first administrator, made by a program that shares a secret with the operator (`rsconnect
//! bootstrap`).

use super::{Actor, Error, Service, people::PersonInput};
use crate::domain::{audit::Origin, person::Role};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

const NAME: &str = "administrator";
/// A token lives 15 minutes at most, in seconds.
const LONGEST: i64 = 900;
/// How far clocks may lie apart, in seconds.
const SKEW: i64 = 60;

#[derive(Deserialize)]
struct Claims {
    scope: String,
    iat: i64,
    exp: i64,
}

/// Why there is no key.
#[derive(Debug)]
pub enum Refused {
    /// Not switched on, or not a token of who shares the secret.
    Token,
    /// Somebody has an account already.
    Taken,
    Service(Error),
}

impl Service {
    /// Makes the first administrator and a key of theirs.
    pub async fn bootstrap(&self, token: &str, origin: &Origin) -> Result<SecretString, Refused> {
        if !self.is_bootstrap_token(token) {
            return Err(Refused::Token);
        }
        let input = PersonInput {
            username: Some(NAME.into()),
            role: Some(Role::Administrator),
            ..PersonInput::default()
        };
        let person = match self.insert_first(input).await {
            Ok(Some(person)) => person,
            Ok(None) => return Err(Refused::Taken),
            Err(error) => return Err(Refused::Service(error)),
        };
        let actor = Actor {
            role: person.role,
            person,
            session: None,
            origin: origin.clone(),
        };
        let (_, secret) = self
            .create_key(&actor, "bootstrap", None, None)
            .await
            .map_err(Refused::Service)?;
        Ok(secret)
    }

    fn is_bootstrap_token(&self, token: &str) -> bool {
        let Some(secret) = &self.settings.bootstrap_secret else {
            return false;
        };
        let Ok(key) = STANDARD.decode(secret.expose_secret()) else {
            return false;
        };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["rsconnect"]);
        validation.set_issuer(&["rsconnect-python"]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // By our own clock, below.
        validation.validate_exp = false;
        let Ok(decoded) =
            jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&key), &validation)
        else {
            return false;
        };
        let (claims, now) = (decoded.claims, self.now().unix_seconds());
        claims.scope == "bootstrap"
            && now < claims.exp + SKEW
            && claims.iat <= now + SKEW
            && claims.exp - claims.iat <= LONGEST
    }
}

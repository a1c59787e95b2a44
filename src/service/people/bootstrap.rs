//! The first administrator, created by a program that shares a secret with the operator (`rsconnect
//! bootstrap`). The program presents a JWT signed (HS256) with that secret; it works only while
//! nobody has an account.

use crate::{
    domain::{audit::Origin, person::Role},
    service::{
        core::{Actor, Core},
        error::Error,
        people::{
            accounts::{People, PersonInput},
            api_keys::ApiKeys,
        },
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::sync::Arc;

/// User name of the account.
const NAME: &str = "administrator";
/// Maximum time between `iat` and `exp`, in seconds.
const MAX_TOKEN_LIFETIME_SECONDS: i64 = 900;
/// Tolerated clock difference, in seconds.
const SKEW: i64 = 60;

#[derive(Deserialize)]
struct Claims {
    scope: String,
    iat: i64,
    exp: i64,
}

/// Why no API key was issued.
#[derive(Debug)]
pub enum BootstrapError {
    /// Bootstrapping is not switched on, or the token is invalid or expired.
    Token,
    /// An account exists already.
    AccountExists,
    Service(Error),
}

/// Makes the first administrator for a program.
pub struct Bootstrap {
    core: Arc<Core>,
    people: Arc<People>,
    api_keys: Arc<ApiKeys>,
}

impl Bootstrap {
    pub(in crate::service) fn new(
        core: Arc<Core>,
        people: Arc<People>,
        api_keys: Arc<ApiKeys>,
    ) -> Self {
        Self {
            core,
            people,
            api_keys,
        }
    }

    /// Creates the first administrator and an API key of theirs; returns the key.
    pub async fn bootstrap(
        &self,
        token: &str,
        origin: &Origin,
    ) -> Result<SecretString, BootstrapError> {
        if !self.is_bootstrap_token(token) {
            return Err(BootstrapError::Token);
        }
        let input = PersonInput {
            username: Some(NAME.into()),
            role: Some(Role::Administrator),
            ..PersonInput::default()
        };
        let person = match self.people.insert_first(input).await {
            Ok(Some(person)) => person,
            Ok(None) => return Err(BootstrapError::AccountExists),
            Err(error) => return Err(BootstrapError::Service(error)),
        };
        let actor = Actor {
            role: person.role,
            person,
            session: None,
            origin: origin.clone(),
        };
        let (_, secret) = self
            .api_keys
            .create_key(&actor, "bootstrap", None, None)
            .await
            .map_err(BootstrapError::Service)?;
        Ok(secret)
    }

    fn is_bootstrap_token(&self, token: &str) -> bool {
        let Some(secret) = &self.core.settings.bootstrap_secret else {
            return false;
        };
        let Ok(key) = STANDARD.decode(secret.expose_secret()) else {
            return false;
        };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["rsconnect"]);
        validation.set_issuer(&["rsconnect-python"]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Checked below, with the portal's clock.
        validation.validate_exp = false;
        let Ok(decoded) =
            jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&key), &validation)
        else {
            return false;
        };
        let (claims, now) = (decoded.claims, self.core.now().unix_seconds());
        claims.scope == "bootstrap"
            && now < claims.exp + SKEW
            && claims.iat <= now + SKEW
            && claims.exp - claims.iat <= MAX_TOKEN_LIFETIME_SECONDS
    }
}

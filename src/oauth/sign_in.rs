//! Sign-in at the organisation's identity provider: OpenID Connect Core, authorization code flow
//! with PKCE, nonce and state. Who may sign in, and with which role, is decided in
//! `service::sign_in`.
//!
//! The `openidconnect` crate checks issuer, audience, signature, expiry and nonce of ID tokens.
//! Addresses and keys come from discovery and are cached for an hour. An ID token whose signature
//! does not verify with the cached keys causes a new discovery, at most once a minute.

use super::http::ProviderHttp;
use crate::domain::Timestamp;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::DateTime;
use openidconnect::{
    AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, IssuerUrl,
    Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    SignatureVerificationError, TokenResponse as _,
    core::{
        CoreAuthPrompt, CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreJwsSigningAlgorithm,
        CoreProviderMetadata,
    },
};
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use std::{sync::Arc, time::Duration};
use url::Url;

/// How long discovered metadata is cached.
const METADATA_TTL: Duration = Duration::from_secs(3600);
/// Minimum age of cached metadata before a failed signature causes a new discovery.
const MIN_METADATA_AGE: Duration = Duration::from_secs(60);
/// Tolerated difference between the provider's clock and ours.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Accepted signature algorithms: asymmetric ones only, so neither `none` nor HMAC.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 6] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// The portal's client at the provider.
pub struct Client<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub client_secret: Option<&'a SecretString>,
    pub redirect_uri: &'a str,
}

/// The random values that bind a response to one sign-in; `verifier` is the PKCE verifier.
pub struct SignInSecrets {
    pub state: String,
    pub nonce: SecretString,
    pub verifier: SecretString,
}

/// The identity in a verified ID token. Accounts are matched by issuer and subject only; the other
/// claims provide names, roles and groups.
pub struct Identity {
    pub issuer: String,
    pub subject: String,
    claims: Map<String, Value>,
    /// Present if the scopes asked for one. It lets the same provider issue tokens for other
    /// services later.
    pub refresh_token: Option<SecretString>,
}

impl Identity {
    /// A claim that is a string; empty if it is missing or something else.
    pub fn text(&self, name: &str) -> &str {
        self.claims.get(name).and_then(Value::as_str).unwrap_or("")
    }
    /// A claim that is an array of strings, or one string.
    pub fn list(&self, name: &str) -> Vec<&str> {
        match self.claims.get(name) {
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => vec![text],
            _ => Vec::new(),
        }
    }
    /// Whether the token says anything in this claim: it is there, and is not only named in
    /// `_claim_names` (OpenID Connect Core section 5.6.2). Entra ID does that with groups above 200.
    pub fn says(&self, name: &str) -> bool {
        let is_elsewhere = self
            .claims
            .get("_claim_names")
            .and_then(Value::as_object)
            .is_some_and(|names| names.contains_key(name));
        !is_elsewhere
            && matches!(
                self.claims.get(name),
                Some(Value::Array(_) | Value::String(_))
            )
    }
    /// When the person last authenticated at the provider, in seconds since 1970, if the token says
    /// so.
    pub fn auth_time(&self) -> Option<i64> {
        self.claims.get("auth_time").and_then(Value::as_i64)
    }
}

/// Why a sign-in failed. The texts are for the log; pages have their own.
#[derive(Debug)]
pub enum SignInFailure {
    /// The provider cannot be reached or does not work; this may pass.
    Unavailable(String),
    /// The provider's response is not accepted.
    Refused(String),
}

/// Cache of the provider's metadata and keys, with the time of discovery.
#[derive(Default)]
pub struct MetadataCache(Mutex<Option<(Arc<CoreProviderMetadata>, Timestamp)>>);

impl MetadataCache {
    /// The provider's metadata, discovered anew if the cached one is older than `keep_for`.
    async fn metadata(
        &self,
        issuer: &str,
        http: &ProviderHttp,
        now: Timestamp,
        keep_for: Duration,
    ) -> Result<Arc<CoreProviderMetadata>, SignInFailure> {
        let known = self.0.lock().clone();
        if let Some((metadata, at)) =
            known.filter(|(_, at)| now >= *at && now.since(*at) < keep_for)
        {
            let _ = at;
            return Ok(metadata);
        }
        let issuer = IssuerUrl::new(issuer.to_owned())
            .map_err(|error| SignInFailure::Unavailable(error.to_string()))?;
        let found = CoreProviderMetadata::discover_async(issuer, http).await;
        let metadata = Arc::new(
            found.map_err(|error| SignInFailure::Unavailable(format!("discovery: {error}")))?,
        );
        *self.0.lock() = Some((Arc::clone(&metadata), now));
        Ok(metadata)
    }

    /// The URL to redirect the browser to. `again`: the provider must ask for credentials even if
    /// the person is signed in there.
    pub async fn authorize_url(
        &self,
        client: &Client<'_>,
        http: &ProviderHttp,
        proofs: &SignInSecrets,
        scopes: &[String],
        again: bool,
        now: Timestamp,
    ) -> Result<Url, SignInFailure> {
        let metadata = self
            .metadata(client.issuer, http, now, METADATA_TTL)
            .await?;
        let redirect = redirect_of(client)?;
        let oidc = CoreClient::from_provider_metadata(
            (*metadata).clone(),
            ClientId::new(client.client_id.to_owned()),
            None,
        )
        .set_redirect_uri(redirect);
        let verifier = PkceCodeVerifier::new(proofs.verifier.expose_secret().to_owned());
        let (state, nonce) = (
            proofs.state.clone(),
            proofs.nonce.expose_secret().to_owned(),
        );
        let mut builder = oidc
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            // A `form_post` response would arrive without the SameSite=Lax cookie.
            .add_extra_param("response_mode", "query")
            .add_scopes(
                scopes
                    .iter()
                    .filter(|scope| *scope != "openid")
                    .cloned()
                    .map(Scope::new),
            );
        if again {
            builder = builder
                .add_prompt(CoreAuthPrompt::Login)
                .set_max_age(Duration::ZERO);
        }
        Ok(builder.url().0)
    }

    /// Exchanges the code for an ID token and verifies it.
    pub async fn redeem(
        &self,
        client: &Client<'_>,
        http: &ProviderHttp,
        code: String,
        proofs: SignInSecrets,
        now: Timestamp,
    ) -> Result<Identity, SignInFailure> {
        let metadata = self
            .metadata(client.issuer, http, now, METADATA_TTL)
            .await?;
        let secret = client
            .client_secret
            .map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
        let oidc = CoreClient::from_provider_metadata(
            (*metadata).clone(),
            ClientId::new(client.client_id.to_owned()),
            secret.clone(),
        )
        .set_redirect_uri(redirect_of(client)?);
        let request = oidc
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| SignInFailure::Unavailable(error.to_string()))?;
        let answer = request
            .set_pkce_verifier(PkceCodeVerifier::new(
                proofs.verifier.expose_secret().to_owned(),
            ))
            .request_async(http)
            .await
            // The crate's message may repeat text of the provider: keep only the error word.
            .map_err(|error| match error {
                openidconnect::RequestTokenError::ServerResponse(answer) => {
                    SignInFailure::Refused(format!("token request: {}", answer.error().as_ref()))
                }
                openidconnect::RequestTokenError::Request(error) => {
                    SignInFailure::Unavailable(format!("token request: {error}"))
                }
                _ => SignInFailure::Unavailable("token request: no tokens in the answer".into()),
            })?;
        let token = answer
            .id_token()
            .ok_or_else(|| SignInFailure::Refused("no ID token in the answer".into()))?;
        let nonce = Nonce::new(proofs.nonce.expose_secret().to_owned());
        let mut checked = check(token, &metadata, client, secret.clone(), &nonce, now);
        if let Err(ClaimsVerificationError::SignatureVerification(
            SignatureVerificationError::NoMatchingKey | SignatureVerificationError::CryptoError(_),
        )) = &checked
        {
            // The provider may have rotated its keys.
            let renewed = self
                .metadata(client.issuer, http, now, MIN_METADATA_AGE)
                .await?;
            checked = check(token, &renewed, client, secret, &nonce, now);
        }
        let subject =
            checked.map_err(|error| SignInFailure::Refused(format!("ID token: {error}")))?;
        Ok(Identity {
            issuer: client.issuer.to_owned(),
            subject,
            claims: claims_of(&token.to_string()).unwrap_or_default(),
            refresh_token: answer
                .refresh_token()
                .map(|token| SecretString::from(token.secret().clone())),
        })
    }
}

fn redirect_of(client: &Client<'_>) -> Result<RedirectUrl, SignInFailure> {
    RedirectUrl::new(client.redirect_uri.to_owned())
        .map_err(|error| SignInFailure::Unavailable(error.to_string()))
}

/// Verifies signature, issuer, audience, expiry, issue time and nonce of an ID token; returns its
/// subject.
fn check(
    token: &CoreIdToken,
    metadata: &CoreProviderMetadata,
    client: &Client<'_>,
    secret: Option<ClientSecret>,
    nonce: &Nonce,
    now: Timestamp,
) -> Result<String, ClaimsVerificationError> {
    let oidc = CoreClient::from_provider_metadata(
        metadata.clone(),
        ClientId::new(client.client_id.to_owned()),
        secret,
    );
    let early = now.minus(MAX_CLOCK_SKEW).0;
    let verifier = oidc
        .id_token_verifier()
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || DateTime::from_timestamp_millis(early).unwrap_or_default())
        .set_issue_time_verifier_fn(move |issued| {
            let latest =
                DateTime::from_timestamp_millis(now.plus(MAX_CLOCK_SKEW).0).unwrap_or_default();
            if issued > latest {
                Err("issued in the future".into())
            } else {
                Ok(())
            }
        });
    let subject = token.claims(&verifier, nonce)?.subject().to_string();
    // OpenID Connect Core section 2: at most 255 ASCII characters. An empty subject would make all
    // people one account.
    if subject.is_empty() || subject.len() > 255 || !subject.is_ascii() {
        return Err(ClaimsVerificationError::InvalidSubject(
            "empty, too long or not ASCII".into(),
        ));
    }
    Ok(subject)
}

/// The claims of a token that has already been verified.
fn claims_of(token: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

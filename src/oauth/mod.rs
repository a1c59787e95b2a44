//! The OAuth protocol on the wire, as a client (RFC 6749, 7636, 7009): authorization URLs, token
//! requests, revocation and the classification of responses. Also the names used by the exchange
//! that the portal serves (RFC 8693). Never sees a person, a page or a database.

pub mod assertion;
mod dialect;
pub mod discovery;
pub mod errors;
pub mod http;
pub mod http_error;
pub mod identity;
pub mod jwt;
pub mod probe;
pub mod service_account;
pub mod sign_in;
pub mod token_exchange;
pub mod token_response;

use crate::providers::{self, ClientAuthentication, Endpoints, Profile, profile::RevocationKind};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use dialect::TokenEndpointHttp;
use errors::{ErrorCode, Failure, ProviderError};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, Scope, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use token_response::ProviderTokenResponse;
use url::Url;

type Client = oauth2::Client<
    ProviderError,
    ProviderTokenResponse,
    oauth2::basic::BasicTokenIntrospectionResponse,
    oauth2::StandardRevocableToken,
    oauth2::basic::BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// An OAuth client registered at one identity provider, with its secrets opened for the duration of
/// a call.
pub struct Registration {
    pub endpoints: Endpoints,
    pub client_id: String,
    /// The current client secret (or private key), followed by the previous one, which may still be
    /// the valid one.
    pub secrets: Vec<SecretString>,
    pub authentication: ClientAuthentication,
    pub scopes: Vec<String>,
    /// How the provider behaves.
    pub profile: Profile,
    /// Sent with refresh requests, where the provider wants it.
    pub redirect_uri: String,
    /// This portal's own token for the provider, where it proves itself with one
    /// ([`ClientAuthentication::Federated`]).
    pub portal_token: Option<SecretString>,
}

/// A token response, and which client secret obtained it.
pub struct Granted {
    pub answer: ProviderTokenResponse,
    /// The current secret was refused and the previous one accepted.
    pub by_previous_secret: bool,
}

/// The parameters of one authorization request, besides the registration.
pub struct AuthorizationRequest<'a> {
    pub redirect_uri: &'a str,
    pub state: &'a str,
    /// The PKCE verifier; `None` where an administrator switched PKCE off.
    pub verifier: Option<&'a SecretString>,
    pub login_hint: Option<&'a str>,
    /// `select_account` or `consent`, if the flow needs it.
    pub prompt: Option<&'a str>,
}

impl Registration {
    /// The `oauth2` client with one of the secrets; `None` if the request needs none.
    fn client(&self, secret: Option<&SecretString>) -> Result<Client, Failure> {
        let broken = |_| {
            Failure::administrator(
                ErrorCode::Configuration,
                "The addresses of this integration are damaged. Save them again.",
            )
        };
        let mut client = oauth2::Client::new(ClientId::new(self.client_id.clone()))
            .set_auth_uri(AuthUrl::new(self.endpoints.authorize.to_string()).map_err(broken)?)
            .set_token_uri(TokenUrl::new(self.endpoints.token.to_string()).map_err(broken)?)
            .set_auth_type(match self.authentication {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Body
                | ClientAuthentication::PrivateKey
                | ClientAuthentication::Federated
                | ClientAuthentication::None => AuthType::RequestBody,
            });
        if let (ClientAuthentication::Basic | ClientAuthentication::Body, Some(secret)) =
            (self.authentication, secret)
        {
            client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        Ok(client)
    }

    /// The client assertion for a request to `audience`, as form parameters; empty for other ways
    /// of client authentication.
    fn client_assertion(
        &self,
        audience: &Url,
        secret: Option<&SecretString>,
    ) -> Result<Vec<(&'static str, String)>, Failure> {
        match (self.authentication, secret) {
            (ClientAuthentication::Federated, _) => {
                let token = self
                    .portal_token
                    .as_ref()
                    .ok_or_else(|| Failure::wait("This portal cannot sign at the moment."))?;
                Ok(vec![
                    ("client_assertion_type", assertion::TYPE.to_owned()),
                    ("client_assertion", token.expose_secret().to_owned()),
                ])
            }
            (ClientAuthentication::PrivateKey, Some(key)) => {
                let assertion =
                    assertion::sign(&self.client_id, audience.as_str(), key).map_err(|why| {
                        Failure::administrator(
                            ErrorCode::InvalidClient,
                            &format!("The private key cannot be used: {why}."),
                        )
                    })?;
                Ok(vec![
                    ("client_assertion_type", assertion::TYPE.to_owned()),
                    ("client_assertion", assertion),
                ])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The secrets to try, in order; one `None` for a public client.
    fn candidates(&self) -> Result<Vec<Option<&SecretString>>, Failure> {
        if !self.authentication.needs_secret() {
            return Ok(vec![None]);
        }
        if self.secrets.is_empty() {
            return Err(Failure::administrator(
                ErrorCode::InvalidClient,
                "This integration has no client secret. Enter one.",
            ));
        }
        Ok(self.secrets.iter().map(Some).collect())
    }

    /// Sends a request with each secret until one is not refused with `invalid_client`. That error
    /// leaves the code or refresh token unused, so sending it again is safe. If all are refused,
    /// returns the failure of the current secret.
    async fn with_each_secret<'s, F>(
        &'s self,
        request: impl Fn(Option<&'s SecretString>) -> F,
    ) -> Result<Granted, Failure>
    where
        F: Future<Output = Result<ProviderTokenResponse, Failure>>,
    {
        let mut first = None;
        for (position, secret) in self.candidates()?.into_iter().enumerate() {
            match request(secret).await {
                Ok(answer) => {
                    return Ok(Granted {
                        answer,
                        by_previous_secret: position > 0,
                    });
                }
                Err(failure) if failure.error_code == ErrorCode::InvalidClient => {
                    first.get_or_insert(failure);
                }
                // Any other failure is not about the secret.
                Err(failure) => return Err(failure),
            }
        }
        Err(first.unwrap_or_else(|| {
            Failure::wait("The identity provider is not answering as it should.")
        }))
    }

    /// The URL to redirect the viewer's browser to (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
    pub fn authorize_url(&self, request: &AuthorizationRequest<'_>) -> Result<Url, Failure> {
        let client = self.client(None)?;
        let redirect = RedirectUrl::new(request.redirect_uri.to_owned()).map_err(|_| {
            Failure::administrator(
                ErrorCode::Configuration,
                "The public address of this portal is damaged.",
            )
        })?;
        let state = request.state.to_owned();
        let mut builder = client
            .authorize_url(move || CsrfToken::new(state))
            .set_redirect_uri(std::borrow::Cow::Owned(redirect));
        let plain = self.profile.scope_parameter == "scope" && self.profile.scope_separator == ' ';
        if plain {
            builder = builder.add_scopes(self.scopes.iter().cloned().map(Scope::new));
        } else {
            let separator = self.profile.scope_separator.to_string();
            builder =
                builder.add_extra_param(self.profile.scope_parameter, self.scopes.join(&separator));
        }
        if let Some(verifier) = request.verifier {
            let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
            builder =
                builder.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        }
        if let Some(hint) = request.login_hint {
            builder = builder.add_extra_param("login_hint", hint.to_owned());
        }
        let (usual, others): (Vec<_>, Vec<_>) = self
            .profile
            .authorize_parameters
            .iter()
            .copied()
            .partition(|(key, _)| *key == "prompt");
        let mut prompts: Vec<&str> = request.prompt.into_iter().collect();
        // Google issues a refresh token only if its consent page was shown. `none` must be the only
        // value (OpenID Connect Core, section 3.1.2.1).
        if request.prompt != Some("none") {
            prompts.extend(usual.iter().map(|(_, value)| value));
            prompts.dedup();
        }
        if !prompts.is_empty() {
            builder = builder.add_extra_param("prompt", prompts.join(" "));
        }
        for (key, value) in others {
            builder = builder.add_extra_param(key, value);
        }
        Ok(builder.url().0)
    }

    /// Exchanges an authorization code for tokens (RFC 6749 section 4.1.3).
    pub async fn redeem(
        &self,
        http: &http::ProviderHttp,
        code: String,
        redirect_uri: &str,
        verifier: Option<SecretString>,
    ) -> Result<Granted, Failure> {
        let redirect = RedirectUrl::new(redirect_uri.to_owned()).map_err(|_| {
            Failure::administrator(
                ErrorCode::Configuration,
                "The public address of this portal is damaged.",
            )
        })?;
        let http = &TokenEndpointHttp::new(http, self.profile);
        let (code, redirect, verifier) = (&code, &redirect, &verifier);
        self.with_each_secret(|secret| async move {
            let client = self.client(secret)?;
            let mut request = client
                .exchange_code(AuthorizationCode::new(code.clone()))
                .set_redirect_uri(std::borrow::Cow::Borrowed(redirect));
            if let Some(verifier) = verifier {
                request = request
                    .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()));
            }
            for (name, value) in self.client_assertion(&self.endpoints.token, secret)? {
                request = request.add_extra_param(name, value);
            }
            request
                .request_async(http)
                .await
                .map_err(|error| Failure::from_token_error(error, self.profile.refusals))
        })
        .await
    }

    /// Gets a token for the client itself (RFC 6749 section 4.4).
    pub async fn client_credentials(&self, http: &http::ProviderHttp) -> Result<Granted, Failure> {
        let http = &TokenEndpointHttp::new(http, self.profile);
        self.with_each_secret(|secret| async move {
            let client = self.client(secret)?;
            let scopes = providers::scopes_of_its_own(self.scopes.iter().map(String::as_str));
            let scopes = scopes.into_iter().map(|scope| Scope::new(scope.to_owned()));
            let mut request = client.exchange_client_credentials().add_scopes(scopes);
            for (name, value) in self.client_assertion(&self.endpoints.token, secret)? {
                request = request.add_extra_param(name, value);
            }
            request
                .request_async(http)
                .await
                .map_err(|error| Failure::from_token_error(error, self.profile.refusals))
        })
        .await
    }

    /// Exchanges a refresh token for new tokens (RFC 6749 section 6), with the granted scopes. The
    /// request is sent before `limit` or not at all, and has no response timeout: see
    /// [`http::ProviderHttp::send_before`].
    pub async fn refresh(
        &self,
        http: &http::ProviderHttp,
        token: SecretString,
        limit: Instant,
    ) -> Result<Granted, Failure> {
        let (token, http) = (
            &RefreshToken::new(token.expose_secret().to_owned()),
            &TokenEndpointHttp::before(http, self.profile, limit),
        );
        self.with_each_secret(|secret| async move {
            let client = self.client(secret)?;
            let scopes = self
                .scopes
                .iter()
                .filter(|_| self.profile.sends_scopes_at_refresh)
                .cloned()
                .map(Scope::new);
            let mut request = client.exchange_refresh_token(token).add_scopes(scopes);
            if self.profile.sends_redirect_uri_at_refresh {
                request = request.add_extra_param("redirect_uri", self.redirect_uri.as_str());
            }
            for (name, value) in self.client_assertion(&self.endpoints.token, secret)? {
                request = request.add_extra_param(name, value);
            }
            request
                .request_async(http)
                .await
                .map_err(|error| Failure::from_token_error(error, self.profile.refusals))
        })
        .await
    }

    /// The request that revokes these tokens; `None` if the provider has no revocation endpoint.
    pub fn revocation(&self, tokens: &RevokedTokens<'_>) -> Option<RevocationRequest> {
        let kind = self.profile.revocation;
        let token = match kind {
            // With it go its access tokens; one without an end may be all there is.
            RevocationKind::Standard => tokens.refresh.or(tokens.access),
            RevocationKind::GithubGrant => tokens.access,
        };
        Some(RevocationRequest {
            address: self.endpoints.revoke.clone()?,
            client_id: self.client_id.clone(),
            authentication: self.authentication,
            secrets: self
                .secrets
                .iter()
                .map(|secret| secret.expose_secret().to_owned())
                .collect(),
            token: token?.expose_secret().to_owned(),
            kind,
            is_access_token: tokens.refresh.is_none() || kind == RevocationKind::GithubGrant,
        })
    }
}

/// The tokens of a connection that ends.
#[derive(Clone, Copy)]
pub struct RevokedTokens<'a> {
    pub access: Option<&'a SecretString>,
    pub refresh: Option<&'a SecretString>,
}

/// A revocation (RFC 7009) that can be stored, sealed, and sent later, when the integration may no
/// longer exist. So it carries its own copy of the secrets.
#[derive(Serialize, Deserialize)]
pub struct RevocationRequest {
    address: Url,
    client_id: String,
    authentication: ClientAuthentication,
    secrets: Vec<String>,
    token: String,
    #[serde(default)]
    kind: RevocationKind,
    #[serde(default)]
    is_access_token: bool,
}

impl RevocationRequest {
    /// As JSON with clear secrets, to be sealed.
    pub fn to_text(&self) -> SecretString {
        SecretString::from(serde_json::to_string(self).unwrap_or_default())
    }
    /// `None` if the text does not parse.
    pub fn from_text(text: &SecretString) -> Option<Self> {
        serde_json::from_str(text.expose_secret()).ok()
    }

    /// Whether it ends more than this token: all that the person agreed to, for this client.
    pub fn ends_whole_grant(&self) -> bool {
        self.kind == RevocationKind::GithubGrant
    }

    /// Ends this token only: GitHub's request for the grant, turned into that for one token of it.
    pub fn spare_other_tokens(&mut self) {
        let path = self.address.path();
        if let Some(application) = path.strip_suffix("/grant") {
            let path = format!("{application}/token");
            self.address.set_path(&path);
        }
    }

    /// Revokes the token, with each secret until one works. Does not use the `oauth2` crate, which
    /// refuses plain http even for hosts that the operator allowed.
    pub async fn send(&self, http: &http::ProviderHttp) -> Result<(), Failure> {
        let mut refused = Failure::wait("The identity provider refused to revoke.");
        let secrets: Vec<&str> = if self.secrets.is_empty() {
            vec![""]
        } else {
            self.secrets.iter().map(String::as_str).collect()
        };
        for secret in secrets {
            let answer = http
                .send(self.request(secret)?)
                .await
                .map_err(Failure::from)?;
            if answer.status().is_success() {
                return Ok(());
            }
            let body: ProviderError = serde_json::from_slice(answer.body()).unwrap_or_default();
            refused.error_code = body.code();
            // It has ended already. RFC 7009 (section 2.2) wants 200 then; Google and Salesforce
            // refuse.
            if refused.error_code == ErrorCode::InvalidToken {
                return Ok(());
            }
        }
        Err(refused)
    }

    fn request(&self, secret: &str) -> Result<oauth2::HttpRequest, Failure> {
        let damaged = |_| {
            Failure::administrator(
                ErrorCode::Configuration,
                "The revocation address of this integration is damaged.",
            )
        };
        if self.kind == RevocationKind::GithubGrant {
            let body = serde_json::json!({"access_token": self.token}).to_string();
            return ::http::Request::delete(self.address.as_str())
                .header("content-type", "application/json")
                .header("authorization", basic(&self.client_id, secret))
                .body(body.into_bytes())
                .map_err(damaged);
        }
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", &self.token).append_pair(
            "token_type_hint",
            if self.is_access_token {
                "access_token"
            } else {
                "refresh_token"
            },
        );
        let mut request = ::http::Request::post(self.address.as_str())
            .header("content-type", "application/x-www-form-urlencoded");
        match self.authentication {
            ClientAuthentication::Basic => {
                request = request.header("authorization", basic(&self.client_id, secret));
            }
            ClientAuthentication::Body => {
                form.append_pair("client_id", &self.client_id)
                    .append_pair("client_secret", secret);
            }
            ClientAuthentication::PrivateKey => {
                let assertion = assertion::sign(
                    &self.client_id,
                    self.address.as_str(),
                    &secret.to_owned().into(),
                )
                .map_err(|_| {
                    Failure::administrator(
                        ErrorCode::InvalidClient,
                        "The private key cannot be used.",
                    )
                })?;
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_assertion_type", assertion::TYPE)
                    .append_pair("client_assertion", &assertion);
            }
            // Entra ID, where portals prove themselves with tokens, has no revocation endpoint.
            ClientAuthentication::None | ClientAuthentication::Federated => {
                form.append_pair("client_id", &self.client_id);
            }
        }
        request.body(form.finish().into_bytes()).map_err(damaged)
    }
}

/// The value of `Authorization` for a client with a secret (RFC 6749 section 2.3.1).
fn basic(client_id: &str, secret: &str) -> String {
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(client_id), encode(secret));
    format!("Basic {}", STANDARD.encode(pair))
}

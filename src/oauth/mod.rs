//! The OAuth protocol on the wire, as a client: authorize addresses, token requests, revocation, and what answers mean.
//! Never sees a person, a page or a database. RFC 6749, 7636, 7009; RFC 8693 for the exchange we serve.

pub mod answer;
pub mod errors;
pub mod http;
pub mod sign_in;
pub mod token_exchange;

use crate::providers::{ClientAuthentication, Endpoints};
use answer::TokenAnswer;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use errors::{Failure, ProviderError};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RefreshToken, Scope, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

type Client = oauth2::Client<
    ProviderError,
    TokenAnswer,
    oauth2::basic::BasicTokenIntrospectionResponse,
    oauth2::StandardRevocableToken,
    oauth2::basic::BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// One registration at one identity provider, with its secret opened for the length of a call.
pub struct Registration {
    pub endpoints: Endpoints,
    pub client_id: String,
    pub client_secret: Option<SecretString>,
    pub authentication: ClientAuthentication,
    pub scopes: Vec<String>,
    /// See [`crate::providers::Template::names_scopes_at_refresh`].
    pub names_scopes_at_refresh: bool,
}

/// What an authorization request carries beside the registration.
pub struct AuthorizationRequest<'a> {
    pub redirect_uri: &'a str,
    pub state: &'a str,
    /// The PKCE verifier; `None` where an administrator switched PKCE off.
    pub verifier: Option<&'a SecretString>,
    pub login_hint: Option<&'a str>,
    /// `select_account` or `consent`, where the flow needs it.
    pub prompt: Option<&'a str>,
}

impl Registration {
    fn client(&self) -> Result<Client, Failure> {
        let broken = |_| Failure::administrator("configuration", "The addresses of this integration are damaged. Save them again.");
        let mut client = oauth2::Client::new(ClientId::new(self.client_id.clone()))
            .set_auth_uri(AuthUrl::new(self.endpoints.authorize.to_string()).map_err(broken)?)
            .set_token_uri(TokenUrl::new(self.endpoints.token.to_string()).map_err(broken)?)
            .set_auth_type(match self.authentication {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Body | ClientAuthentication::None => AuthType::RequestBody,
            });
        if self.authentication != ClientAuthentication::None {
            let secret = self
                .client_secret
                .as_ref()
                .ok_or_else(|| Failure::administrator("invalid_client", "This integration has no client secret. Enter one."))?;
            client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        Ok(client)
    }

    /// The address to send the viewer's browser to (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
    pub fn authorize_url(&self, request: &AuthorizationRequest<'_>) -> Result<Url, Failure> {
        let client = self.client()?;
        let redirect = RedirectUrl::new(request.redirect_uri.to_owned())
            .map_err(|_| Failure::administrator("configuration", "The public address of this portal is damaged."))?;
        let state = request.state.to_owned();
        let mut builder = client
            .authorize_url(move || CsrfToken::new(state))
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            .add_scopes(self.scopes.iter().cloned().map(Scope::new));
        if let Some(verifier) = request.verifier {
            let verifier = PkceCodeVerifier::new(verifier.expose_secret().to_owned());
            builder = builder.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        }
        for (key, value) in [("login_hint", request.login_hint), ("prompt", request.prompt)] {
            if let Some(value) = value {
                builder = builder.add_extra_param(key, value.to_owned());
            }
        }
        // A form_post answer would arrive without our SameSite=Lax cookie.
        Ok(builder.add_extra_param("response_mode", "query").url().0)
    }

    /// Trades an authorization code for tokens (RFC 6749 section 4.1.3).
    pub async fn redeem(
        &self,
        http: &http::ProviderHttp,
        code: String,
        redirect_uri: &str,
        verifier: Option<SecretString>,
    ) -> Result<TokenAnswer, Failure> {
        let client = self.client()?;
        let redirect = RedirectUrl::new(redirect_uri.to_owned())
            .map_err(|_| Failure::administrator("configuration", "The public address of this portal is damaged."))?;
        let mut request = client.exchange_code(AuthorizationCode::new(code)).set_redirect_uri(std::borrow::Cow::Owned(redirect));
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()));
        }
        request.request_async(http).await.map_err(Failure::from)
    }

    /// Trades a refresh token for new tokens (RFC 6749 section 6), with the granted scopes and nothing more.
    pub async fn refresh(&self, http: &http::ProviderHttp, token: SecretString) -> Result<TokenAnswer, Failure> {
        let client = self.client()?;
        let token = RefreshToken::new(token.expose_secret().to_owned());
        client
            .exchange_refresh_token(&token)
            .add_scopes(self.scopes.iter().filter(|_| self.names_scopes_at_refresh).cloned().map(Scope::new))
            .request_async(http)
            .await
            .map_err(Failure::from)
    }

    /// Ends a refresh token at the provider (RFC 7009). `Ok` where the provider has no such address. By hand, since the
    /// library refuses plain http even for hosts that the operator listed.
    pub async fn revoke(&self, http: &http::ProviderHttp, token: SecretString) -> Result<(), Failure> {
        let Some(address) = &self.endpoints.revoke else { return Ok(()) };
        let request = self.revocation_request(address, &token)?;
        let answer = http.send(request).await.map_err(Failure::from)?;
        if answer.status().is_success() { Ok(()) } else { Err(Failure::wait("The identity provider refused to revoke.")) }
    }

    fn revocation_request(&self, address: &Url, token: &SecretString) -> Result<oauth2::HttpRequest, Failure> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token.expose_secret()).append_pair("token_type_hint", "refresh_token");
        let mut request = ::http::Request::post(address.as_str()).header("content-type", "application/x-www-form-urlencoded");
        let secret = self.client_secret.as_ref().map_or("", |secret| secret.expose_secret());
        match self.authentication {
            ClientAuthentication::Basic => {
                let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encode(&self.client_id), encode(secret));
                request = request.header("authorization", format!("Basic {}", STANDARD.encode(pair)));
            }
            ClientAuthentication::Body => {
                form.append_pair("client_id", &self.client_id).append_pair("client_secret", secret);
            }
            ClientAuthentication::None => drop(form.append_pair("client_id", &self.client_id)),
        }
        request
            .body(form.finish().into_bytes())
            .map_err(|_| Failure::administrator("configuration", "The revocation address of this integration is damaged."))
    }
}

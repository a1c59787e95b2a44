//! Requests that show how a provider treats a client, without a person: a token request with a code
//! that does not exist, and an authorization request that nobody answers.

use super::{
    AuthorizationRequest, Registration,
    dialect::standard_form,
    errors::{ErrorCode, Failure, ProviderError, aadsts},
    http::ProviderHttp,
    http_error::HttpError,
};
use crate::providers::ClientAuthentication;
use oauth2::RequestTokenError;
use secrecy::{ExposeSecret as _, SecretString};
use std::time::SystemTime;
use url::Url;

/// The code that is sent: no provider issued it.
const NO_CODE: &str = "valetkey-check";

/// The answer of a token endpoint to a code that does not exist.
pub struct TokenAnswer {
    pub status: u16,
    /// The provider's clock, from the header `Date`.
    pub date: Option<SystemTime>,
    /// What it means; `None` if the response is not a JSON object: something else answered.
    pub failure: Option<Failure>,
    /// The description speaks of the redirect URI.
    pub is_about_redirect: bool,
    /// The description speaks of PKCE.
    pub is_about_pkce: bool,
}

impl Registration {
    /// Asks the token endpoint to redeem a code that does not exist, with the current secret.
    pub async fn redeem_nothing(
        &self,
        http: &ProviderHttp,
        verifier: Option<&SecretString>,
    ) -> Result<TokenAnswer, HttpError> {
        let mut form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", NO_CODE.to_owned()),
            ("redirect_uri", self.redirect_uri.clone()),
        ];
        if let Some(verifier) = verifier {
            form.push(("code_verifier", verifier.expose_secret().to_owned()));
        }
        let secret = self.secrets.first();
        let mut request = http::Request::post(self.endpoints.token.as_str())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json");
        form.extend(
            self.client_assertion(&self.endpoints.token, secret)
                .unwrap_or_default(),
        );
        match (self.authentication, secret) {
            (ClientAuthentication::Basic, Some(secret)) => {
                let value = super::basic(&self.client_id, secret.expose_secret());
                request = request.header("authorization", value);
            }
            (ClientAuthentication::Body, Some(secret)) => {
                form.push(("client_id", self.client_id.clone()));
                form.push(("client_secret", secret.expose_secret().to_owned()));
            }
            _ => form.push(("client_id", self.client_id.clone())),
        }
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = request
            .body(body.into_bytes())
            .map_err(|_| HttpError::Refused)?;
        let answer = http.send_plainly(request).await?;
        let header = |name| answer.headers().get(name)?.to_str().ok();
        let date = header(http::header::DATE).and_then(|text| httpdate::parse_http_date(text).ok());
        let status = answer.status().as_u16();
        let answer = standard_form(&self.profile, answer);
        let error: Option<ProviderError> = serde_json::from_slice(answer.body()).ok();
        let text = String::from_utf8_lossy(answer.body()).to_ascii_lowercase();
        Ok(TokenAnswer {
            status,
            date,
            is_about_redirect: text.contains("redirect_uri") || text.contains("redirect uri"),
            is_about_pkce: text.contains("pkce") || text.contains("code_verifier"),
            failure: error.map(|error| {
                Failure::from_token_error(
                    RequestTokenError::ServerResponse(error),
                    self.profile.refusals,
                )
            }),
        })
    }
}

/// What an authorization endpoint does with a request that nobody answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizeAnswer {
    /// It sends the browser back to the redirect URI, which is therefore registered: with this error
    /// and AADSTS number.
    Back(ErrorCode, Option<u64>),
    /// It shows a page of its own that names this AADSTS number.
    Page(u64),
    /// It refuses the request on a page of its own.
    Refused,
    /// It asks for a sign-in, whatever the request says.
    SignIn,
}

impl Registration {
    /// Sends the authorization request that a viewer's browser would send, with `prompt=none`.
    pub async fn authorize_nobody(
        &self,
        http: &ProviderHttp,
        verifier: Option<&SecretString>,
    ) -> Result<AuthorizeAnswer, HttpError> {
        let url = self
            .authorize_url(&AuthorizationRequest {
                redirect_uri: &self.redirect_uri,
                state: NO_CODE,
                verifier,
                login_hint: None,
                prompt: Some("none"),
            })
            .map_err(|_| HttpError::Refused)?;
        let request = http::Request::get(url.as_str())
            .header("accept", "text/html")
            .body(Vec::new())
            .map_err(|_| HttpError::Refused)?;
        let answer = http.send_plainly(request).await?;
        let location = answer.headers().get(http::header::LOCATION);
        let location = location.and_then(|text| text.to_str().ok());
        if let Some(location) = location {
            return Ok(match url.join(location) {
                Ok(back) if is_redirect_uri(&back, &self.redirect_uri) => read_back(&back),
                _ => AuthorizeAnswer::SignIn,
            });
        }
        let text = String::from_utf8_lossy(answer.body());
        Ok(match aadsts(&text) {
            Some(number) => AuthorizeAnswer::Page(number),
            None if answer.status().is_client_error() => AuthorizeAnswer::Refused,
            None => AuthorizeAnswer::SignIn,
        })
    }
}

fn is_redirect_uri(back: &Url, redirect_uri: &str) -> bool {
    let mut plain = back.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    plain.as_str() == redirect_uri
}

fn read_back(back: &Url) -> AuthorizeAnswer {
    let value = |name: &str| {
        let found = back.query_pairs().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let number = aadsts(&value("error_description"));
    AuthorizeAnswer::Back(ErrorCode::received(&value("error")), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_shows_that_the_address_is_registered() {
        let ours = "https://portal/__oauth__/integrations/callback";
        let back = Url::parse(&format!("{ours}?error=login_required&state=x")).unwrap();
        assert!(is_redirect_uri(&back, ours));
        let read = read_back(&back);
        assert_eq!(read, AuthorizeAnswer::Back(ErrorCode::LoginRequired, None));
        let other = Url::parse("https://idp/login?return=x").unwrap();
        assert!(!is_redirect_uri(&other, ours));
        let scopes = format!("{ours}?error=invalid_scope&error_description=AADSTS70011%3A+no");
        let read = read_back(&Url::parse(&scopes).unwrap());
        assert_eq!(
            read,
            AuthorizeAnswer::Back(ErrorCode::InvalidScope, Some(70011))
        );
    }
}

//! Responses of token endpoints, put into the form of RFC 6749 before the `oauth2` crate reads them:
//! errors that come with status 200 or in another field, tokens within another object.

use super::http::ProviderHttp;
use crate::{oauth::http_error::HttpError, providers::Profile};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use std::time::Instant;

/// The HTTP client for one provider's token endpoint.
pub struct TokenEndpointHttp<'a> {
    http: &'a ProviderHttp,
    profile: Profile,
    /// See [`ProviderHttp::send_before`].
    limit: Option<Instant>,
}

impl<'a> TokenEndpointHttp<'a> {
    /// For a request that may be repeated.
    pub fn new(http: &'a ProviderHttp, profile: Profile) -> Self {
        Self {
            http,
            profile,
            limit: None,
        }
    }
    /// For a refresh: sent before `limit` or not at all.
    pub fn before(http: &'a ProviderHttp, profile: Profile, limit: Instant) -> Self {
        Self {
            http,
            profile,
            limit: Some(limit),
        }
    }
}

impl<'c> oauth2::AsyncHttpClient<'c> for TokenEndpointHttp<'_> {
    type Error = HttpError;
    type Future = BoxFuture<'c, Result<oauth2::HttpResponse, HttpError>>;
    fn call(&'c self, request: oauth2::HttpRequest) -> Self::Future {
        Box::pin(async move {
            let response = match self.limit {
                Some(limit) => self.http.send_before(request, limit).await?,
                None => self.http.send(request).await?,
            };
            Ok(standard_form(&self.profile, response))
        })
    }
}

/// The members of a response that belong to its tokens.
const OF_TOKENS: [&str; 4] = ["access_token", "refresh_token", "scope", "expires_in"];

/// The response as RFC 6749 describes it; one that is no JSON object is returned as it is.
pub fn standard_form(profile: &Profile, response: oauth2::HttpResponse) -> oauth2::HttpResponse {
    let Ok(mut body) = serde_json::from_slice::<Map<String, Value>>(response.body()) else {
        return response;
    };
    let (mut head, _) = response.into_parts();
    if !profile.tokens_within.is_empty() {
        // The kind of token says whose it is there, not how it is used.
        let kind = body.remove("token_type");
        match body.remove(profile.tokens_within) {
            // A sign-in: what stands beside the person's tokens belongs to the application.
            Some(Value::Object(mut within)) => {
                within.remove("token_type");
                for key in OF_TOKENS {
                    body.remove(key);
                }
                body.extend(within);
            }
            // A refresh of a person's token.
            _ if kind.as_ref().and_then(Value::as_str) == Some("user") => {}
            _ => {
                body.remove("access_token");
            }
        }
    }
    if profile.error_field != "error"
        && !body.contains_key("error")
        && let Some(code) = body.get(profile.error_field).cloned()
    {
        body.insert("error".to_owned(), code);
        if let Some(text) = body.get("message").cloned() {
            body.insert("error_description".to_owned(), text);
        }
    }
    // An error is one whatever its status says. A response with a token is none.
    let has = |key: &str| body.get(key).is_some_and(Value::is_string);
    if head.status.is_success() && has("error") && !has("access_token") {
        head.status = http::StatusCode::BAD_REQUEST;
    }
    let bytes = serde_json::to_vec(&body).unwrap_or_default();
    http::Response::from_parts(head, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(profile: &Profile, status: u16, body: &str) -> (u16, Value) {
        let response = http::Response::builder().status(status);
        let response = response.body(body.as_bytes().to_vec()).unwrap();
        let read = standard_form(profile, response);
        let status = read.status().as_u16();
        (
            status,
            serde_json::from_slice(read.body()).unwrap_or(Value::Null),
        )
    }

    #[test]
    fn an_error_with_status_200_is_an_error() {
        let profile = Profile::STANDARD;
        let (status, body) = read(&profile, 200, r#"{"error":"bad_refresh_token"}"#);
        assert_eq!((status, &body["error"]), (400, &"bad_refresh_token".into()));
        let (status, _) = read(&profile, 200, r#"{"access_token":"a","error":"odd"}"#);
        assert_eq!(status, 200);
        assert_eq!(read(&profile, 200, "<html>").0, 200);
    }

    #[test]
    fn codes_and_tokens_are_found_where_the_provider_puts_them() {
        let hubspot = Profile {
            error_field: "status",
            ..Profile::STANDARD
        };
        let (_, body) = read(
            &hubspot,
            400,
            r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or unknown"}"#,
        );
        assert_eq!(
            (&body["error"], &body["error_description"]),
            (&"BAD_REFRESH_TOKEN".into(), &"missing or unknown".into())
        );
        let slack = Profile {
            tokens_within: "authed_user",
            ..Profile::STANDARD
        };
        let answer = r#"{"ok":true,"token_type":"bot","access_token":"bot","authed_user":{"id":"U1","access_token":"person","token_type":"user","scope":"a,b"}}"#;
        let (_, body) = read(&slack, 200, answer);
        assert_eq!(
            (&body["access_token"], &body["token_type"]),
            (&"person".into(), &Value::Null)
        );
        let (status, body) = read(
            &slack,
            200,
            r#"{"ok":false,"error":"invalid_refresh_token"}"#,
        );
        assert_eq!(
            (status, &body["error"]),
            (400, &"invalid_refresh_token".into())
        );
    }
}

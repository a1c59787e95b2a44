//! `POST v1/oauth/integrations/credentials`: the exchange (RFC 8693). An app sends the session
//! token of its viewer's request and receives the viewer's access token.
//!
//! This module parses the form and maps results to status, error number and reason; every decision
//! is in `service::grants::exchange`. `resource` and `scope` are accepted and ignored, so content
//! cannot ask for more than its integration grants.

use crate::{
    domain::{activity::Activity, connection::Cause, integration::AuthType},
    http::codes::Code,
    oauth::token_exchange as words,
    service::grants::{
        exchange::{ExchangeError, Request},
        issuer::InvalidContentToken,
    },
    vault::session_token::InvalidToken,
    web::api::{AnyKey, ApiError, ApiResult, read_body, service_of},
};
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::json;
use std::{borrow::Cow, collections::BTreeMap};

/// The success response (RFC 8693 section 2.2.1).
#[derive(Serialize)]
struct Credentials<'a> {
    access_token: &'a str,
    issued_token_type: &'static str,
    token_type: &'static str,
    /// Left out for a token without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    /// What the provider sent besides, such as Salesforce's `instance_url`.
    #[serde(flatten)]
    extra_fields: &'a BTreeMap<String, String>,
}

/// Decodes one `key=value` of the form. A value without escapes, such as a session token, is
/// borrowed instead of decoded.
fn pair(part: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    match part.split_once('=') {
        Some((key, value)) if !part.contains(['%', '+']) => Some((key.into(), value.into())),
        _ => url::form_urlencoded::parse(part.as_bytes()).next(),
    }
}

/// Parses the form of an exchange. Errors: 210 for an empty body, 211 for another format or a
/// duplicate.
pub fn parse_form(bytes: &[u8]) -> Result<Request<'_>, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::bad(
            Code::EmptyForm,
            "Send a form with grant_type, subject_token_type and subject_token.",
        ));
    }
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.starts_with('{'));
    let Some(text) = text else {
        return Err(ApiError::bad(
            Code::MalformedForm,
            "The body must be a form (application/x-www-form-urlencoded).",
        ));
    };
    let mut request = Request::default();
    for (key, value) in text.split('&').filter_map(pair) {
        let place = match key.as_ref() {
            "grant_type" => &mut request.grant_type,
            "subject_token_type" => &mut request.subject_token_type,
            "subject_token" => &mut request.subject_token,
            "requested_token_type" => &mut request.requested_token_type,
            "audience" => &mut request.audience,
            // Includes `resource` and `scope`: see the head of the module.
            _ => continue,
        };
        if place.is_some() {
            return Err(ApiError::bad(
                Code::MalformedForm,
                format!("{key}: is given twice."),
            ));
        }
        *place = Some(value);
    }
    Ok(request)
}

/// The handler. Accepts content keys and personal keys. A refusal is audited, at most once a minute
/// for each caller and reason.
pub async fn exchange(
    caller: Result<AnyKey, ApiError>,
    request: HttpRequest,
    payload: web::Payload,
) -> ApiResult {
    let caller = match caller {
        Ok(caller) => caller,
        Err(refusal) => {
            if refusal.code == Code::UnknownKey {
                count_unknown_key(&request, payload).await;
            }
            return Err(refusal);
        }
    };
    let body = read_body(payload.into_inner()).await?;
    let parameters = parse_form(&body)?;
    match caller
        .service
        .exchange
        .exchange(&caller.caller, &parameters)
        .await
    {
        Ok(fresh) => Ok(HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::PRAGMA, "no-cache"))
            .json(Credentials {
                access_token: fresh.token.expose_secret(),
                issued_token_type: fresh.issued_token_type,
                token_type: match fresh.issued_token_type {
                    words::ACCESS_TOKEN | words::ID_TOKEN => "Bearer",
                    words::API_KEY => "Key",
                    words::AWS_CREDENTIALS => "aws_credentials",
                    // RFC 8693 section 2.2.1: for what is not usable as an access token.
                    _ => "N_A",
                },
                expires_in: fresh.expires_in.map(|life| life.as_secs()),
                extra_fields: &fresh.extra_fields,
            })),
        Err(refusal) => {
            let token = parameters.subject_token.as_deref().unwrap_or("");
            caller
                .service
                .exchange
                .note_refused_exchange(&caller.caller, token, &refusal, &caller.actor().origin)
                .await;
            Err(explain(
                refusal,
                &crate::http::correlation::correlation(&request),
            ))
        }
    }
}

/// Longest form of an exchange with an unknown key that is read, in bytes: anybody can send it.
const MAX_UNKNOWN: usize = 16 * 1024;

/// Counts an exchange with an unknown key for the item that its session token names, so that the
/// item's page can say why its app gets no tokens.
async fn count_unknown_key(request: &HttpRequest, payload: web::Payload) {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_none_or(|length| length > MAX_UNKNOWN) {
        return;
    }
    let (Ok(service), Ok(body)) = (service_of(request), read_body(payload.into_inner()).await)
    else {
        return;
    };
    if let Ok(parameters) = parse_form(&body) {
        let token = parameters.subject_token.as_deref().unwrap_or("");
        service
            .exchange
            .count_refusal(Activity::KeyUnknown, token, None);
    }
}

/// What the response to a refused exchange says.
struct Explanation {
    status: u16,
    code: Code,
    text: String,
    /// Tells apart the reasons that share a number.
    reason: &'static str,
    cause: Option<Cause>,
    /// RFC 6749 section 5.2, RFC 8693 section 2.2.2.
    oauth: &'static str,
    login_url: Option<String>,
    retry_after: Option<u64>,
}

impl Explanation {
    /// Status 400 without details.
    fn new(code: Code, text: impl Into<String>, reason: &'static str, oauth: &'static str) -> Self {
        Self {
            status: 400,
            code,
            text: text.into(),
            reason,
            cause: None,
            oauth,
            login_url: None,
            retry_after: None,
        }
    }

    /// A parameter of the request is wrong.
    fn request(code: Code, text: impl Into<String>) -> Self {
        Self::new(code, text, "invalid_request", "invalid_request")
    }

    /// The session token is not valid, or no longer.
    fn token(code: Code, text: impl Into<String>) -> Self {
        Self::new(code, text, "session_expired", "invalid_request")
    }

    fn forbidden(why: &str) -> Self {
        Self {
            status: 403,
            ..Self::new(
                Code::Forbidden,
                format!("You don't have permission to perform this operation: {why}"),
                "access_denied",
                "access_denied",
            )
        }
    }

    /// The viewer can mend it at `login_url`.
    fn grant(code: Code, text: String, reason: &'static str, login_url: String) -> Self {
        Self {
            login_url: Some(login_url),
            ..Self::new(code, text, reason, "invalid_grant")
        }
    }

    /// Status 503.
    fn provider(text: String, reason: &'static str, oauth: &'static str) -> Self {
        Self {
            status: 503,
            ..Self::new(Code::ProviderFailed, text, reason, oauth)
        }
    }

    fn into_error(self, reference: &str) -> ApiError {
        ApiError {
            payload: json!({
                "reason": self.reason,
                "cause": self.cause.map(Cause::as_str),
                "oauth_error": self.oauth,
                "login_url": self.login_url,
                "retry_after": self.retry_after,
                "reference": reference,
            }),
            retry_after: self.retry_after,
            ..ApiError::new(self.status, self.code, self.text)
        }
    }
}

/// The error response of a refused exchange, readable both as an OAuth error (RFC 6749 section 5.2)
/// and by the client libraries of Posit Connect, whose error numbers these are.
fn explain(refusal: ExchangeError, reference: &str) -> ApiError {
    let explanation = match refusal {
        ExchangeError::Service(error) => return error.into(),
        ExchangeError::GrantType => Explanation::new(
            Code::GrantType,
            format!("grant_type: must be {}.", words::GRANT_TYPE),
            "invalid_request",
            "unsupported_grant_type",
        ),
        ExchangeError::SubjectTokenType => Explanation::request(
            Code::SubjectTokenType,
            format!(
                "subject_token_type: must be {} or {}.",
                words::USER_SESSION_TOKEN,
                words::CONTENT_SESSION_TOKEN
            ),
        ),
        ExchangeError::ContentToken(invalid) => explain_content_token(invalid),
        ExchangeError::AuthType { name, acts_as } => Explanation::request(
            Code::SubjectForAuthType,
            match acts_as {
                AuthType::ServiceAccount => format!(
                    "“{name}” is a service account: send the content session token as {}.",
                    words::CONTENT_SESSION_TOKEN
                ),
                AuthType::Viewer | AuthType::VisitorApiKey => format!(
                    "“{name}” acts for viewers: send the viewer's session token as {}.",
                    words::USER_SESSION_TOKEN
                ),
            },
        ),
        ExchangeError::BesideViewers { service } => Explanation::forbidden(&format!(
            "this content may act for its viewers at {service}, by another integration. Its owner can allow it to act as itself there, too, on its page."
        )),
        ExchangeError::RequestedTokenType(wanted) => Explanation::request(
            Code::RequestedTokenType,
            format!(
                "requested_token_type: {wanted} does not fit this integration and subject token."
            ),
        ),
        ExchangeError::SubjectToken(invalid) => explain_token(invalid),
        ExchangeError::SessionEnded => Explanation::token(
            Code::SubjectToken,
            "Invalid subject_token: its viewer has signed out.",
        ),
        ExchangeError::NotYourContent => Explanation::forbidden(
            "the key must belong to somebody who runs the content that the token was made for.",
        ),
        ExchangeError::ViewerMayNot => {
            Explanation::forbidden("this viewer may not open the content.")
        }
        ExchangeError::NoAssociation => Explanation::new(
            Code::NoAssociation,
            "No OAuth integrations have been associated with this content item.",
            "no_association",
            "invalid_target",
        ),
        ExchangeError::WrongAudience => Explanation::new(
            Code::Audience,
            "audience: is not the GUID of an integration of this content item.",
            "no_association",
            "invalid_target",
        ),
        ExchangeError::AmbiguousAudience => Explanation::new(
            Code::AmbiguousAudience,
            "audience: name one integration; this content item uses several.",
            "ambiguous_association",
            "invalid_target",
        ),
        ExchangeError::Paused { service } => Explanation::provider(
            format!("An administrator has paused the use of {service}."),
            "integration_paused",
            "temporarily_unavailable",
        ),
        ExchangeError::NotConsented { login_url, service } => Explanation::grant(
            Code::NotConnected,
            format!("The viewer has not allowed this content to use {service}."),
            "not_consented",
            login_url,
        ),
        ExchangeError::NotConnected { login_url, service } => Explanation::grant(
            Code::NotConnected,
            format!("The viewer is not connected to {service}."),
            "not_connected",
            login_url,
        ),
        ExchangeError::NotTheirAccount { login_url, service } => Explanation::grant(
            Code::NeedsLogin,
            format!(
                "The viewer is connected to {service} with another account than their own, which this integration refuses."
            ),
            "identity_mismatch",
            login_url,
        ),
        ExchangeError::NeedsLogin {
            cause,
            login_url,
            service,
        } => explain_ended_connection(cause, login_url, &service),
        ExchangeError::Broken { sentence } => Explanation::provider(
            format!("An administrator must repair the integration. {sentence}"),
            "integration_broken",
            "server_error",
        ),
        ExchangeError::Unavailable {
            retry_after,
            sentence,
        } => Explanation {
            retry_after: Some(retry_after.as_secs().max(1)),
            ..Explanation::provider(
                sentence,
                "identity_provider_unavailable",
                "temporarily_unavailable",
            )
        },
    };
    explanation.into_error(reference)
}

fn explain_token(invalid: InvalidToken) -> Explanation {
    match invalid {
        InvalidToken::WrongIssuer => Explanation::token(
            Code::SubjectTokenIssuer,
            "Invalid subject_token: it comes from another server.",
        ),
        InvalidToken::BadClaims => Explanation::token(
            Code::SubjectTokenClaims,
            "Invalid subject_token: its claims cannot be read.",
        ),
        InvalidToken::Forged => Explanation::token(Code::SubjectToken, "Invalid subject_token"),
        InvalidToken::Expired => Explanation::token(
            Code::SubjectToken,
            "Invalid subject_token: it has expired. Read the header of a current request.",
        ),
    }
}

fn explain_content_token(invalid: InvalidContentToken) -> Explanation {
    match invalid {
        InvalidContentToken::WrongIssuer => Explanation::token(
            Code::SubjectTokenIssuer,
            "Invalid subject_token: it comes from another server.",
        ),
        InvalidContentToken::Forged => {
            Explanation::token(Code::ContentToken, "Invalid subject_token")
        }
        InvalidContentToken::Expired => Explanation::token(
            Code::ContentToken,
            "Invalid subject_token: it has expired. Read CONNECT_CONTENT_SESSION_TOKEN_FILE again.",
        ),
    }
}

fn explain_ended_connection(cause: Cause, login_url: String, service: &str) -> Explanation {
    if cause == Cause::AccountChanged {
        // Without `cause`: the reason `identity_mismatch` says it.
        return Explanation::grant(
            Code::NeedsLogin,
            format!(
                "The account behind the viewer's connection to {service} changed, so it was stopped. The viewer must connect again."
            ),
            "identity_mismatch",
            login_url,
        );
    }
    Explanation {
        cause: Some(cause),
        ..Explanation::grant(
            Code::NeedsLogin,
            format!(
                "Refresh token is invalid: the connection to {service} has ended. The viewer must sign in again."
            ),
            "needs_reauthorization",
            login_url,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_an_exchange_is_small() {
        crate::http::assert_small(|(caller, request, payload)| exchange(caller, request, payload));
    }
}

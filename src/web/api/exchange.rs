//! `POST v1/oauth/integrations/credentials`: the exchange (RFC 8693). An app sends the session
//! token of its viewer's request and receives the viewer's access token.
//!
//! This module parses the form and maps results to status, error number and reason; every decision
//! is in `service::grants::exchange`. `resource` and `scope` are accepted and ignored, so content
//! cannot ask for more than its integration grants.

use crate::{
    domain::connection::Cause,
    http::codes::Code,
    oauth::token_exchange as words,
    service::grants::exchange::{ExchangeError, Request},
    vault::session_token::InvalidToken,
    web::api::{AnyKey, ApiError, ApiResult, read_body},
};
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;

/// The success response (RFC 8693 section 2.2.1).
#[derive(Serialize)]
struct Credentials<'a> {
    access_token: &'a str,
    issued_token_type: &'static str,
    token_type: &'static str,
    expires_in: u64,
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
pub async fn exchange(caller: AnyKey, request: HttpRequest, payload: web::Payload) -> ApiResult {
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
                // RFC 8693 section 2.2.1: `N_A` for a token that is not usable as an access token.
                token_type: if fresh.issued_token_type == words::ACCESS_TOKEN {
                    "Bearer"
                } else {
                    "N_A"
                },
                expires_in: fresh.expires_in.as_secs(),
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

/// The error response of a refused exchange, readable both as an OAuth error (RFC 6749 section 5.2)
/// and by the client libraries of Posit Connect, whose error numbers these are. Several reasons may
/// share a number; `reason` tells them apart.
fn explain(refusal: ExchangeError, reference: &str) -> ApiError {
    struct Explanation {
        status: u16,
        code: Code,
        text: String,
        reason: &'static str,
        cause: Option<Cause>,
        oauth: &'static str,
        login_url: Option<String>,
        retry_after: Option<u64>,
    }
    // Status 400 without details.
    let plain = |code: Code, text: &str, reason: &'static str, oauth: &'static str| Explanation {
        status: 400,
        code,
        text: text.to_owned(),
        reason,
        cause: None,
        oauth,
        login_url: None,
        retry_after: None,
    };
    let explanation = match refusal {
        ExchangeError::Service(error) => return error.into(),
        ExchangeError::GrantType => plain(
            Code::GrantType,
            &format!("grant_type: must be {}.", words::GRANT_TYPE),
            "invalid_request",
            "unsupported_grant_type",
        ),
        ExchangeError::SubjectTokenType => plain(
            Code::SubjectTokenType,
            &format!("subject_token_type: must be {}.", words::USER_SESSION_TOKEN),
            "invalid_request",
            "invalid_request",
        ),
        ExchangeError::ContentToken => plain(
            Code::ContentToken,
            "subject_token_type: this portal acts for viewers only; send the viewer's session token.",
            "invalid_request",
            "invalid_request",
        ),
        ExchangeError::RequestedTokenType(wanted) => plain(
            Code::RequestedTokenType,
            &format!(
                "requested_token_type: must be {}, or {} for a new session token; not {wanted}.",
                words::ACCESS_TOKEN,
                words::USER_SESSION_TOKEN
            ),
            "invalid_request",
            "invalid_request",
        ),
        ExchangeError::SubjectToken(InvalidToken::WrongIssuer) => plain(
            Code::SubjectTokenIssuer,
            "Invalid subject_token: it comes from another server.",
            "session_expired",
            "invalid_request",
        ),
        ExchangeError::SubjectToken(InvalidToken::BadClaims) => plain(
            Code::SubjectTokenClaims,
            "Invalid subject_token: its claims cannot be read.",
            "session_expired",
            "invalid_request",
        ),
        ExchangeError::SubjectToken(InvalidToken::Forged) => plain(
            Code::SubjectToken,
            "Invalid subject_token",
            "session_expired",
            "invalid_request",
        ),
        ExchangeError::SubjectToken(InvalidToken::Expired) => plain(
            Code::SubjectToken,
            "Invalid subject_token: it has expired. Read the header of a current request.",
            "session_expired",
            "invalid_request",
        ),
        ExchangeError::SessionEnded => plain(
            Code::SubjectToken,
            "Invalid subject_token: its viewer has signed out.",
            "session_expired",
            "invalid_request",
        ),
        ExchangeError::NotYourContent => Explanation {
            status: 403,
            ..plain(
                Code::Forbidden,
                "You don't have permission to perform this operation: the key must belong to somebody who runs the content that the token was made for.",
                "access_denied",
                "access_denied",
            )
        },
        ExchangeError::ViewerMayNot => Explanation {
            status: 403,
            ..plain(
                Code::Forbidden,
                "You don't have permission to perform this operation: this viewer may not open the content.",
                "access_denied",
                "access_denied",
            )
        },
        ExchangeError::NoAssociation => plain(
            Code::NoAssociation,
            "No OAuth integrations have been associated with this content item.",
            "no_association",
            "invalid_target",
        ),
        ExchangeError::WrongAudience => plain(
            Code::Audience,
            "audience: is not the GUID of an integration of this content item.",
            "no_association",
            "invalid_target",
        ),
        ExchangeError::AmbiguousAudience => plain(
            Code::AmbiguousAudience,
            "audience: name one integration; this content item uses several.",
            "ambiguous_association",
            "invalid_target",
        ),
        ExchangeError::NotConsented { login_url, service } => Explanation {
            login_url: Some(login_url),
            ..plain(
                Code::NotConnected,
                &format!("The viewer has not allowed this content to use {service}."),
                "not_consented",
                "invalid_grant",
            )
        },
        ExchangeError::NotConnected { login_url, service } => Explanation {
            login_url: Some(login_url),
            ..plain(
                Code::NotConnected,
                &format!("The viewer is not connected to {service}."),
                "not_connected",
                "invalid_grant",
            )
        },
        ExchangeError::NotTheirAccount { login_url, service } => Explanation {
            login_url: Some(login_url),
            ..plain(
                Code::NeedsLogin,
                &format!(
                    "The viewer is connected to {service} with another account than their own, which this integration refuses."
                ),
                "identity_mismatch",
                "invalid_grant",
            )
        },
        // Without `cause`: the reason `identity_mismatch` says it.
        ExchangeError::NeedsLogin {
            cause: Cause::AccountChanged,
            login_url,
            service,
        } => Explanation {
            login_url: Some(login_url),
            ..plain(
                Code::NeedsLogin,
                &format!(
                    "The account behind the viewer's connection to {service} changed, so it was stopped. The viewer must connect again."
                ),
                "identity_mismatch",
                "invalid_grant",
            )
        },
        ExchangeError::NeedsLogin {
            cause,
            login_url,
            service,
        } => Explanation {
            login_url: Some(login_url),
            cause: Some(cause),
            ..plain(
                Code::NeedsLogin,
                &format!(
                    "Refresh token is invalid: the connection to {service} has ended. The viewer must sign in again."
                ),
                "needs_reauthorization",
                "invalid_grant",
            )
        },
        ExchangeError::Broken { sentence } => Explanation {
            status: 503,
            ..plain(
                Code::ProviderFailed,
                &format!("An administrator must repair the integration. {sentence}"),
                "integration_broken",
                "server_error",
            )
        },
        ExchangeError::Unavailable {
            retry_after,
            sentence,
        } => Explanation {
            status: 503,
            retry_after: Some(retry_after.as_secs().max(1)),
            ..plain(
                Code::ProviderFailed,
                &sentence,
                "identity_provider_unavailable",
                "temporarily_unavailable",
            )
        },
    };
    ApiError {
        payload: json!({
            "reason": explanation.reason,
            "cause": explanation.cause.map(Cause::as_str),
            "oauth_error": explanation.oauth,
            "login_url": explanation.login_url,
            "retry_after": explanation.retry_after,
            "reference": reference,
        }),
        retry_after: explanation.retry_after,
        ..ApiError::new(explanation.status, explanation.code, explanation.text)
    }
}

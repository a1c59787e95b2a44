//! Failed requests to a provider, classified by who has to act: nobody (retry later), the viewer
//! (sign in again) or an administrator (repair the integration). RFC 6749 section 5.2, and the
//! AADSTS numbers of Microsoft Entra ID.
//!
//! A provider's free text never leaves this module: it may hold names and fragments of requests.
//! What leaves are known error words, AADSTS numbers and sentences of our own.

use super::http_error::HttpError;
use crate::{
    domain::connection::Cause,
    providers::profile::{Meaning, Refusal},
};
use oauth2::RequestTokenError;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::time::Duration;

/// An error response of a token endpoint (RFC 6749 section 5.2), with Microsoft's extensions. The
/// description is only searched for its AADSTS number and for a mention of the refresh token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProviderError {
    #[serde(default, deserialize_with = "text")]
    error: String,
    #[serde(default, deserialize_with = "text", skip_serializing)]
    error_description: String,
    #[serde(default, deserialize_with = "numbers")]
    error_codes: Vec<u64>,
    /// `suberror` at Microsoft, `error_subtype` at Google.
    #[serde(default, alias = "error_subtype", deserialize_with = "text")]
    suberror: String,
}

/// A string; anything else counts as empty.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Value::deserialize(deserializer)?
        .as_str()
        .unwrap_or("")
        .to_owned())
}
/// The integers of an array; anything else counts as empty.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    Ok(Value::deserialize(deserializer)?
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_u64).collect())
        .unwrap_or_default())
}

impl std::fmt::Display for ProviderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused by the provider")
    }
}
impl oauth2::ErrorResponse for ProviderError {}

/// Who can repair a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// Nobody: it is temporary, and nothing is lost. `retry_after`: the pause to make, if known.
    Temporary { retry_after: Option<Duration> },
    /// The viewer, by signing in at the provider again.
    Viewer(Cause),
    /// An administrator, by repairing the integration.
    Administrator,
    /// Not known: a well-formed refusal (RFC 6749 section 5.2) with an error code that this portal
    /// does not know. Worth a few more tries, not endless ones.
    Unknown,
}

/// A request to a provider that brought no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: FailureClass,
    pub error_code: ErrorCode,
    /// Microsoft's AADSTS number, if there was one.
    pub aadsts: Option<u64>,
    /// A sentence of our own, fit to be shown.
    pub sentence: String,
    /// Whether the provider may have received and processed the request.
    pub may_have_acted: bool,
}

/// How a request to a provider ended, for the measures: `ok`, or who can mend it.
pub fn outcome<T>(answer: &Result<T, Failure>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(failure) => match failure.class {
            FailureClass::Viewer(_) => "person",
            FailureClass::Administrator => "administrator",
            FailureClass::Temporary { .. } => "wait",
            FailureClass::Unknown => "unknown",
        },
    }
}

/// AADSTS numbers of a refused client: unknown application or directory, wrong or expired secret,
/// certificate or federated credential.
const AADSTS_CLIENT: [u64; 17] = [
    70002, 70021, 90002, 90038, 700_016, 700_024, 700_025, 700_027, 700_030, 700_084, 700_211,
    700_212, 700_213, 7_000_112, 7_000_215, 7_000_218, 7_000_222,
];
/// AADSTS number: this person is not assigned to the application.
const AADSTS_NOT_ASSIGNED: u64 = 50105;
/// AADSTS number: one person's requests go in circles.
const AADSTS_LOOP: u64 = 50196;

impl Failure {
    /// Whether the failure concerns all connections of the integration: the provider cannot be
    /// reached, fails, limits the client's rate, or refuses the client itself.
    pub fn concerns_integration(&self) -> bool {
        match (&self.class, self.aadsts) {
            (_, Some(AADSTS_NOT_ASSIGNED | AADSTS_LOOP)) => false,
            (FailureClass::Temporary { .. }, _) => true,
            (FailureClass::Administrator, Some(number)) => AADSTS_CLIENT.contains(&number),
            (FailureClass::Administrator, None) => matches!(
                self.error_code,
                ErrorCode::InvalidClient | ErrorCode::UnauthorizedClient
            ),
            (FailureClass::Viewer(_) | FailureClass::Unknown, _) => false,
        }
    }

    /// A failure that an administrator has to repair; the provider did not act.
    pub fn administrator(error_code: ErrorCode, sentence: &str) -> Self {
        Self {
            class: FailureClass::Administrator,
            error_code,
            aadsts: None,
            sentence: sentence.into(),
            may_have_acted: false,
        }
    }
    /// A temporary failure; the provider may have acted.
    pub fn wait(sentence: &str) -> Self {
        Self {
            class: FailureClass::Temporary { retry_after: None },
            error_code: ErrorCode::TemporarilyUnavailable,
            aadsts: None,
            sentence: sentence.into(),
            may_have_acted: true,
        }
    }
}

/// The error codes of RFC 6749 sections 4.1.2.1 and 5.2, RFC 8707 and OpenID Connect that leave this
/// module, and four of our own. Safe to log and to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorCode {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    InvalidTarget,
    InvalidResource,
    AccessDenied,
    /// Of revocation endpoints: the token has ended already, or never was.
    InvalidToken,
    ServerError,
    TemporarilyUnavailable,
    InteractionRequired,
    ConsentRequired,
    LoginRequired,
    SlowDown,
    UnsupportedResponseType,
    /// Our own: the integration's settings make a request impossible.
    Configuration,
    /// Our own: a stored request cannot be read.
    Unreadable,
    /// Our own: a status 400 with nothing in it that can be read.
    UnreadableRefusal,
    /// Our own: the provider sent no error code.
    Missing,
    /// Any other text.
    Other,
}

impl ErrorCode {
    /// The code that a provider sent; [`ErrorCode::Other`] if it is not in the list.
    pub fn received(text: &str) -> Self {
        match text.parse() {
            _ if text.is_empty() => Self::Missing,
            Ok(Self::Configuration | Self::Unreadable | Self::Missing) | Err(_) => Self::Other,
            Ok(known) => known,
        }
    }
}

/// The first AADSTS number in an error description of Microsoft's.
pub fn aadsts(text: &str) -> Option<u64> {
    let rest = &text[text.find("AADSTS")? + 6..];
    let digits: String = rest
        .chars()
        .take_while(char::is_ascii_digit)
        .take(9)
        .collect();
    digits.parse().ok()
}

/// Classifies an OAuth error word and an AADSTS number, with a sentence to show. A known number
/// decides before the word.
pub fn classify(
    word: ErrorCode,
    code: Option<u64>,
    suberror: &str,
) -> (FailureClass, &'static str) {
    let person = |cause, sentence| (FailureClass::Viewer(cause), sentence);
    let administrator = |sentence| (FailureClass::Administrator, sentence);
    let wait = |sentence| (FailureClass::Temporary { retry_after: None }, sentence);
    match code {
        Some(65001) => return person(Cause::Policy, "Microsoft asks for your permission again."),
        Some(50072 | 50074 | 50076 | 50078 | 50079) => {
            return person(
                Cause::Policy,
                "Your organisation asks for another proof of who you are.",
            );
        }
        Some(53000..=53003 | 530_032 | 50131) => {
            return person(
                Cause::Policy,
                "Your organisation's policy blocked this sign-in.",
            );
        }
        Some(700_082 | 70008) => {
            return person(
                Cause::Expired,
                "The connection was not used for a long time, and Microsoft ended it.",
            );
        }
        Some(70043) => {
            return person(
                Cause::Policy,
                "Your organisation asks you to sign in again from time to time.",
            );
        }
        Some(70000 | 50089 | 50173 | 54005 | 501_481) => {
            return person(Cause::Expired, "Microsoft ended this connection.");
        }
        Some(50055 | 50057 | 50144) => {
            return person(
                Cause::Expired,
                "Microsoft says that this account is disabled or its password has expired.",
            );
        }
        Some(700_084) => {
            return administrator(
                "Microsoft knows the application as a single-page app. Register the redirect address under Web.",
            );
        }
        Some(7_000_215 | 70002) => {
            return administrator(
                "Microsoft does not accept the client secret. Enter the Value of a current secret, not its Secret ID.",
            );
        }
        Some(7_000_222) => {
            return administrator(
                "The client secret has expired. Make a new one in Microsoft Entra ID and enter its Value.",
            );
        }
        Some(7_000_218) => {
            return administrator("Microsoft expects a client secret, and none was sent.");
        }
        Some(700_025) => {
            return administrator(
                "The application is registered as public. Allow it a client secret, or set the client type to Public.",
            );
        }
        Some(700_016 | 7_000_112) => {
            return administrator(
                "Microsoft does not know this application in this directory. Compare application ID and directory ID.",
            );
        }
        Some(700_024) => {
            return administrator(
                "Microsoft finds the time of a signed request wrong. Set the clock of this server.",
            );
        }
        Some(700_027 | 700_030) => {
            return administrator(
                "Microsoft does not know the certificate that signs for this application, or it has ended.",
            );
        }
        Some(70021 | 700_211..=700_213) => {
            return administrator(
                "Microsoft does not take this portal's tokens for this application. Compare the federated credential: issuer, subject and audience.",
            );
        }
        Some(90002 | 90038) => {
            return administrator(
                "Microsoft does not know this directory. Compare the directory ID, and the cloud.",
            );
        }
        Some(70011 | 28002 | 700_022) => {
            return administrator("Microsoft does not accept the scopes of this integration.");
        }
        Some(500_011 | 650_052 | 650_056 | 650_057) => {
            return administrator(
                "The application lacks a permission. Add it in Microsoft Entra ID, for Databricks: AzureDatabricks / user_impersonation.",
            );
        }
        Some(50105) => {
            return administrator(
                "Microsoft lets only assigned people use this application. Assign them in Microsoft Entra ID.",
            );
        }
        Some(90055) => return wait("Microsoft asks to be called less often."),
        // Entra detected a request loop: the block ends only after minutes without requests.
        Some(50196) => {
            let retry_after = Some(Duration::from_secs(300));
            return (
                FailureClass::Temporary { retry_after },
                "Microsoft was called too often and asks for a pause of some minutes.",
            );
        }
        Some(90006 | 90033 | 50033 | 90024) => {
            return wait("Microsoft is not answering right now.");
        }
        _ => {}
    }
    match word {
        ErrorCode::InvalidGrant if suberror == "consent_required" => person(
            Cause::Policy,
            "The identity provider asks for your permission again.",
        ),
        ErrorCode::InvalidGrant => person(
            Cause::Expired,
            "The identity provider ended this connection.",
        ),
        ErrorCode::InvalidRequest => administrator(
            "The identity provider does not understand the requests of this integration.",
        ),
        ErrorCode::InteractionRequired | ErrorCode::LoginRequired | ErrorCode::ConsentRequired => {
            person(
                Cause::Policy,
                "The identity provider asks you to sign in again.",
            )
        }
        ErrorCode::InvalidClient => administrator(
            "The identity provider does not accept the client ID or the client secret.",
        ),
        ErrorCode::UnauthorizedClient | ErrorCode::UnsupportedGrantType => administrator(
            "The identity provider does not allow this application to sign people in this way.",
        ),
        ErrorCode::InvalidScope | ErrorCode::InvalidTarget | ErrorCode::InvalidResource => {
            administrator("The identity provider does not accept the scopes of this integration.")
        }
        ErrorCode::ServerError
        | ErrorCode::TemporarilyUnavailable
        | ErrorCode::SlowDown
        | ErrorCode::UnreadableRefusal
        | ErrorCode::Missing => wait("The identity provider is not answering as it should."),
        _ => (
            FailureClass::Unknown,
            "The identity provider refused, and did not say why in a way that this portal knows.",
        ),
    }
}

/// A provider's error code, if it looks like one: fit to be logged and shown.
fn printable_code(text: &str) -> Option<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (!text.is_empty() && text.len() <= 60 && text.bytes().all(fits)).then_some(text)
}

impl ProviderError {
    pub fn code(&self) -> ErrorCode {
        ErrorCode::received(&self.error)
    }
}

impl ProviderError {
    /// Whether this response is the refusal that a template describes.
    fn is(&self, refusal: &Refusal) -> bool {
        let about = self
            .error_description
            .to_ascii_lowercase()
            .replace('_', " ");
        self.error == refusal.code
            && (refusal.subtype.is_empty() || self.suberror == refusal.subtype)
            && about.contains(refusal.about)
    }
}

impl Failure {
    /// A refusal whose meaning the template knows.
    fn known(meaning: Meaning, received: ErrorCode) -> Self {
        let (class, error_code, sentence) = match meaning {
            Meaning::TokenRefused => (
                FailureClass::Viewer(Cause::Expired),
                ErrorCode::InvalidGrant,
                "The identity provider ended this connection.",
            ),
            Meaning::Policy => (
                FailureClass::Viewer(Cause::Policy),
                ErrorCode::InvalidGrant,
                "The identity provider asks you to sign in again.",
            ),
            Meaning::ClientRefused => (
                FailureClass::Administrator,
                ErrorCode::InvalidClient,
                "The identity provider does not accept the client ID or the client secret.",
            ),
            Meaning::Misconfigured => (
                FailureClass::Administrator,
                received,
                "The identity provider does not accept a setting of this integration.",
            ),
            Meaning::Retry => (
                FailureClass::Temporary { retry_after: None },
                ErrorCode::TemporarilyUnavailable,
                "The identity provider is not answering right now.",
            ),
        };
        Failure {
            class,
            error_code,
            aadsts: None,
            sentence: sentence.to_owned(),
            may_have_acted: false,
        }
    }

    /// The failure that an error code of an authorization response or page stands for, with its AADSTS
    /// number.
    pub fn of_code(error_code: ErrorCode, aadsts: Option<u64>) -> Self {
        let (class, sentence) = classify(error_code, aadsts, "");
        Self {
            class,
            error_code,
            aadsts,
            sentence: sentence.to_owned(),
            may_have_acted: false,
        }
    }

    /// Classifies a failed token request. `refusals`: what this provider says in other words than
    /// RFC 6749 does.
    pub fn from_token_error(
        error: RequestTokenError<HttpError, ProviderError>,
        refusals: &[Refusal],
    ) -> Self {
        match error {
            RequestTokenError::ServerResponse(body) => {
                let code = body
                    .error_codes
                    .first()
                    .copied()
                    .or_else(|| aadsts(&body.error_description));
                let known = refusals
                    .iter()
                    .find(|refusal| code.is_none() && body.is(refusal));
                if let Some(refusal) = known {
                    return Self::known(refusal.meaning, body.code());
                }
                let (class, sentence) = classify(body.code(), code, &body.suberror);
                let sentence = match (&class, printable_code(&body.error)) {
                    (FailureClass::Unknown, Some(word)) => {
                        format!("The identity provider refused with “{word}”.")
                    }
                    _ => sentence.to_owned(),
                };
                Failure {
                    class,
                    error_code: body.code(),
                    aadsts: code,
                    sentence,
                    may_have_acted: false,
                }
            }
            RequestTokenError::Request(error) => error.into(),
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                Failure::wait("The identity provider sent something that is no answer.")
            }
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let (sentence, may_have_acted) = match &error {
            HttpError::Refused => {
                return Failure::administrator(
                    ErrorCode::Configuration,
                    "The address of the identity provider leads into a private network that the operator has not allowed.",
                );
            }
            HttpError::Connect => ("The identity provider cannot be reached.", false),
            HttpError::Tls => (
                "The identity provider cannot be reached: its certificate is not trusted.",
                false,
            ),
            HttpError::Timeout => ("The identity provider did not answer in time.", true),
            HttpError::Broken => ("The connection to the identity provider broke off.", true),
            HttpError::TooLarge => (
                "The identity provider sent something that is no answer.",
                true,
            ),
            HttpError::Unavailable { may_have_acted, .. } => (
                "The identity provider is not answering right now.",
                *may_have_acted,
            ),
            HttpError::TooLate => ("The request could not be sent in time.", false),
        };
        let retry_after = if let HttpError::Unavailable { retry_after, .. } = error {
            retry_after
        } else {
            None
        };
        Failure {
            class: FailureClass::Temporary { retry_after },
            ..Failure {
                may_have_acted,
                ..Failure::wait(sentence)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_are_classified_by_who_has_to_act() {
        assert_eq!(
            classify(ErrorCode::received("invalid_grant"), Some(700_082), "").0,
            FailureClass::Viewer(Cause::Expired)
        );
        assert_eq!(
            classify(ErrorCode::received("invalid_grant"), Some(50076), "").0,
            FailureClass::Viewer(Cause::Policy)
        );
        assert_eq!(
            classify(ErrorCode::received("invalid_client"), Some(7_000_215), "").0,
            FailureClass::Administrator
        );
        assert_eq!(
            classify(ErrorCode::received("invalid_request"), Some(90002), "").0,
            FailureClass::Administrator
        );
        assert_eq!(
            classify(ErrorCode::received("invalid_request"), None, "").0,
            FailureClass::Administrator
        );
        assert!(matches!(
            classify(ErrorCode::received("server_error"), None, "").0,
            FailureClass::Temporary { .. }
        ));
        assert!(matches!(
            classify(ErrorCode::received(""), None, "").0,
            FailureClass::Temporary { .. }
        ));
        assert_eq!(
            classify(ErrorCode::received("something_new"), None, "").0,
            FailureClass::Unknown
        );
    }
    fn refused(refusals: &[Refusal], body: Value) -> Failure {
        let body: ProviderError = serde_json::from_value(body).unwrap();
        Failure::from_token_error(RequestTokenError::ServerResponse(body), refusals)
    }

    #[test]
    fn invalid_request_refuses_the_token_only_if_it_speaks_of_the_refresh_token() {
        let known = [Refusal {
            code: "invalid_request",
            subtype: "",
            about: "refresh token",
            meaning: Meaning::TokenRefused,
        }];
        let said = |text: &str| json!({"error": "invalid_request", "error_description": text});
        assert_eq!(
            refused(&known, said("Refresh token is invalid")).class,
            FailureClass::Viewer(Cause::Expired)
        );
        assert_eq!(
            refused(&[], said("Refresh token is invalid")).class,
            FailureClass::Administrator
        );
        // The request is wrong, not the token: no connection may end because of it.
        for text in [
            "",
            "Missing client credentials",
            "unsupported authentication method",
        ] {
            let class = refused(&known, said(text)).class;
            assert_eq!(class, FailureClass::Administrator, "{text}");
        }
    }
    #[test]
    fn a_subtype_tells_a_policy_from_a_dead_token() {
        let known = [Refusal {
            code: "invalid_grant",
            subtype: "invalid_rapt",
            about: "",
            meaning: Meaning::Policy,
        }];
        let google = json!({"error": "invalid_grant", "error_subtype": "invalid_rapt"});
        assert_eq!(
            refused(&known, google).class,
            FailureClass::Viewer(Cause::Policy)
        );
        let dead = json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."});
        assert_eq!(
            refused(&known, dead).class,
            FailureClass::Viewer(Cause::Expired)
        );
        let secret = [Refusal::by_code("access_denied", Meaning::ClientRefused)];
        let wrong = refused(&secret, json!({"error": "access_denied"}));
        assert_eq!(wrong.error_code, ErrorCode::InvalidClient);
        assert!(wrong.concerns_integration());
    }
    #[test]
    fn the_aadsts_number_is_found_in_the_description() {
        assert_eq!(
            aadsts("AADSTS7000222: The provided client secret keys are expired."),
            Some(7_000_222)
        );
        assert_eq!(aadsts("nothing here"), None);
        assert_eq!(aadsts("AADSTS"), None);
    }
    #[test]
    fn malformed_error_responses_are_parsed() {
        let odd: ProviderError =
            serde_json::from_str(r#"{"error":5,"error_codes":"x","error_description":null}"#)
                .unwrap();
        assert_eq!(odd.error, "");
    }
}

//! Tokens for content itself, from services that want another request than RFC 6749 describes: AWS'
//! and Google's token services, Vault, and Databricks' federation (RFC 8693). Each takes a token of
//! this portal, or for AWS the ID token of a viewer, and so needs no stored secret.

use super::{
    Registration,
    errors::{ErrorCode, Failure, FailureClass, ProviderError},
    http::ProviderHttp,
    http_error::HttpError,
    token_exchange,
    token_response::ProviderTokenResponse,
};
use crate::{domain::Timestamp, providers::service_grant::AwsRole};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::Url;

/// The scope with which a workload identity may ask for a service account's tokens, and that of a
/// token for no service in particular.
const GOOGLE_CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The type of a JWT as subject token (RFC 8693 section 3).
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A token for content itself.
#[derive(Clone, Debug)]
pub struct OwnToken {
    pub token: SecretString,
    pub life: Life,
    /// Other fields of the answer that content is given, as for viewers.
    pub extra_fields: BTreeMap<String, String>,
    /// The service refused the current client secret and took the one before.
    pub by_previous_secret: bool,
}

/// How long a token lives, as its service says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    For(Duration),
    Until(Timestamp),
    Unknown,
}

impl Life {
    /// What is left of it, if the token was issued now.
    pub fn left(self, now: Timestamp) -> Option<Duration> {
        match self {
            Self::For(life) => Some(life),
            Self::Until(end) => Some(end.since(now)),
            Self::Unknown => None,
        }
    }
    fn of(life: Option<Duration>) -> Self {
        life.map_or(Self::Unknown, Self::For)
    }
    /// 0 stands for a token without an end, as Vault's own are.
    fn of_seconds(given: &Value) -> Self {
        let seconds = given.as_u64().filter(|seconds| *seconds > 0);
        Self::of(seconds.map(Duration::from_secs))
    }
    /// Of a moment in the form of RFC 3339.
    fn until(text: &str) -> Self {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
        let end = parsed.and_then(|end| end.unix_timestamp().checked_mul(1000));
        end.map_or(Self::Unknown, |end| Self::Until(Timestamp(end)))
    }
}

impl OwnToken {
    /// A token with nothing beside it.
    pub fn new(token: SecretString, life: Life) -> Self {
        Self {
            token,
            life,
            extra_fields: BTreeMap::new(),
            by_previous_secret: false,
        }
    }

    /// The token of a token endpoint's response.
    pub fn from_response(answer: &ProviderTokenResponse, registration: &Registration) -> Self {
        Self {
            token: answer.access(),
            life: Life::of(answer.lifetime(&registration.profile, true)),
            extra_fields: answer.extra_fields(&registration.profile),
            by_previous_secret: false,
        }
    }
}

/// Exchanges the portal's token at the token endpoint, as Databricks' federation policies take it.
/// Without a client ID an account-wide policy decides.
pub async fn token_exchange(
    http: &ProviderHttp,
    registration: &Registration,
    portal_token: &SecretString,
) -> Result<OwnToken, Failure> {
    let scopes = registration.scopes.join(" ");
    let mut form = vec![
        ("grant_type", token_exchange::GRANT_TYPE),
        ("subject_token", portal_token.expose_secret()),
        ("subject_token_type", JWT),
        ("scope", &scopes),
    ];
    if !registration.client_id.is_empty() {
        form.push(("client_id", &registration.client_id));
    }
    let answer = post_form(http, &registration.endpoints.token, &form).await?;
    if !answer.status().is_success() {
        return Err(refused(registration, answer.body()));
    }
    let answer: ProviderTokenResponse =
        serde_json::from_slice(answer.body()).map_err(|_| no_answer())?;
    Ok(OwnToken::from_response(&answer, registration))
}

fn refused(registration: &Registration, body: &[u8]) -> Failure {
    let error: ProviderError = serde_json::from_slice(body).unwrap_or_default();
    Failure::from_token_error(
        oauth2::RequestTokenError::ServerResponse(error),
        registration.profile.refusals,
    )
}

/// Temporary keys of a role (`AssumeRoleWithWebIdentity`). The request needs no signature: the token
/// is the proof. The keys are in the form that Posit's clients read: base64 of a JSON object.
pub async fn assume_role(
    http: &ProviderHttp,
    role: &AwsRole,
    session_name: &str,
    web_identity_token: &SecretString,
) -> Result<OwnToken, Failure> {
    let duration = role.duration.to_string();
    let form = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", role.role_arn.as_str()),
        ("RoleSessionName", session_name),
        ("DurationSeconds", &duration),
        ("WebIdentityToken", web_identity_token.expose_secret()),
    ];
    let request = form_request(&role.sts, &form, "text/xml")?;
    let answer = http.send_plainly(request).await.map_err(Failure::from)?;
    let text = String::from_utf8_lossy(answer.body());
    let document = roxmltree::Document::parse(&text).map_err(|_| no_answer())?;
    let element = |name: &str| {
        let mut nodes = document.descendants();
        let node = nodes.find(|node| node.tag_name().name() == name)?;
        node.text().map(str::trim)
    };
    if !answer.status().is_success() {
        return Err(aws_refusal(element("Code").unwrap_or("")));
    }
    let value = |name: &str| element(name).ok_or_else(no_answer);
    let expiration =
        OffsetDateTime::parse(value("Expiration")?, &Rfc3339).map_err(|_| no_answer())?;
    let until = expiration.replace_nanosecond(0).unwrap_or(expiration);
    // Posit's clients read whole seconds, in UTC.
    let until_text = until
        .to_offset(time::UtcOffset::UTC)
        .format(&Rfc3339)
        .map_err(|_| no_answer())?;
    let keys = json!({
        "accessKeyId": value("AccessKeyId")?,
        "secretAccessKey": value("SecretAccessKey")?,
        "sessionToken": value("SessionToken")?,
        "expiration": until_text,
    });
    let token = STANDARD.encode(keys.to_string()).into();
    Ok(OwnToken::new(token, Life::until(&until_text)))
}

/// Who can mend a refusal of AWS' token service.
fn aws_refusal(code: &str) -> Failure {
    match code {
        "AccessDenied" => Failure::administrator(
            ErrorCode::AccessDenied,
            "AWS does not let this issuer assume the role. Compare the role's trust policy: provider, aud and sub.",
        ),
        "InvalidIdentityToken" | "IDPRejectedClaim" => Failure::administrator(
            ErrorCode::InvalidGrant,
            "AWS does not accept the token. Add its issuer and audience as an identity provider in IAM.",
        ),
        "ValidationError" => Failure::administrator(
            ErrorCode::InvalidRequest,
            "AWS does not understand the role or the lifetime that was asked for.",
        ),
        "IDPCommunicationError" => {
            Failure::wait("AWS could not read the issuer's discovery document. It tries again.")
        }
        "ExpiredTokenException" => Failure::wait("AWS found the token to be expired."),
        _ => Failure::wait("AWS is not answering as it should."),
    }
}

/// A token of Google's token service, or of the service account that the workload identity may act
/// as; with these scopes, or for all of Google Cloud if there are none.
pub async fn google(
    http: &ProviderHttp,
    (sts, credentials): (&Url, &Url),
    (provider, service_account): (&str, Option<&str>),
    scopes: &[&str],
    portal_token: &SecretString,
) -> Result<OwnToken, Failure> {
    let scopes = if scopes.is_empty() {
        &[GOOGLE_CLOUD]
    } else {
        scopes
    };
    let federated_scope = match service_account {
        Some(_) => GOOGLE_CLOUD.to_owned(),
        None => scopes.join(" "),
    };
    let form = [
        ("grant_type", token_exchange::GRANT_TYPE),
        ("audience", provider),
        ("scope", &federated_scope),
        ("requested_token_type", token_exchange::ACCESS_TOKEN),
        ("subject_token", portal_token.expose_secret()),
        ("subject_token_type", JWT),
    ];
    let answer = post_form(http, sts, &form).await?;
    let body: Value = serde_json::from_slice(answer.body()).map_err(|_| no_answer())?;
    if !answer.status().is_success() {
        return Err(Failure::administrator(
            ErrorCode::received(body["error"].as_str().unwrap_or("")),
            "Google does not accept this portal's token. Compare the workload identity provider: issuer, audience and attribute conditions.",
        ));
    }
    let federated = body["access_token"].as_str().ok_or_else(no_answer)?;
    let Some(account) = service_account else {
        let life = Life::of_seconds(&body["expires_in"]);
        return Ok(OwnToken::new(federated.into(), life));
    };
    let address = credentials
        .join(&format!(
            "/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
        ))
        .map_err(|_| no_answer())?;
    let wanted = json!({"scope": scopes, "lifetime": "3600s"});
    let request = ::http::Request::post(address.as_str())
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {federated}"))
        .body(wanted.to_string().into_bytes())
        .map_err(|_| no_answer())?;
    let answer = http.send(request).await.map_err(Failure::from)?;
    if !answer.status().is_success() {
        return Err(Failure::administrator(
            ErrorCode::AccessDenied,
            "Google does not let the workload identity act as the service account. Give it the role Workload Identity User there.",
        ));
    }
    let body: Value = serde_json::from_slice(answer.body()).map_err(|_| no_answer())?;
    let token = body["accessToken"].as_str().ok_or_else(no_answer)?;
    let life = Life::until(body["expireTime"].as_str().unwrap_or(""));
    Ok(OwnToken::new(token.into(), life))
}

/// A client token of Vault, by its JWT auth method.
pub async fn vault(
    http: &ProviderHttp,
    address: &Url,
    role: &str,
    portal_token: &SecretString,
) -> Result<OwnToken, Failure> {
    let login = json!({"role": role, "jwt": portal_token.expose_secret()});
    let request = ::http::Request::post(address.as_str())
        .header("content-type", "application/json")
        .body(login.to_string().into_bytes())
        .map_err(|_| no_answer())?;
    let answer = http.send_plainly(request).await.map_err(Failure::from)?;
    if answer.status().is_client_error() {
        return Err(Failure::administrator(
            ErrorCode::AccessDenied,
            "Vault does not accept this portal's token. Compare the mount, the role, bound_audiences and oidc_discovery_url.",
        ));
    }
    let body: Value = serde_json::from_slice(answer.body()).map_err(|_| no_answer())?;
    let auth = &body["auth"];
    let token = auth["client_token"].as_str().ok_or_else(no_answer)?;
    let life = Life::of_seconds(&auth["lease_duration"]);
    Ok(OwnToken::new(token.into(), life))
}

fn no_answer() -> Failure {
    Failure::wait("The service sent something that is no answer.")
}

fn form_request(
    address: &Url,
    form: &[(&str, &str)],
    accept: &str,
) -> Result<::http::Request<Vec<u8>>, Failure> {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    ::http::Request::post(address.as_str())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", accept)
        .body(body.into_bytes())
        .map_err(|_| no_answer())
}

async fn post_form(
    http: &ProviderHttp,
    address: &Url,
    form: &[(&str, &str)],
) -> Result<oauth2::HttpResponse, Failure> {
    let request = form_request(address, form, "application/json")?;
    http.send(request).await.map_err(|error| match error {
        // Known before anything was sent.
        HttpError::Refused => Failure::administrator(
            ErrorCode::Configuration,
            "The address of the service leads into a private network that the operator has not allowed.",
        ),
        other => other.into(),
    })
}

/// Whether a failure is one that content cannot mend by asking again.
pub fn needs_administrator(failure: &Failure) -> bool {
    matches!(
        failure.class,
        FailureClass::Administrator | FailureClass::Viewer(_) | FailureClass::Unknown
    )
}

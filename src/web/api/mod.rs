//! The JSON API, on the paths that clients of Posit Connect use. Authenticated by API key only,
//! never by cookie, so requests from other sites cannot act for a signed-in person (no anti-forgery
//! token needed). Error numbers (`code`) and field names follow Connect.

pub mod audit;
pub mod bundles;
pub mod content;
pub mod exchange;
pub mod groups;
pub mod integrations;
pub mod issuer;
pub mod openapi;
pub mod server;
pub mod users;

use crate::{
    domain::{Id, Timestamp, form::FieldError, person::Role},
    http::{
        client_address::audit_origin,
        codes::Code,
        presented_key::{PresentedKey, presented_key},
        query::parameter,
    },
    service::{Actor, Error, Services, people::api_keys::Caller},
    vault::visitor_key,
};
use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError, dev::Payload, http::StatusCode, web,
};
use futures_util::{StreamExt as _, future::LocalBoxFuture};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Limit for a request body, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// An error response: `code` and `error` as in Connect, repeated under the other names that clients
/// read (`error_code`, `error_message`, `error_description`).
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    /// Connect's error number.
    pub code: Code,
    pub error: String,
    /// Details for programs; null for most errors.
    pub payload: Value,
    /// Value of `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// What failed inside, for the log.
    pub source: Option<Box<Error>>,
}

impl ApiError {
    /// An error without payload. An invalid `status` becomes 500.
    pub fn new(status: u16, code: Code, error: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            status,
            code,
            error: error.into(),
            payload: Value::Null,
            retry_after: None,
            source: None,
        }
    }
    /// An error with status 400.
    pub fn bad(code: Code, error: impl Into<String>) -> Self {
        Self::new(400, code, error)
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.code)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after {
            response.insert_header(("Retry-After", seconds.to_string()));
        }
        response.json(json!({
            "code": self.code,
            "error": self.error,
            "error_code": self.code,
            "error_message": self.error,
            "error_description": self.error,
            "payload": self.payload,
        }))
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => {
                ApiError::new(404, Code::NotFound, "The requested object does not exist.")
            }
            Error::Forbidden(_) => ApiError::new(
                403,
                Code::Forbidden,
                "You don't have permission to perform this operation.",
            ),
            Error::Conflict(_) | Error::ChangedMeanwhile(_) => {
                ApiError::new(409, Code::Conflict, error.to_string())
            }
            Error::Invalid(problems) => invalid(&problems, |_| Code::Invalid),
            Error::TooMany(wait) => ApiError {
                retry_after: Some(wait.as_secs()),
                ..ApiError::new(429, Code::Invalid, "Too many tries. Wait, then try again.")
            },
            Error::Overloaded(wait) => ApiError {
                retry_after: Some(wait.as_secs()),
                ..ApiError::new(503, Code::Internal, "The portal is busy. Try again.")
            },
            busy if busy.is_busy() => ApiError {
                retry_after: Some(2),
                source: Some(Box::new(busy)),
                ..ApiError::new(
                    503,
                    Code::Internal,
                    "The portal's database is busy. Try again.",
                )
            },
            inner @ (Error::Store(_) | Error::Vault(_) | Error::Internal(_)) => ApiError {
                source: Some(Box::new(inner)),
                ..ApiError::new(
                    500,
                    Code::Internal,
                    "An internal error occurred. The operator finds the reason in the log.",
                )
            },
        }
    }
}

/// A 400 that lists all field errors, one sentence each with the field's name. `code` maps the
/// first error's field to the error number.
pub fn invalid(problems: &[FieldError], code: impl Fn(&str) -> Code) -> ApiError {
    let first = problems
        .first()
        .map_or(Code::Invalid, |problem| code(&problem.key));
    let sentences: Vec<String> = problems
        .iter()
        .map(|problem| {
            if problem.key.is_empty() {
                problem.message.clone()
            } else {
                format!("{}: {}", problem.key, problem.message)
            }
        })
        .collect();
    ApiError::bad(first, sentences.join(" "))
}

/// What API handlers return.
pub type ApiResult = Result<HttpResponse, ApiError>;

/// 200 with this JSON.
pub fn ok(value: &Value) -> HttpResponse {
    HttpResponse::Ok().json(value)
}

/// Parses an id from a path or a body, in either case of letters; else 400 with `code`.
pub fn guid<T>(text: &str, code: Code) -> Result<Id<T>, ApiError> {
    text.to_ascii_lowercase().parse().map_err(|_| {
        ApiError::bad(
            code,
            format!(
                "“{}” is not a GUID.",
                text.chars().take(60).collect::<String>()
            ),
        )
    })
}

/// The caller of the API key of a request, from `Authorization` or, if that holds no key,
/// `X-RSC-Authorization`. `Ok(None)` without a key; 401 for an unknown or expired key, or for
/// several headers.
pub async fn key_of(
    request: &HttpRequest,
    service: &Services,
) -> Result<Option<Arc<Caller>>, ApiError> {
    let wrong = |sentence| ApiError::new(401, Code::UnknownKey, sentence);
    let key = match presented_key(request.headers()) {
        PresentedKey::None => return Ok(None),
        PresentedKey::Several => {
            return Err(wrong("Send one Authorization header, not several."));
        }
        PresentedKey::OtherScheme => None,
        PresentedKey::Key(key) if visitor_key::is_one(key) => service.exchange.visitor(key).await?,
        PresentedKey::Key(key) => service.api_keys.caller(key).await?,
    };
    key.map(Some)
        .ok_or_else(|| wrong("The API key is unknown or has expired."))
}

fn service_of(request: &HttpRequest) -> Result<Arc<Services>, ApiError> {
    let data = request
        .app_data::<web::Data<Services>>()
        .ok_or(Error::Internal("the request has no services"))?;
    Ok(data.clone().into_inner())
}

/// A caller with any API key, content keys included.
pub struct AnyKey {
    pub caller: Arc<Caller>,
    pub service: Arc<Services>,
    request: HttpRequest,
}

impl AnyKey {
    async fn of(request: HttpRequest) -> Result<Self, ApiError> {
        let service = service_of(&request)?;
        let caller = key_of(&request, &service).await?.ok_or_else(|| {
            ApiError::new(
                401,
                Code::NotSignedIn,
                "You must be signed in: send an API key as “Authorization: Key …”.",
            )
        })?;
        Ok(Self {
            caller,
            service,
            request,
        })
    }

    /// The caller as the service's actor, with the role that the key grants.
    pub fn actor(&self) -> Actor {
        Actor {
            person: self.caller.person.clone(),
            role: self.caller.role,
            session: None,
            origin: audit_origin(&self.request, &self.service),
        }
    }
}

impl FromRequest for AnyKey {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        Box::pin(Self::of(request.clone()))
    }
}

/// A caller with a person's API key. Content keys are refused with 403.
pub struct PersonalKey {
    pub actor: Actor,
    /// A visitor key, see [`Caller::is_visitor`].
    pub is_visitor: bool,
    /// When the key ends.
    pub ends_at: Option<Timestamp>,
    pub service: Arc<Services>,
}

impl FromRequest for PersonalKey {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let any = AnyKey::of(request).await?;
            if any.caller.content.is_some() {
                return Err(Error::Forbidden("A content key only exchanges tokens.").into());
            }
            Ok(Self {
                actor: any.actor(),
                is_visitor: any.caller.is_visitor,
                ends_at: any.caller.expires_at,
                service: any.service,
            })
        })
    }
}

/// A JSON object. The content type is not checked: it guards against cross-site forms, and this API
/// accepts no cookies.
pub struct JsonObject(pub Map<String, Value>);

impl FromRequest for JsonObject {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;
    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_body(payload).await?;
            match serde_json::from_slice(&bytes) {
                Ok(Value::Object(map)) => Ok(Self(map)),
                Ok(_) => Err(ApiError::bad(
                    Code::Invalid,
                    "The body must be a JSON object.",
                )),
                Err(error) => Err(ApiError::bad(
                    Code::Invalid,
                    format!(
                        "The body is not JSON: line {}, column {}.",
                        error.line(),
                        error.column()
                    ),
                )),
            }
        })
    }
}

/// Reads a whole body: 408 after [`crate::http::body::BODY_TIMEOUT`], 413 beyond 1 MiB.
pub async fn read_body(payload: Payload) -> Result<web::Bytes, ApiError> {
    let whole = tokio::time::timeout(crate::http::body::BODY_TIMEOUT, read(payload)).await;
    whole.unwrap_or_else(|_| {
        Err(ApiError::new(
            408,
            Code::Invalid,
            "The body did not arrive in time.",
        ))
    })
}

/// Most bodies arrive in one chunk, which is returned without a copy.
async fn read(mut payload: Payload) -> Result<web::Bytes, ApiError> {
    let mut whole = web::Bytes::new();
    let mut rest = web::BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ApiError::bad(Code::Invalid, "The body broke off."))?;
        if whole.len().max(rest.len()) + chunk.len() > MAX_BODY_BYTES {
            return Err(ApiError::new(
                413,
                Code::Invalid,
                "The body is larger than 1 MiB.",
            ));
        }
        if whole.is_empty() {
            whole = chunk;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&whole);
            }
            rest.extend_from_slice(&chunk);
        }
    }
    Ok(if rest.is_empty() {
        whole
    } else {
        rest.freeze()
    })
}

impl JsonObject {
    /// A string; `None` if the key is absent or null; 400 with `code` for another type.
    pub fn text(&self, key: &str, code: Code) -> Result<Option<String>, ApiError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(ApiError::bad(code, format!("{key}: must be a text."))),
        }
    }
    /// A role; `None` if the key is absent or null; 400 for anything else.
    pub fn role(&self, key: &str) -> Result<Option<Role>, ApiError> {
        match self.text(key, Code::Invalid)? {
            None => Ok(None),
            Some(text) => Role::parse(&text).map(Some).ok_or_else(|| {
                ApiError::bad(
                    Code::Invalid,
                    format!("{key}: must be administrator, publisher or viewer."),
                )
            }),
        }
    }
}

/// Whether a query parameter is `true`, `True` or `1`: clients send what their language prints.
pub fn is_true(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1")
}

/// One page of a list that is already in memory. Query: `page_number` from 1, `page_size` from 1 to
/// 500. Answers `results`, `current_page` and `total`.
pub fn page_of<T>(
    request: &HttpRequest,
    all: &[T],
    default_size: usize,
    show: impl Fn(&T) -> Value,
) -> ApiResult {
    let number = |name: &str, default: usize, most: usize| -> Result<usize, ApiError> {
        match parameter(request, name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(value) if (1..=most).contains(&value) => Ok(value),
                _ => Err(ApiError::bad(
                    Code::Invalid,
                    format!("{name}: must be a whole number from 1 to {most}."),
                )),
            },
        }
    };
    let (page, size) = (
        number("page_number", 1, 1_000_000)?,
        number("page_size", default_size, 500)?,
    );
    let results: Vec<Value> = all
        .iter()
        .skip((page - 1) * size)
        .take(size)
        .map(show)
        .collect();
    Ok(ok(
        &json!({"results": results, "current_page": page, "total": all.len()}),
    ))
}

/// 404 for every other path below `/__api__`, with or without a key.
pub async fn unknown() -> ApiResult {
    Err(Error::NotFound.into())
}

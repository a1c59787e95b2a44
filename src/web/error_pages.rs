//! How errors are shown: as pages for people, as JSON for programs, each with a reference. Also the
//! outermost middleware ([`finish_response`]), which adds the correlation id and the security
//! headers to every response, and leaves responses from apps as they are.

use crate::{
    domain::{audit::Action, origins::HostKind},
    http::{
        body::LengthOnly,
        codes::Code,
        correlation::{CORRELATION_ID, Correlation, request_span},
        errors::{ErrorDetails, FromContent, WebError},
        host::{is_content, requested_host},
        navigation::is_navigation,
        sessions::has_too_many_cookies,
    },
    service::{self, Services},
    traces,
    web::{
        view::{Chrome, NavLink, SignedInPerson},
        visitor::{person_of_request, theme_of},
    },
};
use actix_http::ConnectionType;
use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use askama::Template;
use serde_json::json;
use tracing::Instrument as _;

/// The page for an error or an unusual outcome: sentences, and links onward.
#[derive(Template)]
#[template(path = "pages/problem.html")]
pub struct ProblemPage {
    pub chrome: Chrome,
    pub lines: Vec<String>,
    /// Text to copy and send to another person, such as a request for approval.
    pub copy: Option<String>,
    pub links: Vec<NavLink>,
    /// The correlation id, which finds the log lines; empty to show none.
    pub reference: String,
}

/// The `Content-Security-Policy` of every page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Adds `origins` to the page's `form-action`. Needed because Chromium applies `form-action` to the
/// whole chain of redirects after a form is posted.
pub fn allow_forms_to(response: &mut HttpResponse, origins: &[String]) {
    let policy = CONTENT_SECURITY_POLICY.replace(
        "form-action 'self'",
        &format!("form-action 'self' {}", origins.join(" ")),
    );
    if let Ok(value) = HeaderValue::try_from(policy) {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, value);
    }
}

/// The browser session could not be read or written. At this place there is no request any more that
/// a page could be made for.
#[derive(Debug, thiserror::Error)]
#[error("The portal's database is busy. Try again in a moment.")]
struct SessionUnavailable;

impl ResponseError for SessionUnavailable {
    fn status_code(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::ServiceUnavailable()
            .insert_header((header::RETRY_AFTER, "2"))
            .content_type("text/plain; charset=utf-8")
            .body(self.to_string());
        add_security_headers(response.headers_mut(), false);
        response
    }
}

/// The outermost middleware: sets the correlation id, refuses TRACE, CONNECT and oversized cookies,
/// renders errors, logs the request, and adds the security headers.
pub async fn finish_response(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let correlation = Correlation::of(request.headers());
    let value = correlation.value().clone();
    request.extensions_mut().insert(correlation);
    let id = value.to_str().unwrap_or("");
    let started = std::time::Instant::now();
    let method = request.method().clone();
    // Of the portal only: an app answers HEAD and OPTIONS itself.
    let is_head = method == Method::HEAD && has_head(&request);
    if is_head {
        // RFC 9110 section 9.3.2: as GET, without the body.
        request.head_mut().method = Method::GET;
    }
    // A preflight of another site (CORS) stays refused.
    let asks_for_methods = method == Method::OPTIONS
        && !request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let span = request_span(id, request.headers());
    let mut response = if asks_for_methods && is_for_portal(&request) {
        request.into_response(
            HttpResponse::NoContent()
                .insert_header((
                    header::ALLOW,
                    "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
                ))
                .finish(),
        )
    } else if method == Method::TRACE || method == Method::CONNECT {
        request.into_response(HttpResponse::MethodNotAllowed().finish())
    } else if has_too_many_cookies(request.headers()) {
        let why = WebError::Page(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "Too many cookies".into(),
            "Your browser sends more cookies for this site than fit. Delete this site's cookies, then sign in again.".into(),
        );
        request.into_response(why.error_response())
    } else {
        match next.call(request).instrument(span.clone()).await {
            Ok(response) => response.map_into_boxed_body(),
            // From the session middleware.
            Err(error) => {
                tracing::error!(reason = ?error, "the browser session cannot be read or written");
                return Err(SessionUnavailable.into());
            }
        }
    };
    log_failure(&response);
    let told = response
        .response()
        .extensions()
        .get::<ErrorDetails>()
        .cloned();
    audit_refusal(&response).await;
    // Responses from apps pass unchanged, including an app's own empty 404.
    let from_content = response
        .response()
        .extensions()
        .get::<FromContent>()
        .is_some();
    let bare = !from_content
        && response.status() == StatusCode::NOT_FOUND
        && response.response().error().is_none()
        && told.is_none()
        && is_empty(&response);
    if let Some(told) = told {
        response = render_error(response, told, id).await;
    } else if bare {
        let (_, told) = WebError::Service(service::Error::NotFound).details();
        response = render_error(response, told, id).await;
    } else if let Some(error) = response.response().error().filter(|error| {
        error.as_error::<crate::web::api::ApiError>().is_none()
            && error.as_error::<WebError>().is_none()
    }) {
        // An error of actix itself: its text goes to the log only.
        tracing::debug!(reason = %error, "framework error");
        let status = response.status();
        let (_, told) = WebError::Page(
            status,
            "That did not work".into(),
            "The request could not be read.".into(),
        )
        .details();
        response = render_error(response, told, id).await;
    }
    let route = || {
        if from_content {
            Some("content".to_owned())
        } else {
            response.request().match_pattern()
        }
    };
    traces::end_request(&span, method.as_str(), route, response.status().as_u16());
    let path = response.request().path();
    if !from_content {
        tracing::info!(correlation = id, method = %method, path = %redact_path(path), status = response.status().as_u16(), ms = started.elapsed().as_millis(), "request");
    }
    if response.status() == StatusCode::REQUEST_TIMEOUT && !from_content {
        // The body is incomplete: close the TCP connection instead of waiting for the rest.
        response
            .response_mut()
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    let path = response.request().path();
    let long_lived = path.starts_with("/__valetkey__/static/");
    let services = response.request().app_data::<web::Data<Services>>();
    let hsts = services.and_then(|services| services.core.settings.hsts.clone());
    let headers = response.headers_mut();
    if !from_content {
        add_security_headers(headers, long_lived);
    }
    headers.insert(CORRELATION_ID, value);
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    if is_head {
        return Ok(response.map_body(|_, body| LengthOnly::of(&body).boxed()));
    }
    Ok(response)
}

/// Whether a request is for the portal itself, not for content.
fn is_for_portal(request: &ServiceRequest) -> bool {
    let services = request.app_data::<web::Data<Services>>();
    services.is_some_and(|services| !is_content(request.head(), &services.core.settings.origins))
}

/// Whether HEAD is answered as GET: not where a GET uses something up, such as a one-time link or an
/// OAuth callback, which programs that look at links must not do.
fn has_head(request: &ServiceRequest) -> bool {
    const USED_UP: [&str; 4] = ["/__oauth__/", "/login/organisation", "/setup/", "/enter/"];
    let path = request.path();
    is_for_portal(request) && !USED_UP.iter().any(|start| path.starts_with(start))
}

/// Headers of every response of the portal.
static SECURITY_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Adds [`SECURITY_HEADERS`], unless the response has them. `long_lived`: it may be cached.
fn add_security_headers(headers: &mut HeaderMap, long_lived: bool) {
    for (name, value) in &SECURITY_HEADERS {
        if !headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
    if !long_lived && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Logs why a request failed inside, with the sources of the error. The client only gets the
/// reference.
fn log_failure(response: &ServiceResponse<BoxBody>) {
    let Some(error) = response.response().error() else {
        return;
    };
    let inner = match error.as_error::<WebError>() {
        Some(WebError::Service(inner)) => Some(inner),
        Some(_) => None,
        None => error
            .as_error::<crate::web::api::ApiError>()
            .and_then(|api| api.source.as_deref()),
    };
    if let Some(inner) = inner {
        inner.log("a request");
    }
}

/// Writes an audit record when a signed-in person is refused access, a form fails the forgery
/// check, or an API key is unknown. The service writes at most one per minute for each caller and
/// reason, with a count, so that a loop in an app cannot fill the audit log or the disk.
async fn audit_refusal(response: &ServiceResponse<BoxBody>) {
    let Some(error) = response.response().error() else {
        return;
    };
    let api = error.as_error::<crate::web::api::ApiError>();
    let why = match (error.as_error::<WebError>(), api.map(|api| api.code)) {
        (
            Some(
                WebError::Service(service::Error::Forbidden(_))
                | WebError::MayNotOpen(_)
                | WebError::Page(StatusCode::FORBIDDEN, ..),
            ),
            _,
        ) => "not allowed",
        (Some(WebError::Forgery), _) => "form from elsewhere",
        (_, Some(Code::Forbidden)) => "not allowed to this key",
        (_, Some(Code::UnknownKey)) => "API key unknown",
        _ => return,
    };
    let request = response.request();
    let Some(service) = request.app_data::<web::Data<Services>>() else {
        return;
    };
    // Refused exchanges, and refusals on content hosts, write their own audit records.
    let exchange =
        request.path().ends_with("/integrations/credentials") && why != "API key unknown";
    if exchange
        || service
            .core
            .settings
            .origins
            .host(requested_host(request.head()))
            != HostKind::Portal
    {
        return;
    }
    let person = match api {
        Some(_) => crate::web::api::key_of(request, service)
            .await
            .ok()
            .flatten()
            .map(|caller| caller.person.clone()),
        None => person_of_request(request).await,
    };
    let path: String = redact_path(request.path()).chars().take(200).collect();
    service.audit.note_refusal(
        Action::AccessRefused,
        person.as_ref(),
        &crate::http::client_address::audit_origin(request, service),
        why,
        path,
    );
}

fn is_empty(response: &ServiceResponse<BoxBody>) -> bool {
    use actix_web::body::BodySize;
    matches!(
        response.response().body().size(),
        BodySize::None | BodySize::Sized(0)
    )
}

/// The path for logs and audit records. Only these two paths contain a secret; it is cut off.
fn redact_path(path: &str) -> &str {
    if path.starts_with("/setup/") {
        "/setup/…"
    } else if path.starts_with("/account/shown/") {
        "/account/shown/…"
    } else {
        path
    }
}

/// The frame of an error page. `portal`: the portal's base URL, on another host. The session itself
/// is out of reach here, behind its middleware, so the frame has no forms.
async fn chrome_of(request: &HttpRequest, portal: Option<&str>, title: &str) -> Chrome {
    let services = request.app_data::<web::Data<Services>>();
    let contact = services.and_then(|services| services.core.settings.contact.clone());
    let person = match portal {
        None => person_of_request(request).await,
        Some(_) => None,
    };
    Chrome {
        home: portal.unwrap_or_default().to_owned(),
        contact: contact.unwrap_or_default(),
        person: person
            .as_ref()
            .map(|person| SignedInPerson::new(person, person.role)),
        theme: theme_of(request),
        ..Chrome::anonymous(title)
    }
}

/// Renders an error: JSON below `/__api__` and for requests by scripts, a redirect to the sign-in
/// page where that helps, an error page otherwise.
async fn render_error(
    response: ServiceResponse<BoxBody>,
    told: ErrorDetails,
    reference: &str,
) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let (request, _) = response.into_parts();
    let api = request.path().starts_with("/__api__");
    let service = request.app_data::<web::Data<Services>>().cloned();
    // On content hosts the portal's session cookie is not sent, so the page is anonymous and its
    // links are absolute, back to the portal.
    let portal = service.filter(|service| {
        matches!(
            service
                .core
                .settings
                .origins
                .host(requested_host(request.head())),
            HostKind::Content | HostKind::Item(_)
        )
    });
    let portal = portal
        .as_ref()
        .map(|service| service.core.addresses.base().to_owned());
    let answer = if api
        || !is_navigation(&request) && (request.method() != Method::POST || portal.is_some())
    {
        let mut payload = json!({"reference": reference});
        if let Some(path) = &told.login_path {
            let service = request.app_data::<web::Data<Services>>();
            payload["login_url"] = json!(service.map_or_else(
                || path.clone(),
                |service| service.core.addresses.absolute(path)
            ));
        }
        let text = told.lines.join(" ");
        HttpResponse::build(status)
            .json(json!({"code": told.code, "error": text, "error_code": told.code, "error_message": text, "payload": payload}))
    } else if let Some(path) = &told.login_path {
        HttpResponse::SeeOther()
            .insert_header((
                header::LOCATION,
                format!("{}{path}", portal.unwrap_or_default()),
            ))
            .finish()
    } else {
        let chrome = chrome_of(&request, portal.as_deref(), &told.title).await;
        let mut links = Vec::new();
        if let Some((path, words)) = &told.help {
            links.push(NavLink::new(format!("{}{path}", chrome.home), *words));
        }
        // A page that failed for a moment: the same address again.
        let is_momentary = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        if is_momentary && request.method() == Method::GET {
            links.push(NavLink::new(request.uri().to_string(), "Try again"));
        }
        links.push(NavLink::new(
            format!("{}/content", chrome.home),
            "Go to Content",
        ));
        let page = ProblemPage {
            chrome,
            lines: told.lines,
            copy: None,
            links,
            reference: reference.to_owned(),
        };
        match page.render() {
            Ok(html) => HttpResponse::build(status)
                .content_type("text/html; charset=utf-8")
                .body(html),
            Err(_) => HttpResponse::new(status),
        }
    };
    let mut answer = answer;
    let retry_after = told
        .retry_after
        .or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(2));
    if let Some(seconds) = retry_after {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    ServiceResponse::new(request, answer)
}

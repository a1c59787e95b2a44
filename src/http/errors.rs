//! Why a handler stopped, with the status, the texts and the error number that belong to it. How it
//! is shown (a page or JSON) is decided by `web::error_pages`, which knows pages.

use crate::{
    domain::{Id, addresses, content::Content, return_path::ReturnPath},
    http::codes::Code,
    service,
};
use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};

/// Why a handler stopped. `web::error_pages` turns it into a page or JSON.
#[derive(Debug)]
pub enum WebError {
    Service(service::Error),
    /// No live session: sign in first, then continue at this path.
    SignIn(Option<ReturnPath>),
    /// The anti-forgery token or the request's origin does not match.
    Forgery,
    /// The person may not open this item (403).
    MayNotOpen(Id<Content>),
    /// A status, a title and a sentence, written for people.
    Page(StatusCode, String, String),
    /// The form is larger than 64 KiB (413).
    TooLarge,
    /// The body did not arrive before its deadline (408).
    BodyTimeout,
    /// Not an error: 303 to another page of the portal that comes first.
    Redirect(String),
    /// A page that is already rendered, sent as it is.
    Rendered(StatusCode, String),
}

impl From<service::Error> for WebError {
    fn from(error: service::Error) -> Self {
        WebError::Service(error)
    }
}

impl std::fmt::Display for WebError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("request stopped")
    }
}

/// What to tell the client. A response carries it as an extension to `web::error_pages`, which
/// knows the request and so chooses between page and JSON.
#[derive(Clone)]
pub struct ErrorDetails {
    pub title: String,
    pub lines: Vec<String>,
    /// The error number of the Connect-compatible API.
    pub code: Code,
    /// The path of the sign-in page, if signing in helps.
    pub login_path: Option<String>,
    /// Value of `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// A page of the portal that helps: its path, and the words of the link.
    pub help: Option<(String, &'static str)>,
}

/// Marks a response that comes from an app: the portal's error pages, security headers and access
/// log do not apply to it.
pub struct FromContent;

impl WebError {
    /// The 404 for an item without a process; tells editors how to add one.
    pub fn no_app_yet(may_edit: bool) -> Self {
        let line = if may_edit {
            "Enter the address of the running app on its settings page."
        } else {
            "Its publisher has not said yet where the app runs."
        };
        WebError::Page(
            StatusCode::NOT_FOUND,
            "There is no app here yet".into(),
            line.into(),
        )
    }

    /// 503: too many requests to the app are under way.
    pub fn app_busy() -> Self {
        WebError::Page(
            StatusCode::SERVICE_UNAVAILABLE,
            "This app is busy".into(),
            "Too many requests to it are under way. Try again in a moment; if it stays like this, tell its publisher.".into(),
        )
    }

    /// 429: this viewer has too much open at the app.
    pub fn too_much_open() -> Self {
        WebError::Page(
            StatusCode::TOO_MANY_REQUESTS,
            "You have too much open here".into(),
            "Too many requests of yours to this app are under way. Close some of its windows, then try again.".into(),
        )
    }

    /// 400: the request's body is malformed, or ended before it was complete.
    pub fn malformed_body() -> Self {
        WebError::Page(
            StatusCode::BAD_REQUEST,
            "What was sent is not complete".into(),
            "The request's body broke off, or does not fit its own length. The app is not the cause. Send it again.".into(),
        )
    }

    /// 403: a page of another site sent the request.
    pub fn from_elsewhere() -> Self {
        WebError::Page(
            StatusCode::FORBIDDEN,
            "Another site sent this request".into(),
            "Only the app's own pages may send it, since the app acts for you. The app's publisher can allow the other site in the app's settings. You can open the app by its address.".into(),
        )
    }

    /// Status, texts and error number of this error.
    pub fn details(&self) -> (StatusCode, ErrorDetails) {
        let told = |status, title: &str, line: &str, code| {
            (
                status,
                ErrorDetails {
                    title: title.into(),
                    lines: vec![line.into()],
                    code,
                    login_path: None,
                    retry_after: None,
                    help: None,
                },
            )
        };
        match self {
            WebError::Service(service::Error::NotFound) => told(
                StatusCode::NOT_FOUND,
                "Nothing here",
                "This address leads nowhere, or to something that you may not see.",
                Code::NotFound,
            ),
            WebError::Service(service::Error::Forbidden(why)) => {
                told(StatusCode::FORBIDDEN, "Not allowed", why, Code::Forbidden)
            }
            WebError::Service(service::Error::Invalid(problems)) => {
                let (status, told) = told(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "That does not fit",
                    "",
                    Code::Invalid,
                );
                (
                    status,
                    ErrorDetails {
                        lines: problems
                            .iter()
                            .map(|problem| problem.message.clone())
                            .collect(),
                        ..told
                    },
                )
            }
            WebError::Service(service::Error::Conflict(why)) => {
                told(StatusCode::CONFLICT, "That is taken", why, Code::Conflict)
            }
            WebError::Service(changed @ service::Error::ChangedMeanwhile(_)) => told(
                StatusCode::CONFLICT,
                "Changed meanwhile",
                &changed.to_string(),
                Code::Conflict,
            ),
            WebError::Service(busy) if busy.is_busy() => told(
                StatusCode::SERVICE_UNAVAILABLE,
                "The portal is busy",
                "The database is not answering in time. Nothing was changed. Try again in a moment; if it stays like this, tell the operator.",
                Code::Internal,
            ),
            WebError::Service(service::Error::Overloaded(wait)) => {
                let (status, told) = told(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The portal is busy",
                    "Too many people sign in at the same time, or somebody tries many passwords. Nothing was changed. Try again in a moment.",
                    Code::Internal,
                );
                (
                    status,
                    ErrorDetails {
                        retry_after: Some(wait.as_secs()),
                        ..told
                    },
                )
            }
            WebError::Service(service::Error::TooMany(wait)) => {
                let minutes = wait.as_secs().div_ceil(60);
                let line = format!(
                    "There were too many tries for this name from this network. Try again in {minutes} minute{}. Your account is not locked, and an administrator can set a new password.",
                    if minutes == 1 { "" } else { "s" }
                );
                let (status, told) = told(
                    StatusCode::TOO_MANY_REQUESTS,
                    "Wait a moment",
                    &line,
                    Code::Invalid,
                );
                (
                    status,
                    ErrorDetails {
                        retry_after: Some(wait.as_secs()),
                        ..told
                    },
                )
            }
            WebError::Service(
                service::Error::Store(_) | service::Error::Vault(_) | service::Error::Internal(_),
            ) => told(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong here",
                "This is not your fault. The operator finds the reason in the log, under the reference below.",
                Code::Internal,
            ),
            WebError::SignIn(back) => {
                let (status, told) = told(
                    StatusCode::UNAUTHORIZED,
                    "Sign in first",
                    "Your session has ended, or you have not signed in yet.",
                    Code::NotSignedIn,
                );
                (
                    status,
                    ErrorDetails {
                        login_path: Some(addresses::login(back.as_ref())),
                        ..told
                    },
                )
            }
            WebError::Forgery => told(
                StatusCode::FORBIDDEN,
                "This form is out of date",
                "It was opened in another session, or sent from another site. Nothing was changed. Open the page again and repeat.",
                Code::Forgery,
            ),
            WebError::MayNotOpen(item) => {
                let (status, told) = told(
                    StatusCode::FORBIDDEN,
                    "You may not open this content",
                    "Its publisher decides who may, and you are not on the list.",
                    Code::Forbidden,
                );
                (
                    status,
                    ErrorDetails {
                        help: Some((addresses::request_access(*item), "Request access")),
                        ..told
                    },
                )
            }
            WebError::Page(status, title, line) => {
                let code = match *status {
                    StatusCode::NOT_FOUND => Code::NotFound,
                    StatusCode::FORBIDDEN => Code::Forbidden,
                    _ => Code::Invalid,
                };
                let (status, told) = told(*status, title, line, code);
                let busy = matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                );
                (
                    status,
                    ErrorDetails {
                        retry_after: busy.then_some(1),
                        ..told
                    },
                )
            }
            WebError::Redirect(_) => told(StatusCode::SEE_OTHER, "", "", Code::Invalid),
            WebError::Rendered(status, _) => told(*status, "", "", Code::Invalid),
            WebError::BodyTimeout => told(
                StatusCode::REQUEST_TIMEOUT,
                "This took too long",
                "What you sent did not arrive in time. Check the connection, then send it again.",
                Code::Invalid,
            ),
            WebError::TooLarge => told(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Too much text",
                "A form here takes at most 64 KiB.",
                Code::Invalid,
            ),
        }
    }
}

impl ResponseError for WebError {
    fn status_code(&self) -> StatusCode {
        self.details().0
    }
    fn error_response(&self) -> HttpResponse {
        match self {
            WebError::Redirect(path) => {
                return HttpResponse::SeeOther()
                    .insert_header((header::LOCATION, path.as_str()))
                    .finish();
            }
            WebError::Rendered(status, html) => {
                return HttpResponse::build(*status)
                    .content_type("text/html; charset=utf-8")
                    .body(html.clone());
            }
            _ => {}
        }
        let (status, told) = self.details();
        let mut response = HttpResponse::new(status);
        response.extensions_mut().insert(told);
        response
    }
}

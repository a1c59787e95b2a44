//! Whether a browser navigates, and where it may return to afterwards.

use crate::domain::return_path::ReturnPath;
use actix_web::{
    HttpRequest,
    http::{
        Method,
        header::{self, HeaderName},
    },
};

/// Fetch Metadata: how the page that sends a request is related to where it goes.
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Fetch Metadata: what kind of request it is.
pub const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// Fetch Metadata: what the response is for.
pub const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether the browser is navigating and can be shown a page, as opposed to a script's request.
/// Decided by `Sec-Fetch-Mode` and `Sec-Fetch-Dest`; without them, by `Accept: text/html` and no
/// `X-Requested-With`. Never true for upgrades and for methods other than GET, HEAD and POST.
pub fn is_navigation(request: &HttpRequest) -> bool {
    let text = |name: HeaderName| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if request.method() != Method::GET
        && request.method() != Method::HEAD
        && request.method() != Method::POST
    {
        return false;
    }
    if request.headers().contains_key(header::UPGRADE) {
        return false;
    }
    match text(SEC_FETCH_MODE) {
        Some(mode) => {
            mode == "navigate" && text(SEC_FETCH_DEST).is_none_or(|dest| dest == "document")
        }
        None => {
            text(header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
                && text(HeaderName::from_static("x-requested-with")).is_none()
        }
    }
}

/// The requested path and query, if it can be returned to after sign-in. OAuth callbacks cannot:
/// they hold a one-time code that is bound to one session.
pub fn return_path_of(request: &HttpRequest) -> Option<ReturnPath> {
    ReturnPath::parse(request.uri().path_and_query()?.as_str())
        .filter(|path| !path.as_str().starts_with("/__oauth__/"))
}

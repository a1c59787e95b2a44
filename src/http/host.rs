//! The host that a request asks for.

use super::presented_key::{PresentedKey, presented_key};
use crate::domain::origins::{HostKind, Origins};
use actix_web::{dev::RequestHead, http::header};

/// The host that a request was sent to (`Host`, or `:authority` in HTTP/2). Empty if the two
/// differ, or if there is none.
pub fn requested_host(head: &RequestHead) -> &str {
    let host = head
        .headers()
        .get(header::HOST)
        .map(|host| host.to_str().unwrap_or(""));
    match (
        head.uri.authority().map(|authority| authority.as_str()),
        host,
    ) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => "",
        (Some(authority), _) => authority,
        (None, host) => host.unwrap_or(""),
    }
}

/// Whether a request is for content, not for the portal itself.
pub fn is_content(head: &RequestHead, origins: &Origins) -> bool {
    match origins.host(requested_host(head)) {
        HostKind::Content | HostKind::Item(_) => true,
        HostKind::Portal => origins.is_same_origin() && is_below_content(head.uri.path()),
        HostKind::Unknown => false,
    }
}

/// Whether a program opens content at the portal's own host with an API key. (Browsers are
/// redirected to where content runs.)
pub fn is_content_by_key(head: &RequestHead, origins: &Origins) -> bool {
    origins.host(requested_host(head)) == HostKind::Portal
        && is_below_content(head.uri.path())
        // Without the slash behind the id the page redirects.
        && head.uri.path().len() > "/content/".len() + 36
        && matches!(presented_key(&head.headers), PresentedKey::Key(_))
}

/// Whether the path is `/content/{guid}` or below it; `/content/new` is a page of the portal.
fn is_below_content(path: &str) -> bool {
    path.strip_prefix("/content/").is_some_and(|rest| {
        rest.len() >= 36 && rest.as_bytes().get(36).is_none_or(|byte| *byte == b'/')
    })
}

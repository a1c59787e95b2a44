//! The host that a request asks for.

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

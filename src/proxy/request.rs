//! What an app is told of a request: the request line, and the headers that only the portal sets.
//! Which of the browser's own headers pass is decided in [`headers`].

use crate::{
    domain::origins::ContentLocation,
    http::{client_address::forwarded_hops, host::requested_host},
    proxy::{gate::Pass, headers, state::Proxy, upstream::Target},
    service::Services,
};
use actix_web::{
    dev::RequestHead,
    http::{
        Method,
        header::{self, HeaderName, HeaderValue},
    },
};
use std::{io::Write as _, net::IpAddr};

/// Appends the request line (`GET /path?query HTTP/1.1`). The path is passed on as the browser sent
/// it, still percent-encoded.
pub(super) fn request_line(
    out: &mut Vec<u8>,
    method: &Method,
    target: &Target,
    pass: &Pass,
    place: &ContentLocation,
    rest: &str,
    query: Option<&str>,
) {
    let base = if pass.keeps_prefix() {
        place.base.as_str()
    } else {
        "/"
    };
    for part in [method.as_str(), " ", &target.prefix, base, rest] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends the headers that only the portal sets: the session token, who the viewer is, `Host`, `Via`, and those
/// that describe the original request. Clients' copies of these never pass
/// (`headers::request_passes`).
pub(super) fn add_portal_headers(
    out: &mut Vec<u8>,
    head: &RequestHead,
    proxy: &Proxy,
    pass: &Pass,
    place: &ContentLocation,
    rest: &str,
    token: Option<&HeaderValue>,
) {
    let service = &proxy.service;
    let mut add = |name: &HeaderName, value: &[u8]| headers::append_line(out, name, value);
    // The Host that the browser sent: apps compare it with Origin.
    let host = requested_host(head);
    let proto = if service.core.settings.is_https() {
        "https"
    } else {
        "http"
    };
    add(&header::HOST, host.as_bytes());
    add(&headers::FORWARDED_HOST, host.as_bytes());
    add(&headers::FORWARDED_PROTO, proto.as_bytes());
    add_forwarded(&mut add, head, service, pass.client, host, proto);
    // The base URL and the prefix are slices of the full URL.
    let (start, end) = (
        place.origin.len(),
        place.origin.len() + place.base.len() - 1,
    );
    let query = head.uri.query();
    let length = end + 1 + rest.len() + query.map_or(0, |query| query.len() + 1);
    let mut asked = String::with_capacity(length);
    for part in [place.origin.as_str(), &place.base, rest] {
        asked.push_str(part);
    }
    if let Some(query) = query {
        asked.push('?');
        asked.push_str(query);
    }
    let asked = asked.as_bytes();
    if end > start {
        add(
            &headers::FORWARDED_PREFIX,
            asked.get(start..end).unwrap_or_default(),
        );
    }
    add(&headers::APP_BASE_URL, asked.get(..end).unwrap_or_default());
    add(&headers::REQUEST_URL, asked);
    add(&header::VIA, proxy.upstreams.via().as_bytes());
    if let Some(token) = token {
        add(&headers::SESSION_TOKEN, token.as_bytes());
    }
    if let Some(identity) = &pass.identity {
        add(&headers::CREDENTIALS, identity.as_bytes());
        add(&headers::SHINY_CREDENTIALS, identity.as_bytes());
    }
}

/// Appends the chain of client addresses, as `X-Forwarded-For`, and `client`, the one that counts, as
/// `Forwarded` (RFC 7239).
///
/// Only the chain of a trusted outer proxy is kept (`X-Forwarded-For`, or `Forwarded` without one).
/// Host and scheme are never taken from a proxy: the settings say what browsers see, common proxies
/// pass on what clients put into `X-Forwarded-Host` and `-Proto`, and a chain of two often says
/// `http` for a page on https. The same holds for `X-RSC-Request`.
fn add_forwarded(
    add: &mut impl FnMut(&HeaderName, &[u8]),
    head: &RequestHead,
    service: &Services,
    client: Option<IpAddr>,
    host: &str,
    proto: &str,
) {
    let Some(on_the_wire) = head.peer_addr.map(|address| address.ip().to_canonical()) else {
        return;
    };
    let mut chain = Vec::new();
    if service.core.settings.is_trusted_proxy(on_the_wire) {
        for before in head.headers().get_all(headers::FORWARDED_FOR) {
            chain.extend_from_slice(before.as_bytes());
            chain.extend_from_slice(b", ");
        }
        if chain.is_empty() {
            // The outer proxy sends only `Forwarded`: use its hops up to the first that is not an
            // IP address, nearest first.
            let before: Vec<IpAddr> = forwarded_hops(head)
                .into_iter()
                .map_while(|hop| hop)
                .collect();
            for ip in before.iter().rev() {
                let _ = write!(chain, "{ip}, ");
            }
        }
    }
    let _ = write!(chain, "{on_the_wire}");
    add(&headers::FORWARDED_FOR, &chain);
    chain.clear();
    // IPv6 addresses need brackets and quotes (RFC 7239 section 6).
    let _ = match client.unwrap_or(on_the_wire) {
        IpAddr::V4(ip) => write!(chain, "for={ip}"),
        IpAddr::V6(ip) => write!(chain, "for=\"[{ip}]\""),
    };
    let _ = write!(chain, ";host=\"{host}\";proto={proto}");
    add(&header::FORWARDED, &chain);
}

//! The client's address, through the chain of trusted proxies. Only the settings decide which
//! proxies are trusted.

use crate::{domain::audit::Origin, http::correlation::correlation, service::Services};
use actix_web::{
    HttpRequest,
    dev::RequestHead,
    http::header::{self, HeaderName, HeaderValue},
};
use std::net::{IpAddr, SocketAddr};

/// The client's IP address: the TCP peer or, if that is a trusted proxy, the nearest hop that is
/// not a trusted proxy. Stops at the first hop that is not an IP address: hops before it are
/// untrusted. `None` without a TCP peer.
pub fn client_ip(head: &RequestHead, service: &Services) -> Option<IpAddr> {
    let mut at = head.peer_addr?.ip().to_canonical();
    let settings = &service.core.settings;
    if !settings.is_trusted_proxy(at) {
        return Some(at);
    }
    for hop in forwarded_hops(head) {
        let Some(ip) = hop else { break };
        at = ip;
        if !settings.is_trusted_proxy(at) {
            break;
        }
    }
    Some(at)
}

/// The hops that proxies reported, nearest first: `X-Forwarded-For`, or `Forwarded` (RFC 7239) if
/// that is absent. `None` marks a hop that is not an IP address. The caller decides how much to
/// trust.
pub fn forwarded_hops(head: &RequestHead) -> Vec<Option<IpAddr>> {
    // Some proxies append a header line instead of extending the list: all lines form one list (RFC
    // 9110 section 5.3).
    let parts = |name: HeaderName| -> Vec<&[u8]> {
        let lines = head.headers().get_all(name).map(HeaderValue::as_bytes);
        let parts = lines
            .flat_map(|line| line.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii);
        parts.filter(|part| !part.is_empty()).collect()
    };
    let words = parts(header::X_FORWARDED_FOR);
    if !words.is_empty() {
        return words.into_iter().rev().map(address_of).collect();
    }
    let said_for = |element: &[u8]| {
        let mut pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let value = pairs
            .find(|pair| {
                pair.get(..4)
                    .is_some_and(|name| name.eq_ignore_ascii_case(b"for="))
            })?
            .get(4..)?;
        address_of(
            value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""))
                .unwrap_or(value),
        )
    };
    parts(header::FORWARDED)
        .into_iter()
        .rev()
        .map(said_for)
        .collect()
}

/// Parses `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, the first and last with an optional port.
fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let bare = || {
        text.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<IpAddr>()
            .ok()
    };
    let ip = text
        .parse()
        .ok()
        .or_else(bare)
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(ip.to_canonical())
}

/// Client address and correlation id of a request, for audit records.
pub fn audit_origin(request: &HttpRequest, service: &Services) -> Origin {
    Origin {
        address: client_ip(request.head(), service)
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
        correlation: correlation(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_read_with_and_without_a_port() {
        for (hop, ip) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(address_of(hop.as_bytes()), ip.parse().ok(), "{hop}");
        }
        for wrong in [
            "",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.1:x",
            "[192.0.2.1",
            "192.0.2.1 192.0.2.2",
        ] {
            assert_eq!(address_of(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
